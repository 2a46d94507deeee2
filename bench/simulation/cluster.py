"""Cassandra as far as it matters here: three replicas of last-writer-wins cells with tombstones, and rows by LWT.

What is written to message tables reaches two or three replicas; a read asks two (or all three), merges cell by cell,
and repairs those that it asked. The ledger's tables have one copy, as if Paxos never failed: what may fail is that one
hears of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from bench.simulation.statements import Delete, Insert, Select, Source, Term, Update, value_of
from core import ids, ring
from schemas.tables import CONVERSATION_WEEKS, HOT_TABLES, LANE, META_TABLES, VAULT_TABLES, WEEK_TABLES, Table

NODES = (0, 1, 2)
QUORUM = 2
_MARKER = ""
_NO_CELL = (-2, None)
_REPLICATED = {LANE.name, CONVERSATION_WEEKS.name, *(table.name for table in WEEK_TABLES)}
Key = tuple[Any, ...]
Nodes = Sequence[int]


@dataclass(frozen=True)
class Shape:
    partition: tuple[str, ...]
    clustering: tuple[str, ...]
    descending: frozenset[str]
    kinds: dict[str, str]
    is_replicated: bool


class Row:
    """Cells by column: (microseconds, value). What was written up to `dead_us` is deleted."""

    __slots__ = ("cells", "dead_us", "keys")

    def __init__(self, keys: dict[str, Any]) -> None:
        self.keys = keys
        self.cells: dict[str, tuple[int, Any]] = {}
        self.dead_us = -1

    def take(self, column: str, us: int, value: Any) -> None:
        known = self.cells.get(column)
        if (
            known is None
            or us > known[0]
            or ((us, value) != known and us == known[0] and stored(value) > stored(known[1]))
        ):
            self.cells[column] = (us, value)

    def is_same(self, other: "Row") -> bool:
        return self.dead_us == other.dead_us and self.cells == other.cells

    @property
    def is_live(self) -> bool:
        return self.dead_us < 0 or any(us > self.dead_us for us, _ in self.cells.values())

    def value(self, column: str) -> Any:
        if column in self.keys:
            return self.keys[column]
        us, value = self.cells.get(column, _NO_CELL)
        return value if us > self.dead_us else None

    def values(self, columns: Iterable[str]) -> tuple[Any, ...]:
        """As `value` of each, without its calls."""
        keys, cells, dead_us = self.keys, self.cells, self.dead_us
        return tuple(
            [
                keys[column]
                if column in keys
                else cell[1]
                if (cell := cells.get(column, _NO_CELL))[0] > dead_us
                else None
                for column in columns
            ]
        )


Partition = dict[Key, Row]


@dataclass(frozen=True)
class Way:
    """How a SELECT finds its rows. `key`: of its one partition; None: those between two tokens, `bounds`. `left`: what
    each row is still compared with."""

    shape: Shape
    key: tuple[Source, ...] | None
    bounds: tuple[Source, ...]
    left: tuple[Term, ...]


def stored(value: Any) -> bytes:  # noqa: PLR0911
    """As Cassandra compares cells of one time: by their bytes."""
    match value:
        case None:
            return b""
        case bool():
            return bytes((value,))
        case int():
            return value.to_bytes(8, "big", signed=True)
        case str():
            return value.encode()
        case UUID():
            return value.bytes
        case datetime():
            return value.isoformat().encode()
        case tuple():
            return b"".join(_prefixed(part) for part in value)
        case _:
            return bytes(value)


def _prefixed(part: Any) -> bytes:
    return b"\xff\xff\xff\xff" if part is None else len(stored(part)).to_bytes(4, "big") + stored(part)


@cache
def shape_of(table: str) -> Shape:
    """`table` is `keyspace.name`; a week's tables share one."""
    name = table.partition(".")[2]
    for known in (*META_TABLES, *VAULT_TABLES, *HOT_TABLES, *WEEK_TABLES):
        if name == known.name or (known in WEEK_TABLES and name.startswith(known.name)):
            return _shape(known)
    raise KeyError(table)


def _shape(table: Table) -> Shape:
    first, _, rest = table.key.rpartition(")")
    partition = first.lstrip("(") if first else table.key.partition(",")[0]
    clustering = rest if first else table.key.partition(",")[2]
    names = tuple(name.strip() for name in clustering.split(",") if name.strip())
    descending = frozenset(name for name in names if f"{name} DESC" in table.options)
    kinds = {column.name: column.cql for column in table.columns}
    keys = tuple(name.strip() for name in partition.split(","))
    return Shape(keys, names, descending, kinds, table.name in _REPLICATED)


