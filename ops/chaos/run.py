"""Each phase: late changes, then every week's job meets its fate; another run finishes them all; nothing is missing.

list the steps (a run on one week) ─ a region with a week per trial ─ per phase:
kill, freeze, harm ─ late changes ─ same rows? ─ run the job again ─ wake the frozen ─ same rows?
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from core.errors import BlockedError, DamagedError
from core.settings import Settings
from ops.chaos.proxy import Protocol
from ops.chaos.stage import Stage, staged
from ops.chaos.trials import PHASES, Fate, Phase, Trial, WireTrial
from ops.chaos.worker import REQUESTS, Order, quiet, run_job, work
from quality import run as quality

Say = Callable[[str], None]
AnyTrial = Trial | WireTrial
AT_ONCE = 4
CHILD_SECONDS = 120.0
# One that is woken may find that another has done its work, and one whose reply was lost may stop: clean ends, too.
CLEAN = (0, 2, 3, 5)
_KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Listing:
    """What a run on one week does in a phase: its steps in their order, and how many requests it sends."""

    steps: tuple[str, ...]
    requests: Mapping[Protocol, int]


@dataclass(frozen=True)
class Outcome:
    """`left` is where the ledger showed the week when its process was dead or frozen; `ended` its exit code."""

    trial: AnyTrial
    left: str
    ended: int


def listed(config: Settings, phases: Sequence[Phase], say: Say) -> dict[Phase, Listing]:
    with staged(config, 1) as stage, TemporaryDirectory() as folder:
        found = {}
        for phase in _up_to(phases):
            if not phase.is_quiet:
                stage.change()
            found[phase] = _listing(stage, phase, Path(folder) / "log")
            say(f"{phase.name}: {len(found[phase].steps)} steps")
    return {phase: found[phase] for phase in phases}


def run(config: Settings, planned: Mapping[Phase, Sequence[AnyTrial]], say: Say) -> dict[str, Any]:
    """DamagedError when a row is missing, altered or there twice, or when a process did not end cleanly."""
    with staged(config, max(map(len, planned.values()))) as stage, TemporaryDirectory() as folder:
        outcomes: list[Outcome] = []
        for phase in _up_to(list(planned)):
            outcomes += _tried(stage, phase, planned.get(phase, []), Path(folder), say)
        total = stage.check()
    told = [asdict(one.trial) | {"left": one.left, "ended": one.ended} for one in outcomes]
    facts = {"rows": total.rows, "digest": str(total), "outcomes": told}
    return {"trials": len(outcomes), "weeks": len(stage.weeks), **facts}


def phases_named(names: Sequence[str]) -> list[Phase]:
    return [phase for phase in PHASES if not names or phase.name in names]


def _up_to(phases: Sequence[Phase]) -> Sequence[Phase]:
    """Weeks must live through what comes before a phase, too."""
    return PHASES[: 1 + max(PHASES.index(phase) for phase in phases)]


def _listing(stage: Stage, phase: Phase, log: Path) -> Listing:
    now = stage.now(phase.days)
    judge(stage, phase)
    child = start(Order(stage.config, phase.job, now, stage.weeks[0], None, log))
    if (code := ended(child)) != 0:
        raise DamagedError(f"{phase.name}: a run without any fault ended with {code}: {_last(log)}", "mend that first")
    lines = log.read_text().splitlines()
    return Listing(tuple(line for line in lines if not line.startswith((REQUESTS, "= "))), _requests(log))


def _tried(stage: Stage, phase: Phase, every: Sequence[AnyTrial], folder: Path, say: Say) -> list[Outcome]:
    now = stage.now(phase.days)
    judge(stage, phase)
    orders = {
        trial: Order(stage.config, phase.job, now, week, trial, folder / f"{week}.log")
        for week, trial in zip(stage.weeks, every, strict=False)
    }
    met = _all_met(orders)
    states = stage.states()
    if not phase.is_quiet:
        stage.change()
    stage.check()
    say(f"{phase.name}: {len(every)} processes killed, frozen or harmed; every row is there")
    stage.wait_for_leases()
    run_job(phase.job, stage.config, now, list(stage.weeks))
    ends = {trial: _revived(child) if _is_asleep(trial) else child.exitcode for trial, child in met}
    _require_clean(orders, ends)
    stage.check()
    say(f"{phase.name}: finished by another run, the frozen woken; every row is there")
    return [Outcome(trial, states[orders[trial].week], ends[trial] or 0) for trial in every]


def judge(stage: Stage, phase: Phase) -> None:
    if phase.is_judged:
        quality.run(stage.config, stage.now(phase.days), stage.config.regions, None, quiet)


def _all_met(orders: Mapping[AnyTrial, Order]) -> list[tuple[AnyTrial, ForkServerProcess]]:
    """Each child with its fate behind it, some at a time."""
    waiting, met = list(orders), []
    while waiting:
        batch, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        children = [(trial, start(orders[trial])) for trial in batch]
        for trial, child in children:
            _await_fate(trial, child, orders[trial].log)
        met += children
    return met


def start(order: Order) -> ForkServerProcess:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["ops.chaos.warmed"])
    child = forks.Process(target=work, args=(order,))
    child.start()
    return child


def _await_fate(trial: AnyTrial, child: ForkServerProcess, log: Path) -> None:
    deadline = time.monotonic() + CHILD_SECONDS
    while child.is_alive() and not _is_stopped(child):
        if time.monotonic() > deadline:
            child.kill()
            raise BlockedError(f"{trial.name}: not over in {CHILD_SECONDS:.0f} s: {_last(log)}", "begin again")
        time.sleep(0.02)
    if not _is_met(trial, child, log):
        raise BlockedError(
            f"{trial.name}: this time the job did not come to that: {_last(log)}",
            "begin again; what is listed is what a run on one week did",
        )


def _is_met(trial: AnyTrial, child: ForkServerProcess, log: Path) -> bool:
    if isinstance(trial, WireTrial):
        return _requests(log).get(trial.protocol, 0) >= trial.nth
    return child.is_alive() if _is_asleep(trial) else child.exitcode == _KILLED


def _requests(log: Path) -> dict[Protocol, int]:
    told = [line.removeprefix(REQUESTS).split() for line in log.read_text().splitlines() if line.startswith(REQUESTS)]
    return {Protocol(protocol): int(count) for protocol, count in told}


def _is_asleep(trial: AnyTrial) -> bool:
    return isinstance(trial, Trial) and trial.fate is Fate.FROZEN_BEFORE


def _is_stopped(child: ForkServerProcess) -> bool:
    try:
        return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False


def _revived(child: ForkServerProcess) -> int | None:
    os.kill(child.pid or 0, signal.SIGCONT)
    return ended(child)


def ended(child: ForkServerProcess) -> int | None:
    """None for one that hung, which is ended now."""
    child.join(CHILD_SECONDS)
    code = child.exitcode
    if code is None:
        child.kill()
    return code


def _require_clean(orders: Mapping[AnyTrial, Order], ends: Mapping[AnyTrial, int | None]) -> None:
    for trial, code in ends.items():
        if code not in CLEAN and code != _KILLED:
            raise DamagedError(
                f"{trial.name}: it ended with {code}: {_last(orders[trial].log)}",
                "this is a fault of firn's own: keep the region's state and report it",
            )


def _last(log: Path) -> str:
    lines = log.read_text().splitlines() if log.exists() else []
    ends = [line.removeprefix("= ") for line in lines if line.startswith("= ")]
    return ends[-1] if ends else f"after {len(lines)} steps"
