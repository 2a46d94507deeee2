"""CQL pages straight to Arrow: the body of a RESULT in, a record batch out, no Python object per row or cell.

`opened` reads what stands before the rows, in plain Python; `decoded` lets the kernels find every cell once and then
fills column by column. What a CQL type becomes stands in `KINDS`; a tuple becomes a struct, a collection a list or map,
and their cells are found and filled like those of a column. A TIMEUUID becomes an id in time order, as everywhere in
Arrow here. A cell is null where its length is -1, and where a type that cannot be empty has no bytes: the driver says
so too. A result knows no other: -2, which a request may send for "unset", is damage here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.errors import DamagedError, RefusedError
from schemas.tables import ID, INSTANT
from stores import kernels
from stores.envelopes import AGAIN, Bytes, Reader

Places = NDArray[np.int32]
_ROWS = 2
_MORE_PAGES, _NO_METADATA, _CHANGED, _ONE_TABLE = 0x02, 0x04, 0x08, 0x01
_OUTCOMES = {
    kernels.CUT: "is cut",
    kernels.UNKNOWN: "has a cell of a length below null",
    kernels.LEFT_OVER: "goes on after its last row",
}
_OTHERWISE = "leave it out of the SELECT, or read that table by rows"


@dataclass(frozen=True)
class Kind:
    """What a CQL type is in Arrow and how its cells are written. `width` is what a cell must have, in bytes, and 0 if
    any will do; `arrow` is None for what is not decoded here."""

    cql: str
    arrow: pa.DataType | None
    family: int = kernels.NESTED
    width: int = 0
    least: int = 1  # bytes; what has fewer is null
    scale: int = 1
    children: tuple["Kind", ...] = ()

    def __str__(self) -> str:
        return f"{self.cql}<{', '.join(map(str, self.children))}>" if self.children else self.cql


KINDS = {
    kind.cql: kind
    for kind in (
        Kind("bigint", pa.int64(), kernels.NUMBERS, 8),
        Kind("blob", pa.binary(), kernels.BYTES, least=0),
        Kind("boolean", pa.bool_(), kernels.BITS, 1),
        Kind("double", pa.float64(), kernels.NUMBERS, 8),
        Kind("float", pa.float32(), kernels.NUMBERS, 4),
        Kind("int", pa.int32(), kernels.NUMBERS, 4),
        Kind("smallint", pa.int16(), kernels.NUMBERS, 2),
        Kind("text", pa.string(), kernels.BYTES, least=0),
        Kind("timestamp", INSTANT, kernels.NUMBERS, 8, scale=1000),  # milliseconds on the wire
        Kind("timeuuid", ID, kernels.ORDERED, 16),
        Kind("tinyint", pa.int8(), kernels.NUMBERS, 1),
        Kind("uuid", ID, kernels.BYTES, 16),
    )
}
# By the numbers that the protocol gives them; those without a kind above are known by name only, to be refused.
_CODES = {
    0x01: "ascii", 0x02: "bigint", 0x03: "blob", 0x04: "boolean", 0x05: "counter", 0x06: "decimal", 0x07: "double",
    0x08: "float", 0x09: "int", 0x0A: "text", 0x0B: "timestamp", 0x0C: "uuid", 0x0D: "text", 0x0E: "varint",
    0x0F: "timeuuid", 0x10: "inet", 0x11: "date", 0x12: "time", 0x13: "smallint", 0x14: "tinyint", 0x15: "duration",
    0x20: "list", 0x21: "map", 0x22: "set", 0x31: "tuple",
}  # fmt: skip
_CHILDREN = {"list": 1, "map": 2, "set": 1}
_DEEPEST = 8  # types within types; a page that claims more is not from a table of ours


def kind(cql: str, children: Sequence[Kind] = ()) -> Kind:
    """The kind of a CQL type by its name; one that is not decoded here is refused when a page has such a column."""
    arrow: list[Any] = [child.arrow for child in children]
    if any(one is None for one in arrow):
        return Kind(cql, None, children=tuple(children))
    match cql:
        case "tuple":
            fields = [pa.field(str(number), one) for number, one in enumerate(arrow)]
            return Kind(cql, pa.struct(fields), children=tuple(children))
        case "list" | "set":
            return Kind(cql, pa.list_(*arrow), children=tuple(children))
        case "map":
            return Kind(cql, pa.map_(*arrow), children=tuple(children))
        case _:
            return KINDS.get(cql) or Kind(cql, None)


@dataclass(frozen=True, eq=False)
class Layout:
    """Columns in their order, with what the kernels must know of them; `inner` are those within a nested one. Made once
    for a statement, used for each of its pages."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    plan: NDArray[np.int64]
    inner: tuple["Layout", ...]


