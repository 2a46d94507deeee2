"""Several Cassandra nodes in two datacenters and a Kafka, a test's own, on loopback addresses and ports of their own.

The local stack is one node that plays both datacenters; some things only several can show. The files and flags are the
product's own (`ops.services`), amended where one node differs from four. Nobody watches these processes: what a test
kills stays dead until it starts it again.
"""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cassandra import ConsistencyLevel, DriverException, Unavailable
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.policies import ConstantReconnectionPolicy, FallthroughRetryPolicy, WhiteListRoundRobinPolicy
from cassandra.protocol import ErrorMessage

from core import settings as settings_
from core.errors import BlockedError, FirnError, OutcomeUnknownError
from core.settings import Cassandra, Kafka, Settings
from ops import jars, ports, processes, services
from ops.java import Java, find_java
from ops.probes import LOOPBACK
from ops.processes import Child
from ops.secrets import make_vault_key
from ops.services import as_environment
from tests.client import until
from tests.conftest import ROOT, quiet

HOT, WARM = "hot", "warm"
HOT_NODES = 3
START_SECONDS = 180.0
DOWN_SECONDS = 60.0
# A quick verdict on a dead node, and a cluster that is formed at once: nobody bootstraps, all are seeds.
_FORMED = "auto_bootstrap: false\nphi_convict_threshold: 5\n"
_FLAGS = ("-Dcassandra.ring_delay_ms=1000", "-Dcassandra.superuser_setup_delay_ms=0")


