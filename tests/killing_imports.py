"""Runs an import in a process of its own and kills it at one point, as `tests.killing` does with the movers."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from core import settings
from jobs.imports import job as imports
from jobs.imports import landing
from lakehouse import incoming, quarantine
from lakehouse.spill import Spill
from stores.cassandra import Database
from stores.ledger import CqlLedger
from tests.killing import Point, arm

CHUNK_ROWS = 20  # small, so that sorting takes several


def appending(folder: str) -> Any:
    def fits(_: Spill, name: str, *__: Any) -> bool:
        return name.startswith(folder)

    return fits


def noting(what: str) -> Any:
    def fits(_: Spill, note: dict[str, Any]) -> bool:
        return bool(note["what"] == what)

    return fits


POINTS = {
    "before the first row was laid down": Point(Spill, "append", after=False),
    "rows laid down, not noted": Point(Spill, "append", call=3, fits=appending("rows")),
    "a chunk noted": Point(Spill, "note", call=2, fits=noting("chunk")),
    "all sorted, not noted": Point(Spill, "note", after=False, fits=noting("sorted")),
    "verdicts laid down": Point(Spill, "append", fits=appending("verdicts")),
    "judged": Point(Spill, "note", fits=noting("judged")),
    "a unit born": Point(CqlLedger, "create"),
    "readers told, no run yet": Point(Database, "write"),
    "a run written, not registered": Point(landing, "write_run"),
    "a run registered": Point(CqlLedger, "add_run"),
    "events acknowledged, not noted": Point(imports.Log, "send"),
    "conflicts laid down, not noted": Point(Spill, "append", fits=appending("bad")),
    "a part noted": Point(Spill, "note", fits=noting("placed")),
    "quarantine written, not committed": Point(quarantine, "commit", after=False),
    "quarantine committed": Point(quarantine, "commit"),
    "no receipt yet": Point(imports, "_put_receipt", after=False),
    "a receipt, and the spill still there": Point(imports, "_put_receipt"),
}


def die(point: str, config: settings.Settings, now: datetime, order: imports.Order, log: Path) -> None:
    """Runs in a process of its own and does not come back, unless the point was never reached."""
    with log.open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    setattr(incoming, "CHUNK_ROWS", CHUNK_ROWS)  # noqa: B010 (mypy does not let a module's constant be replaced)
    arm(POINTS[point])
    imports.run(config, now, order, print)