def layout(columns: Sequence[tuple[str, Kind]]) -> Layout:
    kinds = tuple(kind for _, kind in columns)
    plan = np.array([(kind.family, kind.width, kind.least, kind.scale) for kind in kinds], np.int64).reshape(-1, 4)
    inner = tuple(layout([(name, child) for child in kind.children]) for name, kind in columns)
    return Layout(tuple(name for name, _ in columns), kinds, plan, inner)


@dataclass(frozen=True)
class Page:
    """The rows begin at `start` of the body; `paging_state` asks for the next page, None at the last."""

    body: Bytes
    start: int
    rows: int
    layout: Layout
    paging_state: bytes | None


def opened(body: Bytes, of_statement: Layout | None = None) -> Page:
    """`of_statement` is that of the prepared statement: its pages do not name their columns again. DamagedError for
    what is not a RESULT of rows, or not whole."""
    reader = Reader(body)
    if (what := reader.signed()) != _ROWS:
        raise DamagedError(f"an answer holds no rows (a RESULT of kind {what})", "see which statement it answers")
    flags, columns = reader.signed(), reader.signed()
    more = reader.take(reader.signed()) or None if flags & _MORE_PAGES else None
    if flags & _CHANGED:
        reader.take(reader.short())
    named = of_statement if flags & _NO_METADATA else _named(reader, columns, bool(flags & _ONE_TABLE))
    rows = reader.signed()
    if named is None or columns < 1 or len(named.kinds) != columns:
        raise DamagedError(f"a page has {columns} columns, which are not those of its statement", AGAIN)
    if not 0 <= rows * columns <= reader.left // 4:
        raise DamagedError(f"a page is too short for the {rows} rows that it claims", AGAIN)
    return Page(body, reader.at, rows, named, more)


def paging_state(body: Bytes) -> bytes | None:
    """What asks for the page after this one; None at the last."""
    reader = Reader(body)
    reader.take(4)  # the kind
    flags = reader.signed()
    reader.take(4)  # how many columns
    return reader.take(reader.signed()) or None if flags & _MORE_PAGES else None


def _named(reader: Reader, columns: int, one_table: bool) -> Layout:
    if one_table:
        _table(reader)
    found = []
    for _ in range(columns):
        if not one_table:
            _table(reader)
        name = reader.text()
        if not name.isprintable():  # whoever reads on too far meets a zero before he meets a value
            raise DamagedError("a page has a column whose name is none", AGAIN)
        found.append((name, _kind_of(reader, name)))
    return layout(found)


def _table(reader: Reader) -> None:
    reader.text()  # keyspace
    reader.text()


def _kind_of(reader: Reader, column: str, depth: int = 0) -> Kind:
    code = reader.short()
    if code not in _CODES or depth > _DEEPEST:  # what comes next cannot be told
        raise RefusedError(f"column {column} is of type 0x{code:02x}, which is not decoded here", _OTHERWISE)
    name = _CODES[code]
    children = reader.short() if name == "tuple" else _CHILDREN.get(name, 0)
    return kind(name, [_kind_of(reader, column, depth + 1) for _ in range(children)])


def decoded(page: Page) -> pa.RecordBatch:
    """DamagedError for a page that is cut, has something left over, or holds a cell that its type cannot be;
    RefusedError for a column of a type that is not decoded here."""
    for name, kind in zip(page.layout.names, page.layout.kinds, strict=True):
        if kind.arrow is None:
            raise RefusedError(f"column {name} is of type {kind}, which is not decoded here", _OTHERWISE)
    body = np.frombuffer(page.body, np.uint8)
    cells = _Cells(body, page.layout, *_places(len(page.layout.kinds), page.rows))
    outcome, row = kernels.walk(body, page.start, cells.starts, cells.lengths)
    if outcome != kernels.FITS:
        raise DamagedError(f"a page {_OUTCOMES[outcome]}, in row {row} of {page.rows}", AGAIN)
    return pa.RecordBatch.from_arrays(cells.arrays(), list(page.layout.names))