@cache
def way_of(plan: Select) -> Way:
    shape = shape_of(plan.table)
    bounds = tuple(term.value for term in plan.where if term.column.startswith("token("))
    wanted = {term.column: term.value for term in plan.where if term.column in shape.partition}
    left = [term for term in plan.where if term.column not in wanted and not term.column.startswith("token(")]
    return Way(shape, None if bounds else tuple(wanted[name] for name in shape.partition), bounds, tuple(left))


@cache
def ordered(timeuuid: UUID) -> bytes:
    return ids.from_timeuuid(timeuuid)


@cache
def token(conversation: UUID) -> int:
    return ring.token(conversation.bytes)


@dataclass
class Cluster:
    """`down`: the replica that does not answer now. `uneven`: tables whose replicas may differ."""

    nodes: tuple[dict[str, dict[Key, Partition]], ...] = field(default_factory=lambda: ({}, {}, {}))
    serial: dict[str, dict[Key, Partition]] = field(default_factory=dict)
    uneven: set[str] = field(default_factory=set)
    down: int | None = None
    _rings: dict[str, tuple[list[int], list[tuple[int, Key]]]] = field(default_factory=dict)

    def create(self, table: str) -> None:
        for node in self.nodes:
            node.setdefault(table, {})

    def drop(self, table: str) -> None:
        for node in self.nodes:
            node.pop(table, None)
        self.uneven.discard(table)
        self._rings.pop(table, None)

    def tables(self, keyspace: str) -> list[str]:
        return sorted(name.partition(".")[2] for name in self.nodes[0] if name.startswith(f"{keyspace}."))

    def has(self, table: str) -> bool:
        return not shape_of(table).is_replicated or table in self.nodes[0]

    @property
    def up(self) -> list[int]:
        return [node for node in NODES if node != self.down]

    def insert(self, plan: Insert, params: Sequence[Any], nodes: Nodes, unset: Any) -> None:
        keys, cells = _keys_and_cells(plan.table, plan.values, params, unset)
        us = value_of(plan.written_us, params)
        for node in nodes:
            row = _row(self.nodes[node][plan.table], plan.table, keys)
            row.take(_MARKER, us, True)
            for column, value in cells.items():
                row.take(column, us, value)
        self._note(plan.table, nodes)

    def delete(self, plan: Delete, params: Sequence[Any], nodes: Nodes) -> None:
        keys = {term.column: value_of(term.value, params) for term in plan.where}
        us = value_of(plan.written_us, params)
        for node in nodes:
            row = _row(self.nodes[node][plan.table], plan.table, keys)
            row.dead_us = max(row.dead_us, us)
        self._note(plan.table, nodes)

    def _note(self, table: str, nodes: Nodes) -> None:
        if len(nodes) < len(NODES):
            self.uneven.add(table)

    def select(self, plan: Select, params: Sequence[Any], nodes: Nodes, after: Any = None) -> Iterator[tuple[Any, Row]]:
        """Live rows in the order of the table, each with its place; only those behind `after`."""
        way = way_of(plan)
        shape = way.shape
        left = [Term(term.column, term.operator, value_of(term.value, params)) for term in way.left]
        for place, key in self._partitions(plan.table, way, params, after):
            held = self.partition(plan.table, key, nodes)
            for sort_key in sorted(held) if len(held) > 1 else held:
                row = held[sort_key]
                is_new = after is None or (place, sort_key) > after
                if is_new and row.is_live and (not left or all(_holds(shape, row.keys, term) for term in left)):
                    yield (place, sort_key), row

    def _partitions(self, table: str, way: Way, params: Sequence[Any], after: Any) -> Iterable[tuple[Any, Key]]:
        if way.key is not None:
            return ((0, tuple([value_of(source, params) for source in way.key])),)
        above, to = (value_of(bound, params) for bound in way.bounds)
        return [
            ((place,), key)
            for place, key in self._ring(table)
            if above < place <= to and (after is None or place >= after[0][0])
        ]

    def _ring(self, table: str) -> list[tuple[int, Key]]:
        """Its partitions by token. A partition that is known to a replica stays so."""
        sizes = [len(node[table]) for node in self.nodes]
        if table not in self._rings or self._rings[table][0] != sizes:
            known = {key for node in self.nodes for key in node[table]}
            self._rings[table] = (sizes, sorted((token(key[0]), key) for key in known))
        return self._rings[table][1]

    def partition(self, table: str, key: Key, nodes: Nodes) -> Partition:
        """As these replicas have it together; where they differ they are repaired."""
        if not shape_of(table).is_replicated:
            return self.serial.get(table, {}).get(key, {})
        if table not in self.uneven:
            return self.nodes[0][table].get(key, {})
        held = [self.nodes[node][table].setdefault(key, {}) for node in nodes]
        merged = merged_partition(held)
        for partition in held:
            for sort_key, row in merged.items():
                known = partition.get(sort_key)
                if known is None or not known.is_same(row):
                    partition[sort_key] = _copied(row)
        return merged

    # by LWT

    def lwt_insert(self, plan: Insert, params: Sequence[Any], unset: Any) -> bool:
        keys, cells = _keys_and_cells(plan.table, plan.values, params, unset)
        table = self.serial.setdefault(plan.table, {})
        partition, place = _place(table, plan.table, keys)
        if plan.is_conditional and place in partition:
            return False
        row = partition.setdefault(place, Row(keys))
        row.cells |= {column: (0, value) for column, value in cells.items()}
        row.cells[_MARKER] = (0, True)
        return True

    def lwt_update(self, plan: Update, params: Sequence[Any]) -> bool:
        keys = {term.column: value_of(term.value, params) for term in plan.where}
        partition, place = _place(self.serial.setdefault(plan.table, {}), plan.table, keys)
        row = partition.get(place)
        if not self._may(row, plan, params):
            return False
        if row is None:
            row = partition[place] = Row(keys)
        row.cells |= {column: (0, in_milliseconds(value_of(source, params))) for column, source in plan.values}
        return True

    def _may(self, row: Row | None, plan: Update, params: Sequence[Any]) -> bool:
        if row is None:
            return bool(plan.terms) and all(value_of(term.value, params) is None for term in plan.terms)
        return all(
            _compare(row.value(term.column), term.operator, in_milliseconds(value_of(term.value, params)))
            for term in plan.terms
        )

    def forget(self, plan: Delete, params: Sequence[Any]) -> None:
        key = tuple(value_of(term.value, params) for term in plan.where)
        self.serial.setdefault(plan.table, {}).pop(key, None)

    def row(self, table: str, *keys: Any) -> Row | None:
        """One of the ledger's rows, for whoever watches."""
        shape = shape_of(table)
        partition = self.serial.get(table, {}).get(keys[: len(shape.partition)], {})
        return partition.get(keys[len(shape.partition) :])

    def rows(self, table: str) -> list[Row]:
        return [row for partition in self.serial.get(table, {}).values() for row in partition.values()]


