"""Puts row groups of several Parquet files together into a new one without decoding them.

    old file    │ A │ B │ C │ index of pages │ footer │        B was changed: its rows now stand in
    fresh file  │ B1 │ B2 │ index of pages │ footer │          B1 and B2, written as a file of its own
    new file    │ A │ B1 │ B2 │ C │ index of pages │ footer │

Nothing in a page knows where it lies. What does are the footer and the offset indexes: they are written anew with every
place shifted, and all else in them as it was. Pure: footers go in, and what to copy from where comes out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from lakehouse.footer import MAGIC, STRUCT, Items, Struct, changed, read, read_tail, value, without, write, write_tail

# Numbers of fields, from Parquet's parquet.thrift.
FILE_VERSION, FILE_SCHEMA, FILE_ROWS, FILE_GROUPS, FILE_ENCRYPTION = 1, 2, 3, 4, 8
GROUP_CHUNKS, GROUP_ROWS, GROUP_PLACE, GROUP_NUMBER = 1, 3, 5, 7
CHUNK_PATH, CHUNK_PLACE, CHUNK_FACTS, CHUNK_CRYPTO = 1, 2, 3, 8
OFFSETS_PLACE, OFFSETS_LENGTH, BOUNDS_PLACE, BOUNDS_LENGTH = 4, 5, 6, 7
FACTS_BYTES, FACTS_DATA, FACTS_INDEX, FACTS_DICTIONARY, FACTS_BLOOM, FACTS_BLOOM_LENGTH = 7, 9, 10, 11, 14, 15
OFFSETS_PAGES, PAGE_PLACE = 1, 1
_NUMBER_MAX = 2**15 - 1


@dataclass(frozen=True)
class Stretch:
    """Bytes of a file, by its number among those that are spliced."""

    file: int
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


Piece = Stretch | bytes


@dataclass(frozen=True)
class Source:
    """`offsets` has the bytes of each offset index by where it lies; what is needed says `offset_indexes`."""

    footer: Struct
    offsets: Mapping[int, bytes] = field(default_factory=dict)

    @cached_property
    def groups(self) -> tuple[Struct, ...]:
        found: tuple[Struct, ...] = value(self.footer, FILE_GROUPS).values
        return found


def source_of(tail: bytes) -> Source:
    """ValueError where the tail is no footer, or that of a file that cannot be spliced."""
    source = Source(read_tail(tail))
    chunks = [chunk for group in source.groups for chunk in _chunks(group)]
    if FILE_ENCRYPTION in source.footer or any(CHUNK_CRYPTO in chunk for chunk in chunks):
        raise ValueError("parts of it are encrypted")
    if any(CHUNK_PATH in chunk or CHUNK_FACTS not in chunk for chunk in chunks):
        raise ValueError("its columns lie in other files")
    if any(FACTS_BLOOM in _facts(chunk) and FACTS_BLOOM_LENGTH not in _facts(chunk) for chunk in chunks):
        raise ValueError("the length of a Bloom filter is not told")
    return source


def offset_indexes(source: Source) -> list[Stretch]:
    found = (_told(0, chunk, OFFSETS_PLACE, OFFSETS_LENGTH) for group in source.groups for chunk in _chunks(group))
    return [one for one in found if one]


def are_alike(one: Source, other: Source) -> bool:
    """Whether row groups of both can stand in one file: their schemas are equal in every field."""
    return bool(one.footer[FILE_SCHEMA] == other.footer[FILE_SCHEMA])


def extent(group: Struct, file: int = 0) -> Stretch:
    """All of its pages."""
    starts = [_first_page(_facts(chunk)) for chunk in _chunks(group)]
    lengths = [value(_facts(chunk), FACTS_BYTES) for chunk in _chunks(group)]
    end = max(start + length for start, length in zip(starts, lengths, strict=True))
    return Stretch(file, min(starts), end - min(starts))


def spliced(sources: Sequence[Source], order: Iterable[tuple[int, int]]) -> list[Piece]:
    """The new file as what comes one after the other. `order` has (file, row group) of each of its row groups.

    What stands once in a footer (schema, key-value metadata, who wrote it) is that of the first source.
    """
    if not all(are_alike(sources[0], other) for other in sources[1:]):
        raise ValueError("the schemas differ")
    made = _Made()
    made.add(MAGIC)
    moved = []
    for file, number in order:
        group = sources[file].groups[number]
        pages = extent(group, file)
        moved.append(_Moved(file, group, made.add(pages) - pages.start))
    groups = [_shifted(one.group, one.by) for one in moved]
    for beside in _BESIDE:
        groups = [_laid(made, beside, sources, one, group) for one, group in zip(moved, groups, strict=True)]
    made.add(write_tail(_footer(sources, groups)))
    return made.pieces


class _Moved(NamedTuple):
    """A row group, and how much further to the end of the file it lies now."""

    file: int
    group: Struct
    by: int


@dataclass
class _Made:
    """Stretches that follow each other in their file become one."""

    pieces: list[Piece] = field(default_factory=list)
    size: int = 0

    def add(self, piece: Piece) -> int:
        """Returns where it begins."""
        last = self.pieces[-1] if self.pieces else None
        if (
            isinstance(piece, Stretch)
            and isinstance(last, Stretch)
            and (last.file, last.end) == (piece.file, piece.start)
        ):
            self.pieces[-1] = Stretch(last.file, last.start, last.length + piece.length)
        else:
            self.pieces.append(piece)
        start = self.size
        self.size += piece.length if isinstance(piece, Stretch) else len(piece)
        return start


class _Beside(NamedTuple):
    """What a column chunk has outside of its pages: how to get it from its file, and how to tell where it lies now."""

    of: Callable[[Source, _Moved, Struct], Piece | None]
    told: Callable[[Struct, int, Piece], Struct]


def _laid(made: _Made, beside: _Beside, sources: Sequence[Source], one: _Moved, group: Struct) -> Struct:
    chunks = []
    for chunk in _chunks(group):
        piece = beside.of(sources[one.file], one, chunk)
        chunks.append(beside.told(chunk, made.add(piece), piece) if piece else chunk)
    return _with_chunks(group, chunks)


def _bloom(_: Source, one: _Moved, chunk: Struct) -> Stretch | None:
    return _told(one.file, _facts(chunk), FACTS_BLOOM, FACTS_BLOOM_LENGTH)


def _bounds(_: Source, one: _Moved, chunk: Struct) -> Stretch | None:
    return _told(one.file, chunk, BOUNDS_PLACE, BOUNDS_LENGTH)


def _offsets(source: Source, one: _Moved, chunk: Struct) -> bytes | None:
    if OFFSETS_PLACE not in chunk:
        return None
    index = read(source.offsets[value(chunk, OFFSETS_PLACE)])
    pages = value(index, OFFSETS_PAGES)
    places = tuple(changed(page, {PAGE_PLACE: value(page, PAGE_PLACE) + one.by}) for page in pages.values)
    return write(changed(index, {OFFSETS_PAGES: Items(pages.kind, places)}))


_BESIDE = (
    _Beside(_bloom, lambda chunk, at, _: changed(chunk, {CHUNK_FACTS: changed(_facts(chunk), {FACTS_BLOOM: at})})),
    _Beside(_bounds, lambda chunk, at, _: changed(chunk, {BOUNDS_PLACE: at})),
    _Beside(_offsets, lambda chunk, at, index: changed(chunk, {OFFSETS_PLACE: at, OFFSETS_LENGTH: _length(index)})),
)


def _length(piece: Piece) -> int:
    return piece.length if isinstance(piece, Stretch) else len(piece)


def _chunks(group: Struct) -> tuple[Struct, ...]:
    found: tuple[Struct, ...] = value(group, GROUP_CHUNKS).values
    return found


def _facts(chunk: Struct) -> Struct:
    found: Struct = value(chunk, CHUNK_FACTS)
    return found


def _with_chunks(group: Struct, chunks: Sequence[Struct]) -> Struct:
    return changed(group, {GROUP_CHUNKS: Items(value(group, GROUP_CHUNKS).kind, tuple(chunks))})


def _told(file: int, struct: Struct, place: int, length: int) -> Stretch | None:
    return Stretch(file, value(struct, place), value(struct, length)) if place in struct else None


def _first_page(facts: Struct) -> int:
    """Some writers say 0 where there is no dictionary."""
    data: int = value(facts, FACTS_DATA)
    return min(value(facts, FACTS_DICTIONARY, 0) or data, data)


def _shifted(group: Struct, by: int) -> Struct:
    chunks = [
        _further(
            changed(chunk, {CHUNK_FACTS: _further(_facts(chunk), by, FACTS_DATA, FACTS_INDEX, FACTS_DICTIONARY)}),
            by,
            CHUNK_PLACE,
        )
        for chunk in _chunks(group)
    ]
    return _with_chunks(_further(group, by, GROUP_PLACE), chunks)


def _further(struct: Struct, by: int, *places: int) -> Struct:
    """A place that is 0 is none."""
    return changed(struct, {one: value(struct, one) + by for one in places if value(struct, one)})


def _footer(sources: Sequence[Source], groups: Sequence[Struct]) -> Struct:
    footer = sources[0].footer
    numbered = [_numbered(group, number) for number, group in enumerate(groups)]
    return changed(
        footer,
        {
            FILE_VERSION: max(value(one.footer, FILE_VERSION) for one in sources),
            FILE_ROWS: sum(value(group, GROUP_ROWS) for group in groups),
            FILE_GROUPS: Items(STRUCT, tuple(numbered)),
        },
    )


def _numbered(group: Struct, number: int) -> Struct:
    """The number is optional, and has sixteen bits."""
    return changed(group, {GROUP_NUMBER: number}) if number <= _NUMBER_MAX else without(group, GROUP_NUMBER)
