"""Parquet's own metadata as a tree that loses nothing.

A footer is Thrift in its compact form. Fields are kept by number, in their order and with their type, so that what
nobody here knows is written back as it was read. What the numbers mean is in `lakehouse/splice.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.Thrift import TException, TType

MAGIC = b"PAR1"
STRUCT: int = TType.STRUCT
_LENGTH_BYTES = 4


class Field(NamedTuple):
    kind: int
    value: Any


class Items(NamedTuple):
    """A list or a set."""

    kind: int
    values: tuple[Any, ...]


class Pairs(NamedTuple):
    """A map."""

    key_kind: int
    value_kind: int
    pairs: tuple[tuple[Any, Any], ...]


Struct = Mapping[int, Field]


def value(struct: Struct, number: int, default: Any = None) -> Any:
    return struct[number].value if number in struct else default


def changed(struct: Struct, values: Mapping[int, Any]) -> Struct:
    """With other values for fields that are there."""
    return {
        number: Field(field.kind, values[number]) if number in values else field for number, field in struct.items()
    }


def without(struct: Struct, number: int) -> Struct:
    return {known: field for known, field in struct.items() if known != number}


def read_tail(tail: bytes) -> Struct:
    """`tail` ends as the file does: with the footer, its length and the magic. ValueError when it is not that."""
    length = int.from_bytes(tail[-_LENGTH_BYTES - len(MAGIC) : -len(MAGIC)], "little")
    start = len(tail) - len(MAGIC) - _LENGTH_BYTES - length
    if tail[-len(MAGIC) :] != MAGIC or start < 0:
        raise ValueError("the tail of no Parquet file, or of one with an encrypted footer")
    return read(tail[start : start + length])


def write_tail(footer: Struct) -> bytes:
    data = write(footer)
    return data + len(data).to_bytes(_LENGTH_BYTES, "little") + MAGIC


def read(data: bytes) -> Struct:
    """ValueError when `data` is not one struct and nothing else."""
    source = _Source(data)
    try:
        struct = _read_struct(TCompactProtocol(source))
    except (EOFError, TException, KeyError, AssertionError) as fault:
        raise ValueError("no Thrift in its compact form") from fault
    if source.at != len(data):
        raise ValueError("there are bytes after the Thrift")
    return struct


def write(struct: Struct) -> bytes:
    sink = _Sink(bytearray())
    _write_struct(TCompactProtocol(sink), struct)
    return bytes(sink.data)


@dataclass
class _Source:
    """What Thrift calls a transport, over bytes; its own asks a stream for each byte."""

    data: bytes
    at: int = 0

    def readAll(self, size: int) -> bytes:  # noqa: N802 - Thrift's name
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise EOFError
        return self.data[start : self.at]


@dataclass
class _Sink:
    data: bytearray

    def write(self, data: bytes) -> None:
        self.data += data


_READ: Mapping[int, Callable[[TCompactProtocol], Any]] = {
    TType.BOOL: TCompactProtocol.readBool,
    TType.BYTE: TCompactProtocol.readByte,
    TType.I16: TCompactProtocol.readI16,
    TType.I32: TCompactProtocol.readI32,
    TType.I64: TCompactProtocol.readI64,
    TType.DOUBLE: TCompactProtocol.readDouble,
    TType.STRING: TCompactProtocol.readBinary,
    TType.UUID: TCompactProtocol.readUuid,
}
_WRITE: Mapping[int, Callable[[TCompactProtocol, Any], None]] = {
    TType.BOOL: TCompactProtocol.writeBool,
    TType.BYTE: TCompactProtocol.writeByte,
    TType.I16: TCompactProtocol.writeI16,
    TType.I32: TCompactProtocol.writeI32,
    TType.I64: TCompactProtocol.writeI64,
    TType.DOUBLE: TCompactProtocol.writeDouble,
    TType.STRING: TCompactProtocol.writeBinary,
    TType.UUID: TCompactProtocol.writeUuid,
}


def _read(source: TCompactProtocol, kind: int) -> Any:
    match kind:
        case TType.STRUCT:
            return _read_struct(source)
        case TType.LIST | TType.SET:
            return _read_items(source)
        case TType.MAP:
            return _read_pairs(source)
    return _READ[kind](source)


def _read_struct(source: TCompactProtocol) -> Struct:
    struct: dict[int, Field] = {}
    source.readStructBegin()
    while True:
        _, kind, number = source.readFieldBegin()
        if kind == TType.STOP:
            break
        struct[number] = Field(kind, _read(source, kind))
        source.readFieldEnd()
    source.readStructEnd()
    return struct


def _read_items(source: TCompactProtocol) -> Items:
    kind, size = source.readListBegin()
    items = Items(kind, tuple(_read(source, kind) for _ in range(size)))
    source.readListEnd()
    return items


def _read_pairs(source: TCompactProtocol) -> Pairs:
    key_kind, value_kind, size = source.readMapBegin()
    pairs = tuple((_read(source, key_kind), _read(source, value_kind)) for _ in range(size))
    source.readMapEnd()
    return Pairs(key_kind, value_kind, pairs)


def _write(sink: TCompactProtocol, kind: int, given: Any) -> None:
    match given:
        case Items():
            sink.writeListBegin(given.kind, len(given.values))
            for item in given.values:
                _write(sink, given.kind, item)
            sink.writeListEnd()
        case Pairs():
            _write_pairs(sink, given)
        case Mapping():
            _write_struct(sink, given)
        case _:
            _WRITE[kind](sink, given)


def _write_struct(sink: TCompactProtocol, struct: Struct) -> None:
    sink.writeStructBegin("")
    for number, field in struct.items():
        sink.writeFieldBegin("", field.kind, number)
        _write(sink, field.kind, field.value)
        sink.writeFieldEnd()
    sink.writeFieldStop()
    sink.writeStructEnd()


def _write_pairs(sink: TCompactProtocol, given: Pairs) -> None:
    sink.writeMapBegin(given.key_kind, given.value_kind, len(given.pairs))
    for key, held in given.pairs:
        _write(sink, given.key_kind, key)
        _write(sink, given.value_kind, held)
    sink.writeMapEnd()
