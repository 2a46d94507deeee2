"""Keeps the children of one state directory alive: `python -m ops.supervisor STATE_DIR`.

It does what `run/plan.json` says and rereads it when it changes. A child that dies is started again, later each time;
one that dies young too often is left, with a line in `logs/supervisor.log`. SIGTERM stops all children, then it ends.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ops import probes, processes
from ops.processes import Child, Record

NAME = "supervisor"
YOUNG_SECONDS = 20.0
YOUNG_DEATHS = 6
_BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_TURN_SECONDS = 0.2


@dataclass
class Ward:
    """A child as the supervisor sees it. `process` is None for one adopted from a supervisor that was killed."""

    record: Record | None = None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    young_deaths: int = 0
    not_before: float = 0.0

    @property
    def alive(self) -> bool:
        if self.process is not None:
            return self.process.poll() is None
        return self.record is not None and self.record.alive


def main(argv: list[str]) -> int:
    """Goes to the background once it holds the lock; 3 when another supervisor holds it."""
    state_dir = Path(argv[1])
    with (state_dir / "run" / f"{NAME}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log("another supervisor keeps this directory")
            return 3
        if os.fork():
            os._exit(0)
        stopping = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        processes.write_record(state_dir, NAME, processes.record_of(os.getpid()))
        _log(f"watching, pid {os.getpid()}")
        supervise(state_dir, stopping)
        processes.forget(state_dir, [NAME])
    return 0


def supervise(state_dir: Path, stopping: threading.Event) -> None:
    wards: dict[str, Ward] = {}
    plan: tuple[Child, ...] = ()
    stamp: tuple[int, int] | None = None
    while not stopping.wait(_TURN_SECONDS):
        seen = _stamp(processes.plan_path(state_dir))
        if seen != stamp:
            stamp, plan = seen, processes.read_plan(state_dir)
            for ward in wards.values():
                _pardon(ward)
        for child in plan:
            if child.name not in wards:
                wards[child.name] = _meet(state_dir, child)
            _tend(state_dir, child, wards[child.name], {other.name: other for other in plan})
    _stop(state_dir, plan, wards)


def _stamp(plan: Path) -> tuple[int, int] | None:
    return (plan.stat().st_mtime_ns, plan.stat().st_ino) if plan.exists() else None


def _meet(state_dir: Path, child: Child) -> Ward:
    record = processes.read_record(state_dir, child.name)
    if record is None or not record.alive:
        return Ward(replace(record, pid=0) if record else None)
    _log(f"{child.name}: adopted, pid {record.pid}")
    return Ward(record, started=time.monotonic())


def _pardon(ward: Ward) -> None:
    """A new plan is a new chance."""
    ward.young_deaths, ward.not_before = 0, 0.0
    if ward.record is not None:
        ward.record = replace(ward.record, gave_up=False)


def _tend(state_dir: Path, child: Child, ward: Ward, plan: dict[str, Child]) -> None:
    if ward.alive or (ward.record is not None and ward.record.gave_up):
        return
    if ward.started:
        _mourn(state_dir, child, ward)
        return
    if time.monotonic() >= ward.not_before and all(_ready(plan[name]) for name in child.after if name in plan):
        _start(state_dir, child, ward)


def _ready(child: Child) -> bool:
    return probes.answers(child.ready, child.port)


def _start(state_dir: Path, child: Child, ward: Ward) -> None:
    restarts = 0 if ward.record is None else ward.record.restarts + 1
    try:
        ward.process = processes.spawn(child, processes.log_path(state_dir, child.name))
    except OSError as fault:
        _log(f"{child.name}: cannot be started: {fault.strerror}")
        ward.record = Record(0, "", restarts, gave_up=True)
    else:
        ward.started = time.monotonic()
        ward.record = processes.record_of(ward.process.pid, restarts)
        _log(f"{child.name}: started, pid {ward.process.pid}")
    processes.write_record(state_dir, child.name, ward.record)


def _mourn(state_dir: Path, child: Child, ward: Ward) -> None:
    code = ward.process.returncode if ward.process else "unknown"
    young = time.monotonic() - ward.started < YOUNG_SECONDS
    ward.young_deaths = ward.young_deaths + 1 if young else 0
    ward.process, ward.started = None, 0.0
    ward.not_before = time.monotonic() + _BACKOFF_SECONDS[min(ward.young_deaths, len(_BACKOFF_SECONDS) - 1)]
    assert ward.record is not None
    if ward.young_deaths >= YOUNG_DEATHS:
        _log(f"{child.name}: died young {ward.young_deaths} times (exit {code}); given up until the next `up`")
        ward.record = replace(ward.record, pid=0, gave_up=True)
        processes.write_record(state_dir, child.name, ward.record)
    else:
        _log(f"{child.name}: died (exit {code}); starting it again")


def _stop(state_dir: Path, plan: tuple[Child, ...], wards: dict[str, Ward]) -> None:
    """First those that need others, then the others."""
    for dependent in (True, False):
        running = {
            child.name: (record, child.stop_seconds)
            for child in plan
            if bool(child.after) is dependent and child.name in wards and (record := wards[child.name].record)
        }
        for name in processes.stop(running):
            _log(f"{name}: did not stop in time and was killed")
        for process in (wards[name].process for name in running):
            if process is not None:
                process.wait()  # dead by now: this takes the exit code, and leaves no zombie
        processes.forget(state_dir, running)
    _log("stopped")


def _log(line: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
