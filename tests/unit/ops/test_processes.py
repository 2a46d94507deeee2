import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ops import processes, supervisor
from ops.processes import Child, Record


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_process_is_known_by_its_birth(sleeper: subprocess.Popen[bytes]) -> None:
    record = processes.record_of(sleeper.pid)
    assert record.alive
    assert not replace(record, born="another boot:1").alive
    assert 0 <= processes.uptime_seconds(record) < 5


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    record = processes.record_of(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGKILL)
    until(lambda: not record.alive)


def test_a_reused_pid_is_never_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    stranger = Record(sleeper.pid, "another boot:1")
    assert processes.stop({"stranger": (stranger, 1)}) == ()
    assert sleeper.poll() is None


def test_who_does_not_stop_when_asked_is_killed() -> None:
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert processes.stop({"deaf": (processes.record_of(process.pid), 0.2)}) == ("deaf",)
        assert process.wait(5) == -signal.SIGKILL


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    plan = (Child("a", ("x", "y z"), "cql", 1, {"K": "v"}, "/", ("b",), 2.5), Child("b", ("c",)))
    processes.write_plan(tmp_path, plan)
    assert processes.read_plan(tmp_path) == plan


def test_nothing_written_is_an_empty_plan(tmp_path: Path) -> None:
    assert processes.read_plan(tmp_path) == ()
    assert processes.read_record(tmp_path, "a") is None


def test_a_long_log_is_set_aside_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES", 3)
    log = tmp_path / "a.log"
    log.write_text("long")
    with processes.spawn(Child("a", ("echo", "new")), log):
        pass
    assert (log.read_text(), log.with_suffix(".log.1").read_text()) == ("new\n", "long")


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Runs a plan until the test ends."""
    stopping = threading.Event()
    thread = threading.Thread(target=supervisor.supervise, args=(tmp_path, stopping))

    def begin(*plan: Child) -> Path:
        processes.write_plan(tmp_path, plan)
        if not thread.is_alive():
            thread.start()
        return tmp_path

    yield begin
    stopping.set()
    thread.join(20)
    assert not thread.is_alive()


SLEEP = Child("a", ("sleep", "60"))


def record(state_dir: Path, name: str = "a") -> Record:
    found = processes.read_record(state_dir, name)
    return found or Record(0, "")


def test_a_child_that_dies_is_started_again(supervised: Callable[..., Path]) -> None:
    state_dir = supervised(SLEEP)
    until(lambda: record(state_dir).alive)
    first = record(state_dir)
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: record(state_dir).alive and record(state_dir) != first)
    assert record(state_dir).restarts == 1


def test_children_lead_sessions_of_their_own(supervised: Callable[..., Path]) -> None:
    state_dir = supervised(SLEEP)
    until(lambda: record(state_dir).alive)
    assert os.getsid(record(state_dir).pid) == record(state_dir).pid


def test_who_dies_young_too_often_is_left_until_the_plan_changes(
    supervised: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_BACKOFF_SECONDS", (0.0,))
    monkeypatch.setattr(supervisor, "_TURN_SECONDS", 0.01)
    state_dir = supervised(Child("a", ("false",)))
    until(lambda: record(state_dir).gave_up)
    assert record(state_dir).restarts == supervisor.YOUNG_DEATHS - 1
    supervised(SLEEP)
    until(lambda: record(state_dir).alive)


def test_what_cannot_be_started_is_given_up_and_the_others_run(supervised: Callable[..., Path]) -> None:
    state_dir = supervised(Child("a", ("/nonexistent/command",)), Child("b", ("sleep", "60")))
    until(lambda: record(state_dir).gave_up and record(state_dir, "b").alive)


def test_one_that_still_runs_is_adopted(supervised: Callable[..., Path], tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as orphan:
        processes.write_record(tmp_path, "a", processes.record_of(orphan.pid))
        state_dir = supervised(SLEEP, Child("b", ("sleep", "60")))
        until(lambda: record(state_dir, "b").alive)
        assert record(state_dir).pid == orphan.pid
        orphan.kill()
        orphan.wait()
        until(lambda: record(state_dir).alive)


def test_stopping_ends_all_and_forgets_them(tmp_path: Path) -> None:
    stopping = threading.Event()
    processes.write_plan(tmp_path, [SLEEP, Child("b", ("sleep", "60"))])
    thread = threading.Thread(target=supervisor.supervise, args=(tmp_path, stopping))
    thread.start()
    until(lambda: record(tmp_path).alive and record(tmp_path, "b").alive)
    ran = [record(tmp_path), record(tmp_path, "b")]
    stopping.set()
    thread.join(20)
    assert not any(one.alive for one in ran)
    assert processes.read_record(tmp_path, "a") is None
