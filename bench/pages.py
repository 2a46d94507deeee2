"""Pages as a node would send them, written with the driver's own serialisers: bodies, frames and segments; and what the
driver makes of them, as Arrow. The bench and the tests hold our decoder against these."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
from cassandra import cqltypes
from cassandra.protocol import ProtocolHandler, ResultMessage
from cassandra.segment import SegmentCodec

from core import ids
from schemas.tables import Table
from stores.frames import Kind
from stores.pages import kind_of

ROWS, RESULT, ANSWER, COMPRESSED = 2, 0x08, 0x80, 0x01
MORE_PAGES, NO_METADATA, ONE_TABLE = 0x02, 0x04, 0x01
_HEADER = struct.Struct(">BBhBi")
_NULL = b"\xff\xff\xff\xff"
_CODES = {cql.cassname: code for code, cql in ResultMessage.type_codes.items() if hasattr(cql, "cassname")}
_BY_NAME = {cql.typename: cql for cql in ResultMessage.type_codes.values() if hasattr(cql, "typename")}
Columns = Sequence[tuple[str, Any]]  # a name, and a type of the driver


def columns_of(table: Table) -> Columns:
    return [(column.name, driver_type(column.cql)) for column in table.columns]


def driver_type(cql: str) -> Any:
    """Of a type as `schemas.tables` spells it: simple, or a frozen tuple of simple ones."""
    if not cql.startswith("frozen<tuple<"):
        return _BY_NAME[cql]
    inner = cql.removeprefix("frozen<tuple<").removesuffix(">>").split(", ")
    return cqltypes.TupleType.apply_parameters([_BY_NAME[one] for one in inner])


def body(columns: Columns, rows: Sequence[Sequence[Any]], named: bool = True, more: bytes | None = None) -> bytes:
    """A RESULT of rows; a value of None is null. Without names, as the pages of a prepared statement are."""
    flags = (ONE_TABLE if named else NO_METADATA) | (MORE_PAGES if more is not None else 0)
    parts = [struct.pack(">iii", ROWS, flags, len(columns))]
    parts += [_sized(more)] if more is not None else []
    if named:
        parts += [_text("us_hot"), _text("messages_w2913")]
        parts += [_text(name) + _option(cql) for name, cql in columns]
    parts.append(struct.pack(">i", len(rows)))
    for row in rows:
        parts += [_cell(cql, value) for (_, cql), value in zip(columns, row, strict=True)]
    return b"".join(parts)


def _cell(cql: Any, value: Any) -> bytes:
    return _NULL if value is None else _sized(cql.to_binary(value, 4))


def _sized(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def _text(value: str) -> bytes:
    return struct.pack(">H", len(value.encode())) + value.encode()


def _option(cql: Any) -> bytes:
    code = struct.pack(">H", _CODES[cql.cassname])
    count = struct.pack(">H", len(cql.subtypes)) if cql.cassname == "TupleType" else b""
    return code + count + b"".join(map(_option, cql.subtypes))


def frame(result: bytes, version: int, lz4: bool = False, flags: int = 0, opcode: int = RESULT) -> bytes:
    """Protocol 4 compresses the body, protocol 5 the segments around it."""
    if lz4 and version == 4:
        result, flags = _with_length(result), flags | COMPRESSED
    return _HEADER.pack(ANSWER | version, flags, 0, opcode, len(result)) + result


def segmented(frames: bytes, lz4: bool) -> bytes:
    found = BytesIO()
    codec(lz4).encode(found, frames)
    return found.getvalue()


def codec(lz4: bool) -> SegmentCodec:
    return SegmentCodec(_with_length, without_length) if lz4 else SegmentCodec()


def _with_length(plain: bytes) -> bytes:
    return struct.pack(">i", len(plain)) + bytes(pa.compress(plain, codec="lz4_raw", asbytes=True))


def without_length(block: bytes) -> bytes:
    size = int.from_bytes(block[:4], "big")
    return bytes(pa.decompress(block[4:], decompressed_size=size, codec="lz4_raw", asbytes=True))


@dataclass(frozen=True)
class Driver:
    """How the driver reads what was recorded, from the socket's bytes to its rows: the peer of our decoder."""

    version: int
    lz4: bool
    handler: Any = ProtocolHandler

    def rows(self, recorded: bytes, columns: Columns) -> list[tuple[Any, ...]]:
        """`columns` are what it keeps of a prepared statement."""
        metadata = [("us_hot", "messages_w2913", *column) for column in columns]
        found: list[tuple[Any, ...]] = []
        frames = BytesIO(self._unsegmented(recorded) if self.version == 5 else recorded)
        while header := frames.read(_HEADER.size):
            _, flags, stream, opcode, length = _HEADER.unpack(header)
            given: Any = (self.version, {}, stream, flags, opcode, frames.read(length), without_length, metadata)
            found += self.handler.decode_message(*given).parsed_rows
        return found

    def _unsegmented(self, recorded: bytes) -> bytes:
        segments, chosen, found = BytesIO(recorded), codec(self.lz4), BytesIO()
        while segments.tell() < len(recorded):
            found.write(chosen.decode(segments, chosen.decode_header(segments)).payload)
        return found.getvalue()


def arrow(columns: Columns, rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    """The driver's rows by `pa.array` per column, in the types that our decoder gives."""
    kinds = [kind_of(cql) for _, cql in columns]
    by_column: Any = zip(*rows, strict=True) if rows else [()] * len(kinds)
    arrays = [pa.array(_values(kind, values), kind.arrow) for kind, values in zip(kinds, by_column, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, [name for name, _ in columns])


def _values(kind: Kind, values: Sequence[Any]) -> Sequence[Any]:
    match kind.cql:
        case "uuid":
            return [None if value is None else value.bytes for value in values]
        case "timeuuid":
            return [None if value is None else ids.from_timeuuid(value) for value in values]
        case "tuple":
            return [None if value is None else _fields(kind, value) for value in values]
        case "list" | "set":
            return [None if value is None else _values(kind.children[0], list(value)) for value in values]
        case "map":
            return [None if value is None else _entries(kind, value) for value in values]
        case _:
            return values


def _fields(kind: Kind, value: Sequence[Any]) -> dict[str, Any]:
    return {str(n): _values(child, [value[n]])[0] for n, child in enumerate(kind.children)}


def _entries(kind: Kind, value: Any) -> list[tuple[Any, Any]]:
    keys, items = zip(*value.items(), strict=True) if value else ((), ())
    return list(zip(_values(kind.children[0], keys), _values(kind.children[1], items), strict=True))
