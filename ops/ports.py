"""Ports of the local stack: free ones at the first start, the same ones ever after."""

import random
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil

from core.errors import BlockedError
from ops.probes import LOOPBACK
from ops.processes import read_json, write_json

PORTS_FILE = "ports.json"
# Below the range from which Linux takes ports for outgoing connections: a remembered port must still be free next week.
_FIRST, _LAST = 20_000, 32_000
_TRIES = 1000


def remembered(state_dir: Path) -> dict[str, int]:
    return read_json(state_dir / PORTS_FILE) or {}


def choose(state_dir: Path, names: Iterable[str], configured: Mapping[str, int]) -> dict[str, int]:
    """A port for each name, written down; `configured` wins over what was remembered."""
    known = {**remembered(state_dir), **configured}
    missing = [name for name in names if name not in known]
    with ExitStack() as held:
        for name in missing:
            known[name] = _take(held, set(known.values()))
    if known != remembered(state_dir):
        write_json(state_dir / PORTS_FILE, known)
    return {name: known[name] for name in names}


def require_free(state_dir: Path, ports: Mapping[str, int]) -> None:
    """Raises BlockedError that names each port that another process listens on."""
    taken = [f"port {port} of {name} is taken by {_holder(port)}" for name, port in ports.items() if is_taken(port)]
    if taken:
        raise BlockedError(
            "; ".join(taken),
            f"stop that process, or take the port out of {state_dir / PORTS_FILE} or firn.toml to have a free one",
        )


def is_taken(port: int) -> bool:
    with socket.socket() as trial:
        return not _binds(trial, port)


def _take(held: ExitStack, known: set[int]) -> int:
    for _ in range(_TRIES):
        port = random.randint(_FIRST, _LAST)
        if port not in known and _binds(held.enter_context(socket.socket()), port):
            return port
    raise BlockedError(f"no free port between {_FIRST} and {_LAST}", "stop what listens there")


def _binds(trial: socket.socket, port: int) -> bool:
    # Without this a port counts as taken for a minute after its last connection closed.
    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        trial.bind((LOOPBACK, port))
    except OSError:
        return False
    return True


def _holder(port: int) -> str:
    """Pid and name where this user may know them."""
    for connection in psutil.net_connections("tcp"):
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and connection.pid and address and address.port == port:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                break
    return "another process"