def merged_partition(held: Iterable[Partition]) -> Partition:
    """Rows that are the same everywhere are nobody's copy."""
    merged: Partition = {}
    for partition in held:
        for sort_key, row in partition.items():
            known = merged.setdefault(sort_key, row)
            if known is not row and not known.is_same(row):
                merged[sort_key] = _merged(known, row)
    return merged


def _merged(one: Row, other: Row) -> Row:
    made = _copied(one)
    made.dead_us = max(one.dead_us, other.dead_us)
    for column, (us, value) in other.cells.items():
        made.take(column, us, value)
    return made


def in_milliseconds(value: Any) -> Any:
    """CQL timestamps end there."""
    return value.replace(microsecond=value.microsecond // 1000 * 1000) if isinstance(value, datetime) else value


def _copied(row: Row) -> Row:
    made = Row(row.keys)
    made.cells, made.dead_us = dict(row.cells), row.dead_us
    return made


def _keys_and_cells(
    table: str, values: tuple[tuple[str, Source], ...], params: Sequence[Any], unset: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    shape = shape_of(table)
    given = {column: in_milliseconds(value_of(source, params)) for column, source in values}
    keys = {column: given.pop(column) for column in (*shape.partition, *shape.clustering)}
    return keys, {column: value for column, value in given.items() if value is not unset}


def _place(table: dict[Key, Partition], name: str, keys: dict[str, Any]) -> tuple[Partition, Key]:
    shape = shape_of(name)
    partition = table.setdefault(tuple(keys[column] for column in shape.partition), {})
    return partition, tuple(_sort_key(shape, column, keys[column]) for column in shape.clustering)


def _row(table: dict[Key, Partition], name: str, keys: dict[str, Any]) -> Row:
    partition, place = _place(table, name, keys)
    row = partition.get(place)
    if row is None:
        row = partition[place] = Row(keys)
    return row


def _sort_key(shape: Shape, column: str, value: Any) -> Any:
    """Sorts ascending as the table sorts the column."""
    if column in shape.descending:
        return -int.from_bytes(ordered(value), "big") if isinstance(value, UUID) else -value
    return ordered(value) if shape.kinds[column] == "timeuuid" else value


def _holds(shape: Shape, keys: dict[str, Any], term: Term) -> bool:
    held, wanted = keys[term.column], term.value
    if term.operator == "IN":
        return held in wanted
    if shape.kinds[term.column] == "timeuuid":
        held, wanted = ordered(held), ordered(wanted)
    return _compare(held, term.operator, wanted)


def _compare(held: Any, operator: str, wanted: Any) -> bool:
    match operator:
        case "=":
            return bool(held == wanted)
        case "<":
            return held is not None and held < wanted
        case "<=":
            return held is not None and held <= wanted
        case ">=":
            return held is not None and held >= wanted
    raise ValueError(operator)
