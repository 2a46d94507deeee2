"""Canonical rows as Arrow batches and back."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from core.overlay import Reaction, Row
from schemas.tables import CANONICAL

BATCH_ROWS = 4096
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
    table = pa.Table.from_batches(list(batches), schema=CANONICAL)
    ordered = table.sort_by([("conversation_id", "ascending"), ("message_id", "ascending")])
    yield from ordered.to_batches(max_chunksize=BATCH_ROWS)


def _reactions(values: list[dict[str, Any]] | None) -> tuple[Reaction, ...]:
    return tuple(Reaction(**value) for value in values or ())
