"""A process that runs one job on one week and meets its fate at one step of it."""

import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core import steps
from core.errors import FirnError
from core.settings import Settings
from jobs import drop, fold, move
from ops.chaos.trials import Fate, Trial


@dataclass(frozen=True)
class Order:
    """Without a trial the job runs to its end. `log` gets a line per step, and at last how the job ended."""

    config: Settings
    job: str
    now: datetime
    week: int
    trial: Trial | None
    log: Path


def run_job(job: str, config: Settings, now: datetime, weeks: list[int]) -> None:
    """In this process, without Spark."""
    match job:
        case "move":
            move.run(None, config, now, config.regions, weeks, _quiet)
        case "drop":
            drop.run(None, config, now, config.regions, weeks, True, _quiet)
        case _:
            fold.run(None, config, now, config.regions, weeks, _quiet)


def work(order: Order) -> None:
    """Ends with the exit code of the job's error, or 1 for an error that is none of ours."""
    with order.log.open("w", buffering=1) as log:
        seen: Counter[str] = Counter()

        def watch(name: str, is_done: bool) -> None:
            seen[name] += not is_done
            if not is_done:
                log.write(f"{name}\n")
            trial = order.trial
            if trial and (name, seen[name], is_done) == (trial.step, trial.nth, trial.fate is Fate.KILLED_AFTER):
                os.kill(os.getpid(), signal.SIGSTOP if trial.fate is Fate.FROZEN_BEFORE else signal.SIGKILL)

        steps.watch(watch)
        code = _ended(order, log.write)
    os._exit(code)  # without the goodbyes of a pool of connections


def _ended(order: Order, write: Callable[[str], object]) -> int:
    try:
        run_job(order.job, order.config, order.now, [order.week])
    except FirnError as fault:
        write(f"= {type(fault).__name__}: {fault.what}\n")
        return fault.exit_code
    except BaseException:
        write(f"= {traceback.format_exc()}\n")
        return 1
    write("= done\n")
    return 0


def _quiet(_: str) -> None:
    pass
