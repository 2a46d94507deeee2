"""Canonical rows as Arrow batches and back, and how tables of them are put in order and merged."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.overlay import Reaction, Row, merge_all
from schemas.tables import CANONICAL

BATCH_ROWS = 4096
ID_BYTES = 16
_KEY = ("conversation_id", "message_id")
_HIGHEST = b"\xff" * ID_BYTES
_SCALARS = tuple(name for name in CANONICAL.names if name != "reactions")


def to_batches(rows: Iterable[Row], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, batch_rows)):
        yield to_batch(chunk)


def to_batch(rows: list[Row]) -> pa.RecordBatch:
    columns = {name: [getattr(row, name) for row in rows] for name in _SCALARS}
    columns["reactions"] = [[vars(reaction) for reaction in row.reactions] for row in rows]
    return pa.RecordBatch.from_pydict(columns, schema=CANONICAL)


def from_batch(batch: pa.RecordBatch | pa.Table) -> Iterator[Row]:
    columns = [batch.column(name).to_pylist() for name in _SCALARS]
    for values, reactions in zip(zip(*columns, strict=True), batch.column("reactions").to_pylist(), strict=True):
        yield Row(**dict(zip(_SCALARS, values, strict=True)), reactions=_reactions(reactions))


def in_key_order(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Sorted by (conversation_id, message_id), which a file must be; a shard's batches fit in memory by design."""
    yield from by_key(pa.Table.from_batches(list(batches), schema=CANONICAL)).to_batches(max_chunksize=BATCH_ROWS)


def one_per_key(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """In key order, rows of one key merged cell by cell; only those are decoded."""
    ordered = by_key(pa.Table.from_batches(list(batches), schema=CANONICAL))
    repeats = _repeats(ordered)
    if not repeats.any():
        return ordered
    merged = merge_all(from_batch(ordered.filter(pa.array(repeats))))
    alone = ordered.filter(pa.array(~repeats))
    return by_key(pa.concat_tables([alone, *map(_as_table, to_batches(merged.values()))]))


def shares(ends: Sequence[tuple[bytes, bytes]], keys: Sequence[bytes]) -> list[range]:
    """Which of `keys` (ascending) each row group takes, by the first and last key of each; together they are all.

    A key between two row groups goes into the one before where that ends with its conversation, so that one's late
    messages stay together; else into the one after. Past the last, the last takes it; before the first, the first.
    """
    stops = [_stop(last, first, keys) for (_, last), (first, _) in pairwise(ends)]
    return [range(start, stop) for start, stop in pairwise([0, *stops, len(keys)])] if ends else []


def merged(group: pa.Table, change: pa.Table) -> pa.Table:
    """The rows of both, which are one canonical row per key each, as one canonical row per key."""
    return one_per_key([*group.to_batches(), *change.to_batches()])


def among(rows: pa.Table, others: pa.Table) -> pa.Table:
    """Those of `rows` whose key one of `others` has."""
    return rows.filter(pa.array(np.isin(sortable_keys(rows), sortable_keys(others))))


def apart_from(rows: pa.Table, others: pa.Table) -> pa.Table:
    """Those of `rows` that are not `among` the others."""
    return rows.filter(pa.array(~np.isin(sortable_keys(rows), sortable_keys(others))))


def keys_of(rows: pa.Table) -> list[bytes]:
    """conversation_id + message_id of each row."""
    ids = (rows.column(name).to_pylist() for name in _KEY)
    return [conversation + message for conversation, message in zip(*ids, strict=True)]


def _stop(last: bytes, next_first: bytes, keys: Sequence[bytes]) -> int:
    return min(bisect_right(keys, last[:ID_BYTES] + _HIGHEST), bisect_left(keys, next_first))


def _as_table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def by_key(table: pa.Table) -> pa.Table:
    """In ascending order."""
    return table.sort_by([(name, "ascending") for name in _KEY])


def _repeats(ordered: pa.Table) -> NDArray[np.bool_]:
    """Which rows have the key of a neighbour."""
    words = key_words(ordered)
    same: NDArray[np.bool_] = (words[1:] == words[:-1]).all(axis=1)
    return np.concatenate([same, [False]]) | np.concatenate([[False], same]) if len(words) else same


def key_words(rows: pa.RecordBatch | pa.Table) -> NDArray[np.uint64]:
    """(rows, 4) big-endian words of conversation_id and message_id; ArrowInvalid for an id that is not 16 bytes, and
    ValueError for a null one."""
    return np.concatenate([_words(rows.column(name)) for name in _KEY], axis=1)


def sortable_keys(rows: pa.Table) -> NDArray[np.bytes_]:
    """The keys as numpy compares them: zeros at the end make no difference where all have one length."""
    return np.ascontiguousarray(key_words(rows), ">u8").view(f"S{2 * ID_BYTES}").ravel()


def _words(ids: Any) -> NDArray[np.uint64]:
    if ids.null_count:
        raise ValueError("a key is null")
    if not len(ids):
        return np.empty((0, 2), dtype=">u8")
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    fixed: Any = ids.cast(pa.binary(ID_BYTES))
    return np.frombuffer(fixed.buffers()[1], ">u8", 2 * len(fixed), fixed.offset * ID_BYTES).reshape(-1, 2)


def _reactions(values: list[dict[str, Any]] | None) -> tuple[Reaction, ...]:
    return tuple(Reaction(**value) for value in values or ())
