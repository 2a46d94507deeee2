"""Whole batches digested: what `core.digest` says of rows, without a Python object for a value.

Each column becomes fields: bytes, where each ends, and which are null. A kernel joins them to the encoded rows, one
after the other, as `core.digest.encode` would write them; then each is hashed.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from blake3 import blake3
from numpy.typing import NDArray

from core.columns import Bytes, Fields, fields, offsets, validity
from core.compiled import kernel, memcpy
from core.digest import VERSION, Digest, Tally
from schemas.tables import CANONICAL

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
_HEAD_BYTES = 5  # before a field that is not null
_NUMBER_BYTES = 8
_HASH_BYTES = 16
_VERSION = VERSION[0]


def of_batches(batches: Iterable[Rows]) -> Digest:
    tally = Tally()
    deque(tallied(batches, tally), maxlen=0)
    return tally.digest


def tallied(batches: Iterable[Rows], tally: Tally) -> Iterator[Rows]:
    """Digests the rows of batches as they pass through. ValueError for a batch of other columns, or with a null where
    a canonical row has none."""
    for batch in batches:
        for part in batch.to_batches() if isinstance(batch, pa.Table) else [batch]:
            encoded, ends = encode(part)
            tally.add(_digest(encoded, ends), int(ends[-1]))
            del encoded  # as large as the batch: not kept while the next hand is at work
        yield batch


def encode(batch: pa.RecordBatch) -> tuple[Bytes, NDArray[np.int64]]:
    """The encoded rows one after the other, and where each begins and the last ends."""
    batch = _canonical(batch)
    scalars = fields(batch.columns[:-1])
    reactions: Any = batch.column("reactions")
    inner = fields(reactions.values.flatten())
    counts = (offsets(reactions), validity(reactions))
    out = np.empty(_most_bytes(batch.num_rows, scalars) + _most_bytes(len(reactions.values), inner), np.uint8)
    ends = np.empty(batch.num_rows + 1, np.int64)
    _join(*scalars, *inner, *counts, out, ends)
    return out, ends


def _canonical(batch: pa.RecordBatch) -> pa.RecordBatch:
    batch = batch if batch.schema.equals(CANONICAL) else batch.cast(CANONICAL)
    if any(column.null_count for column, field in zip(batch.columns, CANONICAL, strict=True) if not field.nullable):
        raise ValueError("a null where a canonical row has a value")
    return batch


def _digest(encoded: Bytes, ends: NDArray[np.int64]) -> Digest:
    whole, places = encoded.data, ends.tolist()
    hashes = b"".join(blake3(whole[start:end]).digest(_HASH_BYTES) for start, end in pairwise(places))
    # Sums of 32 bits each, which cannot overflow, put together as one number.
    parts = np.frombuffer(hashes, ">u4").reshape(-1, 4).sum(axis=0, dtype=np.uint64).tolist()
    total = sum(part << shift for part, shift in zip(parts, (96, 64, 32, 0), strict=True))
    return Digest(len(places) - 1, total % 2 ** (8 * _HASH_BYTES))


def _most_bytes(count: int, given: Fields) -> int:
    """What `count` rows can take, each with a version or a number before its fields."""
    return count * (1 + _HEAD_BYTES + _NUMBER_BYTES + _HEAD_BYTES * len(given.ends)) + given.size_bytes


@kernel
def _join(
    data: Any, ends: Any, valid: Any, inner_data: Any, inner_ends: Any, inner_valid: Any,
    offsets: Any, present: Any, out: Any, row_ends: Any,
) -> None:  # fmt: skip
    at = row_ends[0] = 0
    for row in range(len(row_ends) - 1):
        out[at] = _VERSION
        at += 1
        for column in range(len(data)):
            at = _put(data[column], ends[column], valid[column], row, out, at)
        count = offsets[row + 1] - offsets[row] if len(present) == 0 or present[row] else 0
        at = _put_count(count, out, at)
        for reaction in range(offsets[row], offsets[row] + count):
            for column in range(len(inner_data)):
                at = _put(inner_data[column], inner_ends[column], inner_valid[column], reaction, out, at)
        row_ends[row + 1] = at


@kernel
def _put(data: Any, ends: Any, valid: Any, row: int, out: Any, at: Any) -> Any:
    """`core.encoding.field` of one value; where the next begins."""
    if len(valid) and not valid[row]:
        out[at] = 0
        return at + 1
    start, length = ends[row], ends[row + 1] - ends[row]
    out[at] = 1
    for byte in range(4):
        out[at + 1 + byte] = length >> (8 * byte) & 0xFF
    at += _HEAD_BYTES
    memcpy(np.uintp(out.ctypes.data + at), np.uintp(data.ctypes.data + start), np.uintp(length))
    return at + length


@kernel
def _put_count(count: int, out: Any, at: Any) -> Any:
    """`core.encoding.number` of how many reactions follow."""
    out[at] = 1
    for byte in range(4):
        out[at + 1 + byte] = _NUMBER_BYTES >> (8 * byte) & 0xFF
    at += _HEAD_BYTES
    for byte in range(_NUMBER_BYTES):
        out[at + byte] = count >> (8 * byte) & 0xFF
    return at + _NUMBER_BYTES
