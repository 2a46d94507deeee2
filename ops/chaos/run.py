"""Each phase: late changes, then every week's job meets its fate; another run finishes them all; nothing is missing.

list the steps (a run on one week) ─ a region with a week per trial ─ per phase:
late changes ─ kill, freeze ─ late changes ─ same rows? ─ run the job again ─ wake the frozen ─ same rows?
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.errors import BlockedError, DamagedError
from core.settings import Settings
from ops.chaos.stage import Stage, staged
from ops.chaos.trials import PHASES, Fate, Phase, Trial, one_per_kind, trials
from ops.chaos.worker import Order, run_job, work
from quality import run as quality

Say = Callable[[str], None]
AT_ONCE = 4
CHILD_SECONDS = 120.0
# A process that is revived may find that another has done its work: that is a clean end, too.
CLEAN = (0, 2, 3, 5)
_KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Outcome:
    """`left` is where the ledger showed the week when its process was dead or frozen; `ended` its exit code."""

    trial: Trial
    left: str
    ended: int


def listed(config: Settings, phases: Sequence[Phase], say: Say) -> dict[str, list[str]]:
    """The steps of each phase, in order, as a run on one week takes them."""
    with staged(config, 1) as stage, TemporaryDirectory() as folder:
        found = {}
        for phase in PHASES[: 1 + max(PHASES.index(phase) for phase in phases)]:
            if not phase.is_quiet:
                stage.change()
            found[phase.name] = _steps_of(stage, phase, Path(folder))
            say(f"{phase.name}: {len(found[phase.name])} steps")
    return {phase.name: found[phase.name] for phase in phases}


def run(config: Settings, phases: Sequence[Phase], is_quick: bool, say: Say) -> dict[str, Any]:
    """DamagedError when a row is missing, altered or there twice, or when a process did not end cleanly."""
    steps = listed(config, phases, say)
    planned = {phase: list(trials(phase, steps[phase.name])) for phase in phases}
    if is_quick:
        planned = {phase: one_per_kind(every) for phase, every in planned.items()}
    with staged(config, max(map(len, planned.values()))) as stage, TemporaryDirectory() as folder:
        outcomes = []
        for phase in PHASES[: 1 + max(PHASES.index(phase) for phase in phases)]:
            outcomes += _tried(stage, phase, planned.get(phase, []), Path(folder), say)
        total = stage.check()
    return {
        "trials": len(outcomes),
        "weeks": len(stage.weeks),
        "rows": total.rows,
        "digest": str(total),
        "outcomes": [_told(one) for one in outcomes],
    }


def _told(outcome: Outcome) -> dict[str, Any]:
    return asdict(outcome.trial) | {"left": outcome.left, "ended": outcome.ended}


def _steps_of(stage: Stage, phase: Phase, folder: Path) -> list[str]:
    now, log = stage.now(phase.days), folder / "steps"
    _judge(stage, phase, now)
    child = _start(Order(stage.config, phase.job, now, stage.weeks[0], None, log))
    if (code := _ended(child)) != 0:
        raise DamagedError(f"{phase.name}: a run without any fault ended with {code}: {_last(log)}", "mend that first")
    return [line for line in log.read_text().splitlines() if not line.startswith("= ")]


def _tried(stage: Stage, phase: Phase, every: Sequence[Trial], folder: Path, say: Say) -> list[Outcome]:
    now = stage.now(phase.days)
    _judge(stage, phase, now)
    orders = {
        trial: Order(stage.config, phase.job, now, week, trial, folder / f"{week}.log")
        for week, trial in zip(stage.weeks, every, strict=False)
    }
    met = _all_met(orders)
    states = stage.states()
    if not phase.is_quiet:
        stage.change()
    stage.check()
    say(f"{phase.name}: {len(every)} processes killed or frozen; every row is there")
    stage.wait_for_leases()
    run_job(phase.job, stage.config, now, list(stage.weeks))
    ends = {trial: _revived(child) if trial.fate is Fate.FROZEN_BEFORE else child.exitcode for trial, child in met}
    _require_clean(orders, ends)
    stage.check()
    say(f"{phase.name}: finished by another run, the frozen woken; every row is there")
    return [Outcome(trial, states[orders[trial].week], ends[trial] or 0) for trial in every]


def _judge(stage: Stage, phase: Phase, now: datetime) -> None:
    if phase.is_judged:
        quality.run(stage.config, now, stage.config.regions, None, _quiet)


def _all_met(orders: Mapping[Trial, Order]) -> list[tuple[Trial, ForkServerProcess]]:
    """Each child with its fate behind it, some at a time."""
    waiting, met = list(orders), []
    while waiting:
        batch, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        children = [(trial, _start(orders[trial])) for trial in batch]
        for trial, child in children:
            _await_fate(trial, child, orders[trial].log)
        met += children
    return met


def _start(order: Order) -> ForkServerProcess:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["ops.chaos.worker"])
    child = forks.Process(target=work, args=(order,))
    child.start()
    return child


def _await_fate(trial: Trial, child: ForkServerProcess, log: Path) -> None:
    deadline = time.monotonic() + CHILD_SECONDS
    while child.is_alive() and not _is_stopped(child):
        if time.monotonic() > deadline:
            child.kill()
            raise BlockedError(f"{trial.name}: not reached in {CHILD_SECONDS:.0f} s: {_last(log)}", "begin again")
        time.sleep(0.02)
    is_met = child.is_alive() if trial.fate is Fate.FROZEN_BEFORE else child.exitcode == _KILLED
    if not is_met:
        raise BlockedError(
            f"{trial.name}: this time the job did not take that step: {_last(log)}",
            "begin again; what is listed is what a run on one week did",
        )


def _is_stopped(child: ForkServerProcess) -> bool:
    try:
        return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False


def _revived(child: ForkServerProcess) -> int | None:
    os.kill(child.pid or 0, signal.SIGCONT)
    return _ended(child)


def _ended(child: ForkServerProcess) -> int | None:
    """None for one that hung, which is ended now."""
    child.join(CHILD_SECONDS)
    code = child.exitcode
    if code is None:
        child.kill()
    return code


def _require_clean(orders: Mapping[Trial, Order], ends: Mapping[Trial, int | None]) -> None:
    for trial, code in ends.items():
        if trial.fate is Fate.FROZEN_BEFORE and code not in CLEAN:
            raise DamagedError(
                f"{trial.name}: woken, it ended with {code}: {_last(orders[trial].log)}",
                "this is a fault of firn's own: keep the region's state and report it",
            )


def _last(log: Path) -> str:
    lines = log.read_text().splitlines() if log.exists() else []
    return lines[-1].removeprefix("= ") if lines else "it said nothing"


def phases_named(names: Sequence[str]) -> Iterator[Phase]:
    return (phase for phase in PHASES if not names or phase.name in names)


def _quiet(_: str) -> None:
    pass