def _places(columns: int, rows: int) -> tuple[Places, Places]:
    return np.empty((columns, rows), np.int32), np.empty((columns, rows), np.int32)


def _made(
    kind: Kind, rows: int, buffers: Sequence[pa.Buffer | None], nulls: int, children: Any = None
) -> "pa.Array[Any]":
    arrow: Any = kind.arrow
    made: pa.Array[Any] = pa.Array.from_buffers(arrow, rows, list(buffers), nulls, children=children)
    return made


@dataclass(frozen=True)
class _Cells:
    """Where each cell of some columns lies in the page, or of what is inside of a nested one."""

    body: NDArray[np.uint8]
    layout: Layout
    starts: Places
    lengths: Places

    def arrays(self) -> "list[pa.Array[Any]]":
        plan, regions = self.layout.plan, np.empty((len(self.layout.kinds), 5), np.int64)
        size_bytes, column, row = kernels.weigh(self.lengths, plan, regions)
        self._require(column, row)
        arena = pa.allocate_buffer(size_bytes)
        filled = np.frombuffer(memoryview(arena), np.uint8)
        self._require(*kernels.fill(self.body, self.starts, self.lengths, plan, regions, filled))
        return [self._array(column, arena, *region) for column, region in enumerate(regions.tolist())]

    def _array(
        self, column: int, arena: pa.Buffer, nulls: int, valid: int, offsets: int, values: int, size_bytes: int
    ) -> "pa.Array[Any]":
        kind, rows = self.layout.kinds[column], self.lengths.shape[1]
        bits = arena.slice(valid, -(-rows // 8)) if nulls else None
        if kind.family == kernels.NESTED:
            return self._nested(column, bits, nulls)
        buffers = [bits, arena.slice(values, size_bytes)]
        if offsets:
            buffers.insert(1, arena.slice(offsets, 4 * (rows + 1)))
        array = _made(kind, rows, buffers, nulls)
        if kind.cql == "text":
            self._require_utf8(column, array)
        return array

    def _nested(self, column: int, bits: pa.Buffer | None, nulls: int) -> "pa.Array[Any]":
        kind, inner = self.layout.kinds[column], self.layout.inner[column]
        starts, lengths = self.starts[column], self.lengths[column]
        if kind.cql == "tuple":
            places = _places(len(kind.children), len(starts))
            self._require(column, kernels.split(self.body, starts, lengths, *places))
            children, buffers = _Cells(self.body, inner, *places).arrays(), [bits]
        else:
            offsets: Any = np.empty(len(starts) + 1, np.int32)
            self._require(column, kernels.count(self.body, starts, lengths, len(kind.children), offsets))
            places = _places(len(kind.children), int(offsets[-1]))
            self._require(column, kernels.spread(self.body, starts, lengths, offsets, *places))
            children, buffers = _Cells(self.body, inner, *places).arrays(), [bits, pa.py_buffer(offsets)]
        if kind.cql == "map":
            children = [self._entries(column, children)]
        return _made(kind, len(starts), buffers, nulls, children)

    def _entries(self, column: int, children: "list[pa.Array[Any]]") -> "pa.Array[Any]":
        if children[0].null_count:
            raise DamagedError(f"column {self.layout.names[column]} holds a map with a null key", AGAIN)
        kind: Any = self.layout.kinds[column].arrow
        return pa.StructArray.from_arrays(children, fields=[kind.key_field, kind.item_field])

    def _require(self, column: int, row: int) -> None:
        if row >= 0:
            name, kind = self.layout.names[column], self.layout.kinds[column]
            raise DamagedError(f"column {name} holds a cell that is no {kind}, in row {row}", AGAIN)

    def _require_utf8(self, column: int, array: "pa.Array[Any]") -> None:
        try:
            array.validate(full=True)
        except pa.ArrowInvalid as fault:
            raise DamagedError(f"column {self.layout.names[column]} holds text that is no UTF-8", AGAIN) from fault
