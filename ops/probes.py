"""Is it ready? One small question in each service's own protocol, over a bare loopback socket."""

import socket
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType

LOOPBACK = "127.0.0.1"
_SECONDS = 2.0

_CQL_OPTIONS = bytes.fromhex("040000000500000000")
_CQL_SUPPORTED = 6
_KAFKA_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 7, -1)


def _cql(ask: Callable[[bytes], bytes]) -> bool:
    answer = ask(_CQL_OPTIONS)
    return len(answer) >= 5 and answer[4] == _CQL_SUPPORTED


def _kafka(ask: Callable[[bytes], bytes]) -> bool:
    answer = ask(_KAFKA_API_VERSIONS)
    return len(answer) >= 8 and answer[4:8] == _KAFKA_API_VERSIONS[8:12]


def _redis(ask: Callable[[bytes], bytes]) -> bool:
    return ask(b"PING\r\n").startswith(b"+PONG")


PROBES: Mapping[str, Callable[[Callable[[bytes], bytes]], bool]] = MappingProxyType(
    {"cql": _cql, "kafka": _kafka, "redis": _redis}
)


def answers(kind: str, port: int) -> bool:
    """Kind `alive` has no port to ask and always answers."""
    return kind == "alive" or _answers(PROBES[kind], port)


def _answers(probe: Callable[[Callable[[bytes], bytes]], bool], port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_SECONDS) as connection:

            def ask(question: bytes) -> bytes:
                connection.sendall(question)
                return connection.recv(4096)

            return probe(ask)
    except OSError:
        return False
