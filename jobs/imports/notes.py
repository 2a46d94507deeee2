"""How far an import is: the sum of the notes that it wrote down, so that going on is reading them again."""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lakehouse.incoming import Bad, Place
from lakehouse.spill import Note

LISTED = 20
UnitKey = tuple[int, int]  # week, slice: oldest first
Listed = tuple[int, int, str]  # file, line, reason


@dataclass
class Heap:
    """What was spilled of one unit: rows, and the bytes that they will have in memory."""

    rows: int = 0
    size_bytes: int = 0


@dataclass
class Progress:
    """`file` and `place` are where the sorting goes on; `done` holds the parts of units that were placed."""

    lengths: dict[str, int] = field(default_factory=dict)
    file: int = 0
    place: Place = field(default_factory=Place)
    read: int = 0
    units: dict[UnitKey, Heap] = field(default_factory=dict)
    bad: Counter[str] = field(default_factory=Counter)
    listed: list[Listed] = field(default_factory=list)
    is_sorted: bool = False
    is_judged: bool = False
    placed: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    done: set[tuple[UnitKey, str]] = field(default_factory=set)
    runs: list[tuple[UnitKey, str]] = field(default_factory=list)

    @property
    def settled(self) -> int:
        """Rows whose fate is known."""
        return self.placed.total() + self.repeated + self.bad.total()

    def hear(self, note: Note) -> None:
        self.lengths |= note.get("lengths", {})
        self.bad.update(note.get("bad", {}))
        self.listed = heapq.nsmallest(LISTED, [*self.listed, *map(_listed, note.get("listed", ()))])
        match note["what"]:
            case "chunk":
                self._sorted(note)
            case "sorted":
                self.is_sorted = True
            case "judged":
                self.is_judged = True
            case "placed":
                self._placed(note)

    def _sorted(self, note: Note) -> None:
        self.file, self.place = note["file"], Place(*note["place"])
        self.read += note["rows"]
        for week, slice_, rows, size_bytes in note["units"]:
            heap = self.units.setdefault((week, slice_), Heap())
            heap.rows += rows
            heap.size_bytes += size_bytes

    def _placed(self, note: Note) -> None:
        unit = _unit(note["unit"])
        self.placed.update(note["placed"])
        self.repeated += note["repeated"]
        self.done.add((unit, note["part"]))
        if note["run"]:
            self.runs.append((unit, note["run"]))


def progress_of(found: Iterable[Note]) -> Progress:
    progress = Progress()
    for note in found:
        progress.hear(note)
    return progress


def bad_of(file: int, bad: Sequence[Bad]) -> dict[str, Any]:
    """The share of a note that tells of bad rows of one file, or of several when `file` is in their lines."""
    worst = heapq.nsmallest(LISTED, ((file, one.line, one.reason) for one in bad))
    return {"bad": Counter(one.reason for one in bad), "listed": worst}


def _listed(values: Sequence[Any]) -> Listed:
    file, line, reason = values
    return file, line, reason


def _unit(values: Sequence[int]) -> UnitKey:
    week, slice_ = values
    return week, slice_
