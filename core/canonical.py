"""Whole batches digested: what `core.digest` says of rows, without a Python object for a value.

Each column becomes fields: bytes, where each ends, and which are null. A kernel joins them to the encoded rows, one
after the other, as `core.digest.encode` would write them; then each is hashed.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from blake3 import blake3
from numpy.typing import NDArray

from core.compiled import kernel, memcpy
from core.digest import VERSION, Digest, Tally
from schemas.tables import CANONICAL

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
Bytes = NDArray[np.uint8]
_HEAD_BYTES = 5  # before a field that is not null
_NUMBER_BYTES = 8
_HASH_BYTES = 16
_VERSION = VERSION[0]


class Fields(NamedTuple):
    """The values of some columns, each as bytes: value `i` of a column lies from `ends[i]` to `ends[i + 1]`, and is
    null where `valid` is 0."""

    data: tuple[Bytes, ...]
    ends: tuple[NDArray[np.int32], ...]
    valid: tuple[Bytes, ...]


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
        yield batch


def encode(batch: pa.RecordBatch) -> tuple[Bytes, NDArray[np.int64]]:
    """The encoded rows one after the other, and where each begins and the last ends."""
    batch = _canonical(batch)
    scalars = _fields(batch.columns[:-1])
    reactions: Any = batch.column("reactions")
    inner = _fields(reactions.values.flatten())
    counts = (_offsets(reactions), _validity(reactions))
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


def _fields(columns: Iterable[Any]) -> Fields:
    found = [(*_bytes_of(column), _validity(column)) for column in columns]
    data, ends, valid = zip(*found, strict=True)
    return Fields(data, ends, valid)


def _bytes_of(column: Any) -> tuple[Bytes, NDArray[np.int32]]:
    """The bytes of a column's values and where each begins and ends, as the encoding has them."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        data = column.buffers()[2]
        return _fixed(np.frombuffer(data if data else b"", np.uint8)), _offsets(column)
    if pa.types.is_boolean(kind):
        return _fixed(_bits(column, 1)), _steps(len(column), 1)
    numbers = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return _fixed(np.ascontiguousarray(numbers).view(np.uint8)), _steps(len(column), _NUMBER_BYTES)


def _offsets(column: Any) -> NDArray[np.int32]:
    """Of a column of bytes, text or lists; of an empty one Arrow need not keep any."""
    buffer = column.buffers()[1]
    if not len(column) or buffer is None:
        return _steps(0, 0)
    return _fixed(np.frombuffer(buffer, np.int32, len(column) + 1, column.offset * 4))


def _steps(count: int, width: int) -> NDArray[np.int32]:
    return _fixed(np.arange(count + 1, dtype=np.int32) * np.int32(width))


def _validity(column: Any) -> Bytes:
    """One byte a value; none at all where none is null."""
    return _fixed(_bits(column, 0) if column.null_count else np.empty(0, np.uint8))


def _bits(column: Any, buffer: int) -> Bytes:
    bits = np.frombuffer(column.buffers()[buffer], np.uint8)
    return np.unpackbits(bits, count=column.offset + len(column), bitorder="little")[column.offset :]


def _fixed(array: NDArray[Any]) -> NDArray[Any]:
    """One type for the kernels, whoever owns the bytes."""
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array


def _most_bytes(count: int, fields: Fields) -> int:
    """What `count` rows can take, each with a version or a number before its fields."""
    used = sum(int(ends[-1] - ends[0]) for ends in fields.ends)
    return count * (1 + _HEAD_BYTES + _NUMBER_BYTES + _HEAD_BYTES * len(fields.ends)) + used


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
