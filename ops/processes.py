"""Child processes that outlive whoever started them: who they are, how they are recorded, how they end."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

LOG_BYTES = 16 * 1024 * 1024
_POLL_SECONDS = 0.05
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Child:
    """One process of the stack, as data. `env` adds to the supervisor's; `after` names whose port must answer first."""

    name: str
    argv: tuple[str, ...]
    ready: str = "alive"
    port: int = 0
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "."
    after: tuple[str, ...] = ()
    stop_seconds: float = 30.0


@dataclass(frozen=True)
class Record:
    """What is known of a child on disk. `born` tells a process from a later one with the same pid."""

    pid: int
    born: str
    restarts: int = 0
    gave_up: bool = False

    @property
    def alive(self) -> bool:
        return self.pid > 0 and birth(self.pid) == self.born


def birth(pid: int) -> str | None:
    """Boot id and start time in clock ticks; None when there is no such process, or only a zombie of it.

    Not a time of day: that moves when the clock is set.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else f"{_BOOT.read_text().strip()}:{fields[19]}"


def uptime_seconds(record: Record) -> float:
    running = float(Path("/proc/uptime").read_text().split()[0])
    return max(0.0, running - int(record.born.rpartition(":")[2]) / os.sysconf("SC_CLK_TCK"))


def spawn(child: Child, log: Path) -> subprocess.Popen[bytes]:
    """In a session of its own, so that no terminal ends it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        return subprocess.Popen(
            child.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **child.env},
            cwd=child.cwd,
            start_new_session=True,
        )


def stop(running: Mapping[str, tuple[Record, float]]) -> tuple[str, ...]:
    """Asks all at once, waits for each its own seconds, then kills; the names of those that had to be killed."""
    started = time.monotonic()
    for record, _ in running.values():
        _signal(record, signal.SIGTERM)
    killed = []
    for name, (record, seconds) in running.items():
        if not _wait_gone(record, started + seconds - time.monotonic()):
            killed.append(name)
            _signal(record, signal.SIGKILL)
            _wait_gone(record, seconds)
    return tuple(killed)


def _signal(record: Record, number: signal.Signals) -> None:
    if record.alive:
        with suppress(ProcessLookupError):
            os.kill(record.pid, number)


def _wait_gone(record: Record, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while record.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def record_of(pid: int, restarts: int = 0) -> Record:
    return Record(pid, birth(pid) or "", restarts)


def write_record(state_dir: Path, name: str, record: Record) -> None:
    write_json(_record_path(state_dir, name), asdict(record))


def read_record(state_dir: Path, name: str) -> Record | None:
    found = read_json(_record_path(state_dir, name))
    return Record(**found) if found else None


def forget(state_dir: Path, names: Iterable[str]) -> None:
    for name in names:
        _record_path(state_dir, name).unlink(missing_ok=True)


def _record_path(state_dir: Path, name: str) -> Path:
    return state_dir / "run" / f"{name}.json"


def plan_path(state_dir: Path) -> Path:
    return state_dir / "run" / "plan.json"


def write_plan(state_dir: Path, children: Iterable[Child]) -> None:
    write_json(plan_path(state_dir), {"children": [asdict(child) for child in children]})


def read_plan(state_dir: Path) -> tuple[Child, ...]:
    listed = (read_json(plan_path(state_dir)) or {}).get("children", [])
    return tuple(_tuples(Child(**child)) for child in listed)


def _tuples(child: Child) -> Child:
    return replace(child, argv=tuple(child.argv), after=tuple(child.after))


def log_path(state_dir: Path, name: str) -> Path:
    return state_dir / "logs" / f"{name}.log"


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Whole or not at all, also over a power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with fresh.open("w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
