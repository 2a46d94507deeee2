"""The first half of an import: files are read, rows are checked and laid down by unit, and repeats are found.

    file ─ chunk ─┬─ good ─┬─▶ rows/<week>/<slice>
                  │        └─▶ marks/<part of the hashes>  ─ judge ─▶ verdicts/<week>/<slice>
                  └─ bad ─────▶ bad

Nothing leaves the spill here. Memory holds a chunk, and then one part of the marks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.imported import marked, marks_of
from core.imports import KEPT, MARK, ColumnMap, judged
from jobs.imports.meter import Meter
from jobs.imports.notes import Progress, UnitKey, bad_of
from lakehouse.incoming import Bad, Chunk, HistoryFile, Place, read, require_unchanged
from lakehouse.spill import Note, Spill
from schemas.tables import QUARANTINE

BAD = "bad"
LINE_BITS = 40  # a row's number over all files: the file's, then that of its line
VERDICT = np.dtype([("line", "<i8"), ("verdict", "<i4")])
MARKS_PER_PART = 131_072
ROW_BYTES = 600  # what a row weighs in memory beside its body
_REACTION_BYTES = 300
_BYTES_PER_LINE = 200  # to guess the lines of a file before it is read; more lines only make the parts larger
_BAD_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Work:
    """One import: what it is about, where it lies meanwhile, and how far it is. `progress` changes with each note."""

    files: Sequence[HistoryFile]
    columns: ColumnMap
    source: str
    slices: int
    now: datetime
    spill: Spill
    progress: Progress
    say: Callable[[str], None]

    def note(self, note: Note, touched: Iterable[str] = ()) -> None:
        note["lengths"] = {name: self.spill.lengths[name] for name in touched}
        self.spill.note(note)
        self.progress.hear(note)


def rows_name(unit: UnitKey) -> str:
    return f"rows/{unit[0]}/{unit[1]}"


def verdicts_name(unit: UnitKey) -> str:
    return f"verdicts/{unit[0]}/{unit[1]}"


def sort(work: Work) -> float:
    """Goes on where the last note stands; returns the seconds that it took."""
    progress = work.progress
    meter = Meter("read", progress.read, work.say)
    if not progress.is_sorted:
        for number in range(progress.file, len(work.files)):
            file, place = work.files[number], progress.place if number == progress.file else Place()
            for chunk in read(file, work.columns, work.now, place):
                _take(work, number, chunk)
                meter.at(progress.read, *_total(work, number))
            require_unchanged(file)
        work.note({"what": "sorted"})
        meter.at(progress.read, progress.read, is_last=True)
    if not progress.is_judged:
        _judge(work)
    return meter.seconds


def _take(work: Work, number: int, chunk: Chunk) -> None:
    rows = marked(_numbered(chunk.good, number), work.source)
    marks = marks_of(rows, work.slices)
    sizes = weights(rows)
    units, touched = [], []
    for (week, slice_), chosen in _by_unit(marks):
        name = rows_name((week, slice_))
        work.spill.append_batch(name, rows.take(chosen))
        units.append((week, slice_, len(chosen), int(sizes[chosen].sum())))
        touched.append(name)
    parts = _parts(work.files)
    for part, chosen in _groups((marks["key0"] % np.uint64(parts)).astype(np.int64)):
        work.spill.append(f"marks/{part}", marks[chosen].tobytes())
        touched.append(f"marks/{part}")
    touched += spill_bad(work, number, chunk.bad)
    place = (chunk.next.at, chunk.next.line)
    found = {"what": "chunk", "file": number, "place": place, "rows": chunk.rows, "units": units}
    work.note(found | bad_of(number, chunk.bad), touched)


def spill_bad(work: Work, number: int, bad: Sequence[Bad]) -> list[str]:
    """Rows of one file on their way to quarantine; returns the names of what grew."""
    label, pending, size_bytes = work.files[number].label, list[Bad](), 0
    for one in bad:
        pending.append(one)
        size_bytes += len(one.row)
        if size_bytes > _BAD_BYTES:
            work.spill.append_batch(BAD, _quarantined(label, pending))
            pending, size_bytes = [], 0
    if pending:
        work.spill.append_batch(BAD, _quarantined(label, pending))
    return [BAD] if bad else []


def _quarantined(label: str, bad: Sequence[Bad]) -> pa.RecordBatch:
    rows = [{"source": label, "line": one.line, "reason": one.reason, "row": one.row} for one in bad]
    return pa.RecordBatch.from_pylist(rows, schema=QUARANTINE)


def _judge(work: Work) -> None:
    """Every row that is not simply kept gets its verdict, laid down by unit."""
    touched: set[str] = set()
    for part in range(_parts(work.files)):
        marks, verdicts = judged(np.frombuffer(b"".join(work.spill.frames(f"marks/{part}")), MARK))
        odd, verdicts = marks[verdicts != KEPT], verdicts[verdicts != KEPT]
        for unit, chosen in _by_unit(odd):
            found = np.empty(len(chosen), VERDICT)
            found["line"], found["verdict"] = odd["line"][chosen], verdicts[chosen]
            work.spill.append(verdicts_name(unit), found.tobytes())
            touched.add(verdicts_name(unit))
    work.note({"what": "judged"}, touched)


def verdicts_of(spill: Spill, unit: UnitKey) -> NDArray[np.void]:
    """By line."""
    found = np.frombuffer(b"".join(spill.frames(verdicts_name(unit))), VERDICT)
    return found[np.argsort(found["line"])]


def _numbered(rows: pa.RecordBatch, number: int) -> pa.RecordBatch:
    at = rows.schema.get_field_index("line")
    lines = np.asarray(rows.column(at)) | number << LINE_BITS
    return rows.set_column(at, rows.schema.field(at), pa.array(lines))


def _by_unit(marks: NDArray[np.void]) -> Iterator[tuple[UnitKey, NDArray[np.int64]]]:
    units = marks["week"].astype(np.int64) << 32 | marks["slice"]
    return (((unit >> 32, unit & 0xFFFF_FFFF), chosen) for unit, chosen in _groups(units))


def _groups(codes: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each code with the rows that have it, in their order."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for chosen in np.split(order, starts[1:]) if len(order) else ():
        yield int(codes[chosen[0]]), chosen


def weights(rows: pa.RecordBatch) -> NDArray[np.int64]:
    columns: list[Any] = [
        pc.binary_length(rows["body"]),  # type: ignore[call-overload]
        rows["body_bytes"],
        pc.multiply(pc.list_value_length(rows["reactions"]), _REACTION_BYTES),
    ]
    return sum((np.asarray(pc.fill_null(one, 0), np.int64) for one in columns), np.full(rows.num_rows, ROW_BYTES))


def _parts(files: Sequence[HistoryFile]) -> int:
    rows = sum(file.size_bytes // _BYTES_PER_LINE if file.rows is None else file.rows for file in files)
    return 1 + rows // MARKS_PER_PART


def _total(work: Work, number: int) -> tuple[int, bool]:
    """Rows of all files, and whether that is a guess: of NDJSON by the bytes that were read."""
    if all(file.rows is not None for file in work.files):
        return sum(file.rows or 0 for file in work.files), False
    read_bytes = sum(file.size_bytes for file in work.files[:number])
    file = work.files[number]
    share = work.progress.place.at / max(1, file.rows or file.size_bytes)
    read_bytes += round(share * file.size_bytes)
    return round(work.progress.read * sum(one.size_bytes for one in work.files) / max(1, read_bytes)), True
