"""The second half of an import: unit by unit, oldest first, what was sorted becomes runs or events.

    rows/… ─ part ─ verdicts ─┬─ kept ─ one row per message ─┬─ cold, frozen ─▶ run, then the ledger knows of it
                              │                              └─ hot, warm ────▶ Kafka
                              ├─ repeated
                              └─ in conflict ─▶ bad

A part is noted when it is safe. Doing one twice is harmless: ids, names and timestamps are the same each time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core import weeks
from core.errors import RefusedError
from core.imported import MARKED, as_json, rows_of
from core.imports import CONFLICT, KEPT, REPEATED, Destination, destination
from core.overlay import merge_all
from core.settings import Tiers
from jobs.imports.landing import Load, Sinks, as_events, as_runs, load_of
from jobs.imports.meter import Meter
from jobs.imports.notes import UnitKey, bad_of
from jobs.imports.sorting import LINE_BITS, Work, spill_bad, verdicts_of
from jobs.imports.splitting import Part, parts
from lakehouse.incoming import Bad
from stores.ledger import Ledger

OTHER_CONTENT = "its id comes again with other content"
_WEEKS_NAMED = 5


def place(work: Work, sinks: Sinks, policy: Tiers, part_bytes: int) -> float:
    """Goes on behind the parts that were placed; returns the seconds that it took. Several small parts go together."""
    progress = work.progress
    meter = Meter("placed", progress.settled, work.say)
    held: list[_Part] = []
    size_bytes = 0
    for unit, to in sorted(destinations(progress.units, sinks.ledger, work, policy).items()):
        verdicts = verdicts_of(work.spill, unit)
        for part in parts(work.spill, unit, progress.units[unit].size_bytes, work.slices, part_bytes):
            if (unit, part.name) not in progress.done:
                held.append(_part(work, unit, part, to, verdicts))
                size_bytes += part.size_bytes
            if size_bytes >= part_bytes:
                _land(work, sinks, held)
                held, size_bytes = [], 0
                meter.at(progress.settled, progress.read)
    _land(work, sinks, held)
    meter.at(progress.settled, progress.read, is_last=True)
    return meter.seconds


def destinations(units: Iterable[UnitKey], ledger: Ledger, work: Work, policy: Tiers) -> dict[UnitKey, Destination]:
    """RefusedError that names the weeks which nobody has made tables for: nothing was placed then."""
    known = {(unit.week, unit.slice): unit for unit in ledger.units()}
    first_week = ledger.first_week()
    found = {unit: destination(unit[0], known.get(unit), first_week, work.now, policy) for unit in units}
    if homeless := sorted({weeks.label(week) for (week, _), to in found.items() if to is None}):
        more = f" and {len(homeless) - _WEEKS_NAMED} more" if len(homeless) > _WEEKS_NAMED else ""
        raise RefusedError(
            f"no tables are there yet for {', '.join(homeless[:_WEEKS_NAMED])}{more}; nothing was placed",
            f"run: ./firn weeks --region {ledger.region} --now {work.now:%Y-%m-%dT%H:%M:%SZ}; then the same again",
        )
    return {unit: to for unit, to in found.items() if to}


def has_runs(runs: Iterable[tuple[UnitKey, str]], ledger: Ledger) -> bool:
    """Whether the ledger knows every run that was noted: that of a region which was made anew does not."""
    for unit, named in groupby(sorted(runs), key=lambda run: run[0]):
        if not {name for _, name in named} <= {run.name for run in ledger.runs(*unit)}:
            return False
    return True


@dataclass(frozen=True)
class _Part:
    """One part on its way: the messages to place, rows in conflict, and how many rows these stand for."""

    load: Load
    to: Destination
    kept: int
    repeated: int
    conflicts: pa.RecordBatch


def _part(work: Work, unit: UnitKey, part: Part, to: Destination, verdicts: NDArray[np.void]) -> _Part:
    rows = _rows(work, part)
    verdict = _verdict_of(np.asarray(rows["line"]), verdicts)
    kept = rows.filter(pa.array(verdict >= KEPT))
    messages = merge_all(rows_of(kept, verdict[verdict >= KEPT], work.source)).values()
    conflicts = rows.filter(pa.array(verdict == CONFLICT))
    repeated = int((verdict == REPEATED).sum())
    return _Part(load_of(unit, part.name, messages), to, kept.num_rows, repeated, conflicts)


def _land(work: Work, sinks: Sinks, held: Sequence[_Part]) -> None:
    """Each is noted only when all are safe."""
    old = [one.load for one in held if one.to is Destination.RUNS and one.load.rows]
    names = dict(zip(((load.unit, load.part) for load in old), as_runs(sinks, old), strict=True))
    if young := [one.load for one in held if one.to is Destination.KAFKA]:
        as_events(sinks, young)
    for one in held:
        run = names.get((one.load.unit, one.load.part), "")
        bad, touched = _quarantine(work, one.conflicts)
        note = {"what": "placed", "unit": one.load.unit, "part": one.load.part, "run": run, "repeated": one.repeated}
        work.note(note | {"placed": {one.to: one.kept}} | bad, touched)


def _rows(work: Work, part: Part) -> pa.RecordBatch:
    batches = [*work.spill.batches(part.file)]
    table = pa.Table.from_batches(batches, schema=MARKED).combine_chunks()
    return table.to_batches()[0]


def _verdict_of(lines: NDArray[np.int64], verdicts: NDArray[np.void]) -> NDArray[np.int32]:
    found = np.full(len(lines), KEPT, np.int32)
    if len(verdicts):
        at = np.minimum(np.searchsorted(verdicts["line"], lines), len(verdicts) - 1)
        is_there = verdicts["line"][at] == lines
        found[is_there] = verdicts["verdict"][at][is_there]
    return found


def _quarantine(work: Work, conflicts: pa.RecordBatch) -> tuple[dict[str, Any], set[str]]:
    """The share of the note that tells of them, and the names of what grew."""
    bad = sorted(
        (
            (row["line"] >> LINE_BITS, Bad(row["line"] & (1 << LINE_BITS) - 1, OTHER_CONTENT, as_json(row)))
            for row in conflicts.to_pylist()
        ),
        key=lambda one: (one[0], one[1].line),
    )
    touched: set[str] = set()
    listed: list[Any] = []
    for file, of_file in groupby(bad, key=lambda one: one[0]):
        rows = [one for _, one in of_file]
        touched.update(spill_bad(work, file, rows))
        listed += bad_of(file, rows)["listed"]
    return {"bad": {OTHER_CONTENT: len(bad)} if bad else {}, "listed": listed}, touched
