"""The local stack: Cassandra, Kafka, Valkey and firn's consumers below one state directory, on loopback only.

`up` is safe to repeat: it starts what is missing and says so when nothing is.
What the settings name themselves is not started.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import psutil

from core.errors import BlockedError, RefusedError
from core.settings import ENDPOINTS_FILE, Settings
from ops import airflow, endpoints, jars, ports, probes, processes, services, supervisor
from ops.java import Java, find_java
from ops.processes import Child, Record
from ops.secrets import make_vault_key

Say = Callable[[str], None]
Prepare = Callable[[Settings], None]
State = Literal["running", "starting", "stopped", "failed", "foreign", "configured"]

READY_SECONDS = 240.0
_LOCK_SECONDS = 600.0
_STEADY_SECONDS = 1.0
_POLL_SECONDS = 0.1
_ROOT = Path(__file__).parent.parent
# A child that dies twice on its way up will not come up by itself.
_START_DEATHS = 2
_DATA = ("data", "objects", "imports", "airflow", "demo", "demo.json", "logs", "run", ENDPOINTS_FILE, ports.PORTS_FILE)


@dataclass(frozen=True)
class Status:
    """`foreign`: something else listens on the port. `configured`: named in the settings, so not ours to start."""

    name: str
    state: State
    pid: int | None = None
    port: int | None = None
    rss_bytes: int = 0
    uptime_seconds: float = 0.0
    restarts: int = 0


@dataclass(frozen=True)
class Wiped:
    paths: tuple[Path, ...]
    size_bytes: int
    applied: bool


def up(
    settings: Settings,
    say: Say,
    prepare: Prepare | None = None,
    consumers: bool = True,
    *,
    full_speed: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """The settings with the endpoints of what runs; `prepare` gets them once services answer, before consumers start.

    Raises BlockedError when a port is taken or something does not come up; what this `up` started is stopped then.
    """
    names, bare = endpoints.local_services(settings), endpoints.without_local(settings)
    with _alone(settings.state_dir, say):
        make_vault_key(settings)
        wanted = {*names, *(f"consumer-{region}" for region in settings.regions if consumers)}
        if _is_up(settings.state_dir, wanted):
            say("the stack is already up")
            return endpoints.with_local(settings)
        ready = _start_services(bare, names, say, full_speed, environ)
        if prepare is not None:
            prepare(ready)
        if consumers:
            _start_consumers(bare, names, say, environ)
        say("the stack is up")
        return ready


def down(settings: Settings, say: Say) -> None:
    """Stops everything, also what a killed supervisor left behind. Data stay."""
    with _alone(settings.state_dir, say):
        if not _stop(settings.state_dir, say):
            say("the stack is not running")


def status(settings: Settings) -> tuple[Status, ...]:
    known, local = ports.remembered(settings.state_dir), endpoints.local_services(settings)
    plan = {child.name: child for child in processes.read_plan(settings.state_dir)}
    names = [*services.PORTS, *(f"consumer-{region}" for region in settings.regions)]
    names += [name for name in plan if name not in names]
    return tuple(
        Status(name, "configured")
        if name in services.PORTS and name not in local
        else _status(settings.state_dir, name, known.get(name), plan.get(name))
        for name in [*names, supervisor.NAME]
    )


def logs(settings: Settings, name: str, lines: int = 50) -> list[str]:
    """The last `lines` of one component's log."""
    with _open_log(settings, name) as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=lines)]


def follow(settings: Settings, name: str) -> Iterator[str]:
    """New lines of one component's log, for ever."""
    with _open_log(settings, name) as file:
        file.seek(0, os.SEEK_END)
        while True:
            if line := file.readline():
                yield line.rstrip("\n")
            else:
                time.sleep(_POLL_SECONDS)


def wipe(settings: Settings, apply: bool = False) -> Wiped:
    """Says what it would delete, or deletes it; only below the state directory, only when stack and Airflow are down.

    Fetched jars and secrets stay.
    """
    state_dir = settings.state_dir
    with _alone(state_dir, lambda _: None):
        if alive := [name for name, record in _records(state_dir).items() if record.alive]:
            raise BlockedError(f"the stack is running: {', '.join(alive)}", "run `./firn stack down` first")
        if any(state != "stopped" for state in airflow.status(settings).values()):
            raise BlockedError("Airflow is running", "run `./firn airflow down` first")
        found = tuple(path for name in _DATA if (path := state_dir / name).exists() or path.is_symlink())
        size = sum(_size(path) for path in found)
        for path in found if apply else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    return Wiped(found, size, apply)


