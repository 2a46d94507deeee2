"""Columns of Arrow as compiled code takes them: the bytes of their values, where each ends, and which are null."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_NUMBER_BYTES = 8


class Field(NamedTuple):
    """Value `i` lies from `ends[i]` to `ends[i + 1]` of `data`, and is null where `valid` is 0. An empty `valid`: none
    is null."""

    data: Bytes
    ends: NDArray[np.int32]
    valid: Bytes


class Fields(NamedTuple):
    """Some columns, each as a `Field`."""

    data: tuple[Bytes, ...]
    ends: tuple[NDArray[np.int32], ...]
    valid: tuple[Bytes, ...]

    @property
    def size_bytes(self) -> int:
        return sum(int(ends[-1] - ends[0]) for ends in self.ends)


def fields(columns: Iterable[Any]) -> Fields:
    return together(map(field, columns))


def together(found: Iterable[Field]) -> Fields:
    return Fields(*zip(*found, strict=True))


def field(column: Any) -> Field:
    """Of bytes, text, truths (one byte each) or numbers and instants (signed, 64 bits, little-endian)."""
    kind, valid = column.type, validity(column)
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        data = column.buffers()[2]
        return Field(fixed(np.frombuffer(data if data else b"", np.uint8)), offsets(column), valid)
    if pa.types.is_boolean(kind):
        return Field(fixed(_bits(column, 1)), steps(len(column), 1), valid)
    return Field(fixed(numbers(column).view(np.uint8)), steps(len(column), _NUMBER_BYTES), valid)


def numbers(column: Any) -> NDArray[np.int64]:
    """0 where one is null."""
    return np.ascontiguousarray(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def offsets(column: Any) -> NDArray[np.int32]:
    """Of a column of bytes, text or lists; of an empty one Arrow need not keep any."""
    buffer = column.buffers()[1]
    if not len(column) or buffer is None:
        return steps(0, 0)
    return fixed(np.frombuffer(buffer, np.int32, len(column) + 1, column.offset * 4))


def steps(count: int, width: int) -> NDArray[np.int32]:
    """The ends of `count` values of one width."""
    return fixed(np.arange(count + 1, dtype=np.int32) * np.int32(width))


def validity(column: Any) -> Bytes:
    """One byte a value; none at all where none is null."""
    return fixed(_bits(column, 0) if column.null_count else np.empty(0, np.uint8))


def _bits(column: Any, buffer: int) -> Bytes:
    bits = np.frombuffer(column.buffers()[buffer], np.uint8)
    return np.unpackbits(bits, count=column.offset + len(column), bitorder="little")[column.offset :]


def fixed(array: NDArray[Any]) -> NDArray[Any]:
    """One type for the kernels, whoever owns the bytes."""
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array
