"""What can be said of a cold file without saying what is in it: counts, and the extremes of sizes.

This is all that the quality suite ever sees. Facts of batches add up to the facts of their file, so memory holds one
batch. `VERSION` changes when a fact comes to mean something else: older verdicts are void then.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core import ids, ring, weeks
from core.intake import CLOCK_SKEW_US
from quality.columns import Column, Kind, declared
from schemas.tables import CANONICAL

VERSION = 2
ROWS = "rows"
ROWS_TOLD = "rows that the ledger tells of"
OTHER_WEEK = "rows of another week"
OTHER_SHARD = "rows of another shard"
OUT_OF_ORDER = "rows before the one above"
REPEATED = "rows with the key of the one above"
DELETED_BUT_FULL = "deleted rows that hold something"
INCOMPLETE = "messages without sender or time"
UNSIGNED = "edits without an author"
ORPHAN_BUT_FULL = "amendments alone that hold a message's cells"
OTHER_TIME = "messages more than a day off their id"
UNSORTED = "rows whose reactions do not ascend by user"

_US = timedelta(microseconds=1)
_WEEK_US = weeks.WEEK // _US
_FIRST_MONDAY_US = (weeks.FIRST_MONDAY - ids.UNIX_EPOCH) // _US
_ID_BYTES = 16
_CONTENT = ("body", "media_ref", "edit_id")
_OF_A_MESSAGE = ("media_ref", "reply_to", "server_ts")

Bools = NDArray[np.bool_]
Key = tuple[bytes | None, bytes | None]


@dataclass(frozen=True)
class Facts:
    """By name. `counts` is of values or rows that are not as they should be."""

    counts: Mapping[str, int] = field(default_factory=dict)
    largest: Mapping[str, int] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Facts") -> "Facts":
        return Facts(
            _joined(self.counts, other.counts, lambda a, b: a + b),
            _joined(self.largest, other.largest, max),
            _joined(self.least, other.least, min),
        )

    def row(self) -> dict[str, int]:
        return {**self.counts, **self.largest, **self.least}


def nulls(column: Column) -> str:
    return f"{column.name}: nulls"


def strangers(column: Column) -> str:
    return f"{column.name}: not {column.kind}"


def largest(column: Column) -> str:
    return f"{column.name}: largest size"


def least(column: Column) -> str:
    return f"{column.name}: least"


def of_file(batches: Iterable[pa.RecordBatch], week: int, tokens: ring.Range, rows_told: int) -> Facts:
    """Of a file that should hold `rows_told` rows of `week` whose conversations lie in `tokens`."""
    facts = Facts({ROWS_TOLD: rows_told}) + of_batch(_batch_of_none(), week, tokens)
    above: Key | None = None
    for batch in batches:
        facts += of_batch(batch, week, tokens, above)
        above = _last_key(batch) if batch.num_rows else above
    return facts


def of_batch(batch: pa.RecordBatch, week: int, tokens: ring.Range, above: Key | None = None) -> Facts:
    """`above` is the key of the row before the first; of a broken id only that it is broken counts."""
    facts = Facts({ROWS: batch.num_rows} | _of_keys(batch, above) | _of_laws(batch, week, tokens))
    for column in declared():
        facts += _of_column(column, _leaf(batch, column.name))
    return facts


def _of_column(column: Column, values: Any) -> Facts:
    counts = {} if column.nullable else {nulls(column): values.null_count}
    if column.kind is Kind.UUID:
        return Facts(counts | {strangers(column): _count(~_has_16_bytes(values) & _valid(values))})
    if column.kind is Kind.ORDERED_ID:
        return Facts(counts | {strangers(column): _count(~_is_ordered(values) & _valid(values))})
    if column.kind is Kind.CONTENT:
        measure = pc.utf8_length if pa.types.is_string(values.type) else pc.binary_length
        return Facts(counts, largest={largest(column): pc.max(measure(values)).as_py() or 0})
    if column.least is not None:
        found = pc.min(values).as_py()
        return Facts(counts, least={least(column): column.least if found is None else found})
    return Facts(counts)


def _of_keys(batch: pa.RecordBatch, above: Key | None) -> dict[str, int]:
    """As Arrow compares bytes; a null key is neither before nor equal."""
    columns = [batch[name].cast(pa.binary()) for name in ("conversation_id", "message_id")]
    if above:
        columns = [
            pa.concat_arrays([pa.array([key], pa.binary()), each]) for key, each in zip(above, columns, strict=True)
        ]
    (c_above, c_row), (m_above, m_row) = ((each[:-1], each[1:]) for each in columns)
    same = _true(pc.equal(c_row, c_above))
    before = _true(pc.less(c_row, c_above)) | same & _true(pc.less(m_row, m_above))
    return {OUT_OF_ORDER: _count(before), REPEATED: _count(same & _true(pc.equal(m_row, m_above)))}


def _of_laws(batch: pa.RecordBatch, week: int, tokens: ring.Range) -> dict[str, int]:
    there = {name: _valid(batch[name]) for name in ("sender_id", "message_type", *_CONTENT, *_OF_A_MESSAGE)}
    deleted, message = _true(batch["deleted"]), there["message_type"]
    reacted = np.asarray(pc.fill_null(pc.list_value_length(batch["reactions"]), 0)) > 0
    full = reacted | _any(there, _CONTENT)
    unsaid = there["body"] & ~there["edit_id"]
    timely = _is_ordered(batch["message_id"])
    id_us = _unix_us(batch["message_id"])
    off_us = _microseconds(batch["server_ts"]) - id_us
    is_off = (off_us > CLOCK_SKEW_US) | (off_us < -CLOCK_SKEW_US)
    return {
        OTHER_WEEK: _count(timely & ((id_us - _FIRST_MONDAY_US) // _WEEK_US != week)),
        OTHER_SHARD: _elsewhere(batch["conversation_id"], tokens),
        DELETED_BUT_FULL: _count(deleted & full),
        INCOMPLETE: _count(message & ~(there["sender_id"] & there["server_ts"])),
        UNSIGNED: _count(there["edit_id"] & ~there["sender_id"]),
        ORPHAN_BUT_FULL: _count(~message & (unsaid | _any(there, _OF_A_MESSAGE))),
        OTHER_TIME: _count(timely & there["server_ts"] & is_off),
        UNSORTED: _unsorted(batch["reactions"]),
    }


def _elsewhere(conversations: Any, tokens: ring.Range) -> int:
    found = ring.tokens(_sixteen(conversations)[_has_16_bytes(conversations)])
    return len(found) - _count((found > tokens.start) & (found <= tokens.end))


def _unsorted(reactions: Any) -> int:
    parents = np.asarray(pc.list_parent_indices(reactions))
    users = pc.struct_field(pc.list_flatten(reactions), "user_id")
    ascends = np.asarray(pc.fill_null(pc.greater(users[1:], users[:-1]), True))
    return len(np.unique(parents[1:][(parents[1:] == parents[:-1]) & ~ascends]))


def _leaf(batch: pa.RecordBatch, name: str) -> Any:
    outer, _, inner = name.partition(".")
    return pc.struct_field(pc.list_flatten(batch[outer]), inner) if inner else batch[outer]


def _sixteen(values: Any) -> NDArray[np.uint8]:
    """(values, 16) bytes; zeros for what has not 16."""
    whole = pc.if_else(pa.array(_has_16_bytes(values)), values, pa.scalar(bytes(_ID_BYTES), pa.binary()))
    fixed = whole.cast(pa.binary(_ID_BYTES))
    flat = np.frombuffer(fixed.buffers()[1], np.uint8, _ID_BYTES * len(fixed), fixed.offset * _ID_BYTES)
    return flat.reshape(-1, _ID_BYTES)


def _has_16_bytes(values: Any) -> Bools:
    fits: Bools = np.asarray(pc.fill_null(pc.binary_length(values), 0)) == _ID_BYTES
    return fits


def _is_ordered(values: Any) -> Bools:
    """`core.ids.is_ordered_id` of each; zeros are none."""
    octets = _sixteen(values)
    is_ours: Bools = (octets[:, 6] >> 4 == 6) & (octets[:, 8] >> 6 == 0b10) & (octets[:, 9:] < 0x80).all(axis=1)
    return is_ours


def _unix_us(values: Any) -> NDArray[np.int64]:
    """`core.ids.unix_us` of each."""
    high = np.ascontiguousarray(_sixteen(values)[:, :8]).view(">u8")[:, 0]
    ticks = ((high >> 16) << 12 | high & 0xFFF).astype(np.int64)
    return (ticks - ids.GREGORIAN_TICKS) // 10


def _microseconds(instants: Any) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(instants.cast(pa.int64()), 0))


def _any(there: Mapping[str, Bools], names: Iterable[str]) -> Bools:
    return np.asarray(np.stack([there[name] for name in names]).any(axis=0))


def _valid(values: Any) -> Bools:
    return np.asarray(pc.is_valid(values))


def _true(values: Any) -> Bools:
    return np.asarray(pc.fill_null(values, False))


def _count(rows: Bools) -> int:
    return int(np.count_nonzero(rows))


def _last_key(batch: pa.RecordBatch) -> Key:
    return batch["conversation_id"][-1].as_py(), batch["message_id"][-1].as_py()


def _batch_of_none() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=CANONICAL)


def _joined(a: Mapping[str, int], b: Mapping[str, int], join: Callable[[int, int], int]) -> dict[str, int]:
    both = {name: join(a[name], b[name]) for name in a.keys() & b.keys()}
    return {**a, **b, **both}