def _start_services(
    settings: Settings, names: tuple[str, ...], say: Say, full_speed: bool, environ: Mapping[str, str]
) -> Settings:
    state_dir = settings.state_dir
    java = find_java(state_dir, environ)
    _fetch(state_dir, names, java, say)
    chosen = _ports(settings, names)
    children = [services.service(name, settings, java, chosen, full_speed) for name in names]
    kept = _others(state_dir, children)
    fresh = not _alive(state_dir, supervisor.NAME)
    _pardon(state_dir, children)
    try:
        # Kafka is told last: its directory is formatted while the others start.
        early = [child for child in children if child.name != "kafka" or _alive(state_dir, "kafka")]
        processes.write_plan(state_dir, [*early, *kept])
        _start_supervisor(state_dir, say)
        if len(early) < len(children):
            services.format_kafka(settings, java)
            processes.write_plan(state_dir, [*children, *kept])
        _wait_ready(state_dir, children, say)
    except BaseException:
        if fresh:
            _stop(state_dir, say)
        raise
    endpoints.remember(settings, names, chosen)
    return endpoints.with_local(settings)


def _ports(settings: Settings, names: tuple[str, ...]) -> dict[str, int]:
    """Those of services that do not run yet are free."""
    state_dir = settings.state_dir
    chosen = ports.choose(state_dir, _ports_of(names), endpoints.configured_ports(settings))
    absent = [name for name in names if not _alive(state_dir, name)]
    ports.require_free(state_dir, {port: chosen[port] for port in _ports_of(absent)})
    return chosen


def _ports_of(names: Iterable[str]) -> list[str]:
    return [port for name in names for port in services.PORTS[name]]


def _start_consumers(settings: Settings, names: tuple[str, ...], say: Say, environ: Mapping[str, str]) -> None:
    children = services.consumers(settings, names, environ)
    _pardon(settings.state_dir, children)
    processes.write_plan(settings.state_dir, [*_others(settings.state_dir, children), *children])
    _wait_ready(settings.state_dir, list(children), say)


def _pardon(state_dir: Path, children: Iterable[Child]) -> None:
    """What was given up is tried anew; the supervisor leaves such a record alone until the plan changes."""
    records = {one.name: processes.read_record(state_dir, one.name) for one in children}
    processes.forget(state_dir, [name for name, record in records.items() if record and record.gave_up])


def _others(state_dir: Path, children: Iterable[Child]) -> list[Child]:
    """What the plan holds beside `children` and still runs."""
    ours = {child.name for child in children}
    return [
        child for child in processes.read_plan(state_dir) if child.name not in ours and _alive(state_dir, child.name)
    ]


def _fetch(state_dir: Path, names: tuple[str, ...], java: Java, say: Say) -> None:
    components = [services.JARS[name] for name in names if name in services.JARS]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda component: jars.fetch(component, state_dir, java, say), components))


