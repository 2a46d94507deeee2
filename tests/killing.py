"""Runs a job in this process and kills it at one point, with the signal that leaves no time for anything.

The points are put around the job's own functions from outside; the product names only those that cannot be taken back
(`core.steps`). The work runs here without Spark, whose start would cost more than all the rest.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from core import settings
from core.ledger import Account, TableState, WeekTable
from core.moves import State, Unit
from jobs import drop, fold, maintain, move, thaw, thawing, withdrawal
from lakehouse import ends, publish
from stores import messages
from stores.directory import DirectoryObjects
from stores.lane import Lane
from stores.ledger import CqlLedger
from stores.vault import CqlVault


@dataclass(frozen=True)
class Point:
    """Dies `after` or before the `call`-th call of a function whose arguments `fit`."""

    owner: Any
    name: str
    after: bool = True
    call: int = 1
    fits: Callable[..., bool] = lambda *_, **__: True


def reaching(state: State) -> Callable[..., bool]:
    """Calls of `CqlLedger.change` that bring a unit from another state to this one."""

    def fits(_: CqlLedger, old: Unit, new: Unit) -> bool:
        return new.state is state is not old.state

    return fits


def marking(state: TableState) -> Callable[..., bool]:
    def fits(_: CqlLedger, __: WeekTable | None, new: WeekTable) -> bool:
        return new.state is state

    return fits


def supplementing(_: CqlLedger, old: Unit, new: Unit) -> bool:
    return new.generation > old.generation


def thawing_from_rest(_: CqlLedger, old: Unit, new: Unit) -> bool:
    return new.move.is_thaw and new.move != old.move


def in_a_log(_: DirectoryObjects, key: str) -> bool:
    return "/_delta_log/" in key


def change(state: State, after: bool = True) -> Point:
    return Point(CqlLedger, "change", after, fits=reaching(state))


POINTS = {
    "sealed, before the route": change(State.SEALED),
    "sealed, in the middle of the copy": Point(ends, "copy"),
    "sealed, committed, before the pointers": Point(publish, "commit"),
    "sealed, one pointer moved": Point(CqlLedger, "advance"),
    "copied": change(State.COPIED),
    "copied, read back but not told": change(State.VERIFIED, after=False),
    "verified": change(State.VERIFIED),
    "switched": change(State.SWITCHED),
    "switched, lane taken in": Point(move, "take_in"),
    "switched, lane cleared": Point(Lane, "clear"),
    "switched, proven for the drop": Point(drop, "prove"),
    "dropping": Point(CqlLedger, "put_table", fits=marking(TableState.DROPPING)),
    "dropping, tables gone": Point(messages, "drop_tables"),
    "dropping, unit told": change(State.DROPPED),
    "folding, file written": Point(fold, "fold"),
    "folding, committed, before the pointers": Point(publish, "commit"),
    "folding, pointer moved": Point(CqlLedger, "advance"),
    "folding, lane not cleared": Point(Lane, "clear", after=False),
    "folding, lane cleared": Point(Lane, "clear"),
    "folding, told of a supplement": Point(CqlLedger, "change", fits=supplementing),
    "freezing, references noted": Point(CqlVault, "note"),
    "freezing, object put": Point(ends, "copy"),
    "freezing, manifest committed": Point(publish, "commit"),
    "freezing, object told": Point(CqlLedger, "put_frozen"),
    "freezing, copied": change(State.COPIED),
    "thinning, files taken out of the table": Point(withdrawal, "withdraw"),
    "thinning, unit told": change(State.DROPPED),
    "thinning, one pointer retired": Point(CqlLedger, "retire"),
    "thawing, told": Point(CqlLedger, "change", fits=thawing_from_rest),
    "thawing, noted but not told": Point(CqlLedger, "change", after=False, fits=thawing_from_rest),
    "thawing, tables made again": Point(thawing, "make_again"),
    "thawing, files committed, before the pointers": Point(publish, "commit"),
    "thawing, files in place, not switched": Point(move, "_put_in_place"),
    "thinning, manifests out of their table": Point(publish, "commit"),
    "thinning, one frozen row retired": Point(CqlLedger, "retire_frozen"),
    "purging, pointer repaired": Point(CqlLedger, "advance"),
    "purging, index gone": Point(DirectoryObjects, "delete"),
    "purging, references forgotten": Point(CqlVault, "forget_object"),
    "purging, some of the log gone": Point(DirectoryObjects, "delete", fits=in_a_log, call=3),
}


def arm(point: Point) -> None:
    real, calls = getattr(point.owner, point.name), 0

    def deadly(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += point.fits(*given, **named)
        is_now = calls == point.call and point.fits(*given, **named)
        if is_now and not point.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*given, **named)
        if is_now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(point.owner, point.name, deadly)


def die(point: str, job: str, config: settings.Settings, now: datetime, week: int, log: Path) -> None:
    """Runs in a process of its own and does not come back, unless the point was never reached."""
    with log.open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    arm(POINTS[point])
    match job:
        case "move":
            move.run(None, config, now, config.regions, [week], print)
        case "fold":
            fold.run(None, config, now, config.regions, [week], print)
        case "thaw":
            account = Account("a test", "to see it die")
            thaw.run(None, config, now, config.regions, thaw.Order(week, None, 0, account, True), print)
        case "maintain":
            maintain.run(config, now, config.regions, True, print)
        case _:
            drop.run(None, config, now, config.regions, [week], True, print)
