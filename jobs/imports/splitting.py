"""A unit in parts that fit in memory: its stretch of the ring is halved as often as needed.

One conversation is never split, so what it wrote in one week must fit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core import ring
from core.imported import tokens_of
from jobs.imports.notes import UnitKey
from jobs.imports.sorting import rows_name, weights
from lakehouse.spill import Spill

PART_BYTES = 32 * 1024 * 1024
MANY = 64  # so many files at most grow at once


@dataclass
class Part:
    """Part `number` of a cut of the ring into `parts`, and the file of the spill that holds its rows."""

    number: int
    parts: int
    file: str
    size_bytes: int = 0
    first_token: int | None = None
    is_mixed: bool = False

    @property
    def name(self) -> str:
        return f"{self.number}/{self.parts}"


def parts(spill: Spill, unit: UnitKey, size_bytes: int, slices: int, part_bytes: int) -> Iterator[Part]:
    """In ring order; always the same for the same rows. The file of a part is there until the next one is asked for."""
    yield from _halved(spill, Part(unit[1], slices, rows_name(unit), size_bytes, is_mixed=True), part_bytes)


def _halved(spill: Spill, part: Part, part_bytes: int) -> Iterator[Part]:
    if part.size_bytes <= part_bytes or not part.is_mixed:
        yield part
        return
    halvings = min((part.size_bytes - 1) // part_bytes, MANY - 1).bit_length()
    for smaller in _split(spill, part, 1 << halvings):
        yield from _halved(spill, smaller, part_bytes)
        spill.drop(smaller.file)


def _split(spill: Spill, part: Part, into: int) -> list[Part]:
    """Those that hold anything."""
    found: dict[int, Part] = {}
    for rows in spill.batches(part.file):
        tokens, sizes = tokens_of(rows), weights(rows)
        numbers = ring.parts_of(tokens, part.parts * into)
        for number in map(int, np.unique(numbers)):
            chosen = np.flatnonzero(numbers == number)
            piece = found.setdefault(number, Part(number, part.parts * into, f"split/{part.parts * into}/{number}"))
            spill.append_batch(piece.file, rows.take(chosen))
            piece.size_bytes += int(sizes[chosen].sum())
            piece.first_token = int(tokens[chosen[0]]) if piece.first_token is None else piece.first_token
            piece.is_mixed |= bool((tokens[chosen] != piece.first_token).any())
    return [found[number] for number in sorted(found)]