def _start_supervisor(state_dir: Path, say: Say) -> None:
    if _alive(state_dir, supervisor.NAME):
        return
    if left := [name for name, record in _records(state_dir).items() if record.alive]:
        say(f"taking over what an earlier supervisor left running: {', '.join(left)}")
    log = processes.log_path(state_dir, supervisor.NAME)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        subprocess.run(
            [sys.executable, "-m", "ops.supervisor", str(state_dir)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=True,
            cwd=_ROOT,
        )
    _wait(lambda: _alive(state_dir, supervisor.NAME), "the supervisor did not start", log)


def _wait_ready(state_dir: Path, children: list[Child], say: Say) -> None:
    started, waiting = time.monotonic(), {child.name: child for child in children}
    before = {name: record.restarts for name in waiting if (record := processes.read_record(state_dir, name))}
    while waiting:
        for child in list(waiting.values()):
            record = processes.read_record(state_dir, child.name)
            if record is None:
                continue
            if record.gave_up or record.restarts - before.setdefault(child.name, record.restarts) >= _START_DEATHS:
                raise _not_up(state_dir, child.name, "does not stay up")
            if _is_ready(child, record):
                say(f"{child.name} is ready ({time.monotonic() - started:.1f} s)")
                del waiting[child.name]
        if not _alive(state_dir, supervisor.NAME):
            raise _not_up(state_dir, supervisor.NAME, "ended")
        if waiting and time.monotonic() - started > READY_SECONDS:
            raise _not_up(state_dir, min(waiting), f"did not answer within {READY_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


def _is_ready(child: Child, record: Record) -> bool:
    """A child without a port must have lived a moment."""
    steady = bool(child.port) or processes.uptime_seconds(record) >= _STEADY_SECONDS
    return record.alive and steady and probes.answers(child.ready, child.port)


def _not_up(state_dir: Path, name: str, what: str) -> BlockedError:
    log = processes.log_path(state_dir, name)
    said = [line for line in _last_lines(log, 200) if "ERROR" in line or "rror:" in line or "xception" in line]
    return BlockedError(
        f"{name} {what}{': ' + said[-1].strip() if said else ''}", f"read {log}, mend it, and run `up` again"
    )


def _stop(state_dir: Path, say: Say) -> bool:
    """False when nothing was running."""
    plan = {child.name: child for child in processes.read_plan(state_dir)}
    keeper = processes.read_record(state_dir, supervisor.NAME)
    was_running = any(record.alive for record in _records(state_dir).values())
    if keeper is not None and keeper.alive:
        say("stopping")
        processes.stop({supervisor.NAME: (keeper, 15 + sum(child.stop_seconds for child in plan.values()))})
    left = {name: record for name, record in _records(state_dir).items() if record.alive}
    if left:
        say(f"stopping what no supervisor watches: {', '.join(left)}")
    for dependent in (True, False):
        chosen = {name: one for name, one in left.items() if bool(name in plan and plan[name].after) is dependent}
        processes.stop({name: (one, plan[name].stop_seconds if name in plan else 30.0) for name, one in chosen.items()})
    processes.forget(state_dir, [*_records(state_dir)])
    processes.plan_path(state_dir).unlink(missing_ok=True)
    if was_running:
        say("the stack is down")
    return was_running


def _status(state_dir: Path, name: str, port: int | None, child: Child | None) -> Status:
    record = processes.read_record(state_dir, name)
    if record is None or not record.alive:
        gone: State = (
            "failed" if record and record.gave_up else "foreign" if port and ports.is_taken(port) else "stopped"
        )
        return Status(name, gone, port=port, restarts=record.restarts if record else 0)
    ready = child is None or probes.answers(child.ready, child.port)
    rss = 0
    with suppress(psutil.NoSuchProcess):
        rss = psutil.Process(record.pid).memory_info().rss
    age = processes.uptime_seconds(record)
    return Status(name, "running" if ready else "starting", record.pid, port, rss, age, record.restarts)


def _is_up(state_dir: Path, wanted: set[str]) -> bool:
    plan = {child.name: child for child in processes.read_plan(state_dir)}
    return (
        _alive(state_dir, supervisor.NAME)
        and wanted <= set(plan)
        and all(_alive(state_dir, name) and probes.answers(plan[name].ready, plan[name].port) for name in wanted)
    )


def _alive(state_dir: Path, name: str) -> bool:
    record = processes.read_record(state_dir, name)
    return record is not None and record.alive


def _records(state_dir: Path) -> dict[str, Record]:
    names = [*(child.name for child in processes.read_plan(state_dir)), supervisor.NAME]
    return {name: record for name in names if (record := processes.read_record(state_dir, name))}


def _open_log(settings: Settings, name: str) -> TextIO:
    path = processes.log_path(settings.state_dir, name)
    if not path.exists():
        known = sorted(one.stem for one in path.parent.glob("*.log"))
        raise RefusedError(
            f"there is no log of {name!r}", f"name one of {', '.join(known) or 'none yet: start the stack'}"
        )
    return path.open(errors="replace")


def _last_lines(path: Path, count: int) -> list[str]:
    if not path.exists():
        return []
    with path.open(errors="replace") as file:
        return list(deque(file, maxlen=count))


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def _wait(condition: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise BlockedError(what, f"read {log}")
        time.sleep(_POLL_SECONDS)


@contextmanager
def _alone(state_dir: Path, say: Say) -> Iterator[None]:
    """One `up`, `down` or `wipe` per state directory at a time; the others wait for it."""
    state_dir.mkdir(parents=True, exist_ok=True)
    deadline, told = time.monotonic() + _LOCK_SECONDS, False
    with (state_dir / "stack.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BlockedError("another command holds the stack", "let it end, then try again") from None
            if not told:
                say("waiting for another stack command to end")
                told = True
            time.sleep(_POLL_SECONDS)
        yield