@dataclass
class Node:
    """A process that a test may kill and start."""

    host: str
    child: Child
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = processes.spawn(self.child, self.log)

    def kill(self) -> None:
        """With the signal that leaves no time for anything."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.host} ended: {self.log.read_text()[-1500:]}"
        with suppress(OSError), socket.create_connection((self.host, self.child.port), timeout=2):
            return True
        return False


@dataclass(frozen=True)
class Nodes:
    """`config` has no region yet: hot on three nodes, each row on all of them, warm on the fourth."""

    hot: tuple[Node, ...]
    warm: Node
    kafka: Node
    config: Settings

    @property
    def cassandra(self) -> tuple[Node, ...]:
        return (*self.hot, self.warm)

    def start(self, *nodes: Node) -> None:
        """Returns when every living node counts on every other."""
        for node in nodes:
            node.start()
        for node in nodes:
            until(node.answers, f"{node.host} does not come up: {node.log}", START_SECONDS)
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        for node in self.cassandra:
            until(partial(self._reaches_all, node), f"{node.host} does not see all nodes", START_SECONDS)

    def wait_until_missed(self) -> None:
        """Until every living node knows that one is dead, and does not wait for it."""
        for node in (one for one in self.cassandra if one.process is not None):
            until(partial(self._misses_one, node), f"{node.host} does not notice that a node is dead", DOWN_SECONDS)

    def _reaches_all(self, node: Node) -> bool:
        try:
            _ask_all(node)
        except (DriverException, NoHostAvailable, ErrorMessage):
            return False
        return True

    def _misses_one(self, node: Node) -> bool:
        try:
            _ask_all(node)
        except Unavailable:
            return True
        except (DriverException, NoHostAvailable):
            return False
        return False


def _ask_all(node: Node) -> None:
    with session_at(node) as session:
        session.execute(f"CREATE KEYSPACE IF NOT EXISTS probe WITH replication = {_EVERYWHERE}")
        session.execute(f"CREATE TABLE IF NOT EXISTS probe.probe (id int PRIMARY KEY) WITH id = {_PROBE}")
        session.execute("INSERT INTO probe.probe (id) VALUES (1)")


_PROBE = "6f1a0c52-6669-726e-8000-70726f62655f"  # told, so that two nodes that do not know each other make one table
_EVERYWHERE = f"{{'class': 'NetworkTopologyStrategy', '{HOT}': {HOT_NODES}, '{WARM}': 1}}"


@contextmanager
def session_at(node: Node, level: int = ConsistencyLevel.ALL) -> Iterator[Session]:
    """Through this node alone."""
    profile = ExecutionProfile(
        load_balancing_policy=WhiteListRoundRobinPolicy([node.host]),
        retry_policy=FallthroughRetryPolicy(),
        consistency_level=level,
        request_timeout=30,
    )
    cluster = Cluster(
        [node.host],
        port=node.child.port,
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        reconnection_policy=ConstantReconnectionPolicy(1.0),
    )
    try:
        yield cluster.connect()
    finally:
        cluster.shutdown()


@contextmanager
def running(folder: Path) -> Iterator[Nodes]:
    """All of it, up; all of it is killed at the end."""
    made = _made(folder)
    with ExitStack() as ending:
        for node in (*made.cassandra, made.kafka):
            ending.callback(node.kill)
        made.kafka.start()
        made.start(*made.cassandra)
        until(made.kafka.answers, "Kafka does not come up", START_SECONDS)
        yield made


def _made(folder: Path) -> Nodes:
    share_jars(folder)
    java = find_java(folder, os.environ)
    for component in ("cassandra", "kafka"):
        jars.fetch(component, folder, java, quiet)
    names = [name for service in ("cassandra", "kafka") for name in services.PORTS[service]]
    names += [f"jmx{number}" for number in range(HOT_NODES + 1)]
    chosen = ports.choose(folder, names, {})
    base = Settings(folder, kafka=Kafka(f"{LOOPBACK}:{chosen['kafka']}"))
    make_vault_key(base)
    hosts = [f"127.0.0.{number}" for number in range(2, HOT_NODES + 3)]
    seeds = ",".join(f"{host}:{chosen['cassandra_storage']}" for host in hosts)
    nodes = []
    for number, host in enumerate(hosts):
        own = chosen | {"cassandra_jmx": chosen[f"jmx{number}"]}
        nodes.append(_node(base, java, host, seeds, WARM if number == HOT_NODES else HOT, own))
    kafka = services.service("kafka", base, java, chosen, full_speed=False)
    services.format_kafka(base, java)
    hot = Cassandra(tuple(hosts[:HOT_NODES]), chosen["cassandra"], HOT, replication=HOT_NODES)
    warm = Cassandra((hosts[HOT_NODES],), chosen["cassandra"], WARM, replication=1)
    config = replace(settings_.with_local_secrets(settings_.with_endpoints(base, {})), hot=hot, warm=warm)
    return Nodes(tuple(nodes[:HOT_NODES]), nodes[HOT_NODES], Node(LOOPBACK, kafka, folder / "kafka.log"), config)


def _node(base: Settings, java: Java, host: str, seeds: str, datacenter: str, chosen: Mapping[str, int]) -> Node:
    folder = base.state_dir / host
    share_jars(folder)
    config = replace(base, state_dir=folder, hot=Cassandra(datacenter=datacenter))
    child = services.service("cassandra", config, java, chosen, full_speed=False)
    yaml = folder / "run" / "conf" / "cassandra" / "cassandra.yaml"
    text = yaml.read_text().replace(f"{LOOPBACK}:{chosen['cassandra_storage']}", seeds)
    yaml.write_text(text.replace(f": {LOOPBACK}\n", f": {host}\n") + _FORMED)
    *before, main = child.argv
    at = before.index("-cp")
    argv = (*before[:at], *_FLAGS, *before[at:], main)
    return Node(host, replace(child, argv=argv), folder / "node.log")


def share_jars(folder: Path) -> None:
    """The jars of the working copy, if they were fetched: 230 MB need not come twice."""
    shared = settings_.load().state_dir / "jars"
    shared.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "jars").exists():
        (folder / "jars").symlink_to(shared)


@contextmanager
def striking(owner: Any, name: str, act: Callable[[], object], call: int = 1) -> Iterator[None]:
    """Does `act` right after the `call`-th call of a function of the job that runs in this process."""
    real, calls = getattr(owner, name), 0

    def struck(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = real(*given, **named)
        if calls == call:
            act()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, struck)
        yield
    assert calls >= call, f"{name} was not called"


def survived(job: Callable[[], object]) -> FirnError | None:
    """How it ended: well, or with an error that says that the same again goes on."""
    ending: FirnError | None = None
    try:
        job()
    except (BlockedError, OutcomeUnknownError) as fault:
        ending = fault
    assert ending is None or "again" in ending.do, ending
    return ending


def fresh_region() -> str:
    return f"n{secrets.token_hex(5)}"


@contextmanager
def consuming(config: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The region's consumer in a process of its own, from a stranger's environment: the settings are all it knows."""
    command = [sys.executable, "-m", "serving.consumer", "--region", config.regions[0]]
    environment = _without_firn(os.environ.items()) | as_environment(config)
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=ROOT)
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


def _without_firn(variables: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in variables if not name.startswith(settings_.ENVIRONMENT_PREFIX)}
