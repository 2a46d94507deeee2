"""Real services. Most cases need only the quickest of them, so the others are named in the settings and not started."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cassandra.cluster import Cluster
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from core import settings as settings_
from core.errors import BlockedError, RefusedError
from core.settings import Cassandra, Kafka, Settings
from ops import ports, processes, services, stack, supervisor
from ops.processes import Child
from ops.stack import Status

ELSEWHERE = Cassandra(contact_points=("cassandra.example",))


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def quiet(_: str) -> None:
    pass


def by_name(settings: Settings) -> dict[str, Status]:
    return {one.name: one for one in stack.status(settings)}


def ask_valkey(settings: Settings, *words: str) -> str:
    port = by_name(settings)["valkey"].port
    with socket.create_connection(("127.0.0.1", port or 0), timeout=5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(4096).decode()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Settings]:
    settings = Settings(tmp_path / "state", ("us",), ELSEWHERE, ELSEWHERE, Kafka("kafka.example:9092"))
    yield settings
    stack.down(settings, quiet)


def test_only_what_nobody_configured_is_started(small: Settings) -> None:
    ready = stack.up(small, quiet, consumers=False)
    states = {name: one.state for name, one in by_name(small).items()}
    assert states == {
        "cassandra": "configured",
        "kafka": "configured",
        "valkey": "running",
        "consumer-us": "stopped",
        "supervisor": "running",
    }
    assert ready.redis.url == f"redis://127.0.0.1:{by_name(small)['valkey'].port}"
    assert ready.kafka.bootstrap == "kafka.example:9092"


def test_a_second_up_says_so_and_starts_nothing(small: Settings) -> None:
    ready = stack.up(small, quiet, consumers=False)
    said: list[str] = []
    before = by_name(small)["valkey"].pid
    assert stack.up(ready, said.append, consumers=False) == ready
    assert said == ["the stack is already up"]
    assert by_name(small)["valkey"].pid == before


def test_two_ups_at_once_start_one_stack(small: Settings) -> None:
    outcomes: list[Settings] = []
    both = [threading.Thread(target=lambda: outcomes.append(stack.up(small, quiet, None, False))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert outcomes[0] == outcomes[1]
    assert [one.restarts for one in stack.status(small)] == [0] * 5


def test_data_and_ports_outlive_a_stop_and_a_kill(small: Settings) -> None:
    ready = stack.up(small, quiet, consumers=False)
    assert ask_valkey(small, "SET", "k", "v").startswith("+OK")
    stack.down(small, quiet)
    assert by_name(small)["valkey"].state == "stopped"
    assert stack.up(small, quiet, consumers=False) == ready
    killed = by_name(small)["valkey"].pid
    assert killed
    os.kill(killed, signal.SIGKILL)
    until(lambda: by_name(small)["valkey"].state == "running" and by_name(small)["valkey"].pid != killed)
    assert by_name(small)["valkey"].restarts == 1
    until(lambda: ask_valkey(small, "GET", "k").startswith("$1\r\nv"))


def test_up_takes_over_what_a_killed_supervisor_left(small: Settings) -> None:
    stack.up(small, quiet, consumers=False)
    before = by_name(small)
    os.kill(before["supervisor"].pid or 0, signal.SIGKILL)
    until(lambda: by_name(small)["supervisor"].state == "stopped")
    said: list[str] = []
    stack.up(small, said.append, consumers=False)
    assert "taking over what an earlier supervisor left running: valkey" in said
    assert by_name(small)["valkey"].pid == before["valkey"].pid
    assert by_name(small)["supervisor"].pid != before["supervisor"].pid


def test_down_stops_what_a_killed_supervisor_left(small: Settings) -> None:
    stack.up(small, quiet, consumers=False)
    os.kill(by_name(small)["supervisor"].pid or 0, signal.SIGKILL)
    until(lambda: by_name(small)["supervisor"].state == "stopped")
    stack.down(small, quiet)
    assert by_name(small)["valkey"].state == "stopped"


def test_a_port_taken_by_a_stranger_is_named(small: Settings) -> None:
    stack.up(small, quiet, consumers=False)
    stack.down(small, quiet)
    port = by_name(small)["valkey"].port
    assert port
    with socket.create_server(("127.0.0.1", port)):
        assert by_name(small)["valkey"].state == "foreign"
        with pytest.raises(BlockedError, match=rf"port {port} of valkey is taken by .*pid {os.getpid()}"):
            stack.up(small, quiet, consumers=False)
    stack.up(small, quiet, consumers=False)


def test_prepare_runs_between_services_and_consumers(small: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys, time; print(sys.argv[1:], flush=True); time.sleep(60)"
    child = Child("consumer-us", (sys.executable, "-c", script), after=("valkey",))
    monkeypatch.setattr(services, "consumers", lambda *_: (child,))
    seen: list[dict[str, Status]] = []
    stack.up(small, quiet, lambda _: seen.append(by_name(small)))
    assert (seen[0]["valkey"].state, seen[0]["consumer-us"].state) == ("running", "stopped")
    assert by_name(small)["consumer-us"].state == "running"


def test_a_failed_prepare_leaves_the_services_for_the_next_try(small: Settings) -> None:
    def fail(_: Settings) -> None:
        raise RefusedError("no", "yes")

    with pytest.raises(RefusedError):
        stack.up(small, quiet, fail)
    assert by_name(small)["valkey"].state == "running"
    assert by_name(small)["consumer-us"].state == "stopped"


def test_what_does_not_come_up_is_named_and_nothing_is_left(small: Settings) -> None:
    stack.up(small, quiet, consumers=False)
    stack.down(small, quiet)
    damaged = next((small.state_dir / "data" / "valkey" / "appendonlydir").glob("*.incr.aof"))
    damaged.write_text("this is no log of commands")
    with pytest.raises(BlockedError, match="valkey does not stay up") as caught:
        stack.up(small, quiet, consumers=False)
    assert str(small.state_dir / "logs" / "valkey.log") in caught.value.do
    assert by_name(small)["supervisor"].state == "stopped"
    assert any("Bad file format" in line for line in stack.logs(small, "valkey", 50))


def test_wipe_says_before_it_does_and_never_under_a_running_stack(small: Settings) -> None:
    stack.up(small, quiet, consumers=False)
    with pytest.raises(BlockedError, match="running: valkey"):
        stack.wipe(small, apply=True)
    stack.down(small, quiet)
    kept = small.state_dir / "jars" / "kept.jar"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("x")
    told = stack.wipe(small)
    assert not told.applied
    assert told.size_bytes > 0
    assert all(path.exists() for path in told.paths)
    assert stack.wipe(small, apply=True).paths == told.paths
    assert not any(path.exists() for path in told.paths)
    assert kept.exists()
    assert ports.remembered(small.state_dir) == {}


def test_an_unknown_log_is_refused_with_the_known_ones(small: Settings) -> None:
    stack.up(small, quiet, consumers=False)
    with pytest.raises(RefusedError, match="nginx") as caught:
        stack.logs(small, "nginx")
    assert "supervisor, valkey" in caught.value.do


def test_one_supervisor_per_directory(small: Settings) -> None:
    stack.up(small, quiet, consumers=False)
    assert supervisor.main(["supervisor", str(small.state_dir)]) == 3


def test_the_whole_stack_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """Up, write to each, kill all at once as a power loss would, up again, read."""
    settings = Settings(tmp_path)
    # The jars of the working copy, if they were fetched: 230 MB need not come twice.
    shared = settings_.load().state_dir / "jars"
    shared.mkdir(parents=True, exist_ok=True)
    (tmp_path / "jars").symlink_to(shared)
    try:
        ready = stack.up(settings, quiet, consumers=False)
        with Cluster(ready.hot.contact_points, port=ready.hot.port) as cluster:
            session = cluster.connect()
            keyspace = "CREATE KEYSPACE k WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 1}"
            session.execute(keyspace)
            session.execute("CREATE TABLE k.t (id int PRIMARY KEY)")
            session.execute("INSERT INTO k.t (id) VALUES (7) IF NOT EXISTS")
        admin = AdminClient({"bootstrap.servers": ready.kafka.bootstrap})
        admin.create_topics([NewTopic("t", 1)])["t"].result(30)
        for name in (supervisor.NAME, "cassandra", "kafka", "valkey"):
            os.kill(by_name(settings)[name].pid or 0, signal.SIGKILL)
        until(lambda: not any(one.pid for one in stack.status(settings)))
        assert stack.up(settings, quiet, consumers=False) == ready
        with Cluster(ready.hot.contact_points, port=ready.hot.port) as cluster:
            assert [row.id for row in cluster.connect("k").execute("SELECT id FROM t")] == [7]
        assert "t" in AdminClient({"bootstrap.servers": ready.kafka.bootstrap}).list_topics(timeout=30).topics
    finally:
        stack.down(settings, quiet)
    assert processes.read_plan(tmp_path) == ()
