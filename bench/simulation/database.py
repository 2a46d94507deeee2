"""What `stores.cassandra.Database` is to the product, over the simulated cluster."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from bench.simulation.cluster import NODES, QUORUM, Cluster, Row, shape_of
from bench.simulation.network import TIMEOUT_SECONDS, Network, silent, unknown
from bench.simulation.statements import Ddl, Delete, Insert, Select, Update, parsed, value_of
from bench.simulation.watch import Watch
from stores.cassandra import UNSET, Level, MissingTableError, Rows, Statement

PAGE_ROWS = 3
_LOST_WRITE, _LOST_READ = unknown("Cassandra"), silent("Cassandra")
_ASIDE = ("heads", "members", "memberships")  # written with every message, and no part of any move


@dataclass
class SimulatedDatabase:
    """A session to one datacenter."""

    cluster: Cluster
    network: Network
    watch: Watch
    datacenter: str

    def rows(self, query: str, params: Sequence[Any] = (), level: Level = Level.QUORUM) -> Rows:
        plan = parsed(query)
        assert isinstance(plan, Select)
        return self.network.call(f"read {plan.table}", lambda: self._read(plan, params, level), _LOST_READ)

    def each(self, query: str, many: Iterable[Sequence[Any]], level: Level = Level.QUORUM) -> Iterator[Rows]:
        plan, asked = parsed(query), list(many)

        def work() -> list[Rows]:
            if isinstance(plan, Select):
                return [self._read(plan, params, level) for params in asked]
            for params in asked:
                self._cas(plan, params)
            return [[] for _ in asked]

        lost = _LOST_READ if isinstance(plan, Select) else _LOST_WRITE
        yield from self.network.call(f"each of {plan.table}", work, lost)

    def pages(self, query: str, params: Sequence[Any], page_rows: int, level: Level = Level.QUORUM) -> Iterator[Rows]:
        plan = parsed(query)
        assert isinstance(plan, Select)
        after: Any = None
        while True:
            ask = partial(self._page, plan, params, level, after)
            page = self.network.call(f"scan {plan.table}", ask, _LOST_READ)
            yield [row.values(plan.columns) for _, row in page[:PAGE_ROWS]]
            if len(page) <= PAGE_ROWS:
                return
            after = page[PAGE_ROWS - 1][0]

    def cas(self, query: str, params: Sequence[Any] = ()) -> bool:
        plan = parsed(query)
        return self.network.call(f"change {plan.table}", lambda: self._cas(plan, params), _LOST_WRITE)

    def write(self, batches: Iterable[Sequence[Statement]]) -> None:
        for batch in batches:
            plans = [(parsed(statement.query), statement.params) for statement in batch]
            table = plans[0][0].table
            if table.rpartition(".")[2] in _ASIDE:
                self._apply(plans)
            else:
                self._write(table, plans)

    def ddl(self, statement: str) -> None:
        plan = parsed(statement)
        assert isinstance(plan, Ddl)
        self.network.call(f"{'drop' if plan.is_drop else 'create'} {plan.table}", lambda: self._ddl(plan), _LOST_WRITE)

    def _read(self, plan: Select, params: Sequence[Any], level: Level) -> Rows:
        if plan.table == "system_schema.tables":
            return [(name,) for name in self.cluster.tables(params[0])]
        if plan.table.endswith(".leases"):
            self.watch.looked(params[0])
        limit = value_of(plan.limit, params)
        found = self._select(plan, params, level)
        return [row.values(plan.columns) for _, row in (islice(found, limit) if limit else found)]

    def _page(self, plan: Select, params: Sequence[Any], level: Level, after: Any) -> list[tuple[Any, Row]]:
        return list(islice(self._select(plan, params, level, after), PAGE_ROWS + 1))

    def _select(
        self, plan: Select, params: Sequence[Any], level: Level, after: Any = None
    ) -> Iterator[tuple[Any, Row]]:
        if not self.cluster.has(plan.table):
            raise missing(plan.table)
        return self.cluster.select(plan, params, self._asked(plan.table, level), after)

    def _asked(self, table: str, level: Level) -> Sequence[int]:
        if not shape_of(table).is_replicated:
            return NODES
        up = self.cluster.up
        if level is Level.ALL and len(up) < len(NODES):
            raise silent("a replica")
        if level is Level.ALL or table not in self.cluster.uneven:
            return up
        first = self.network.scheduler.current.chance.whole(len(up))
        return sorted({up[first], up[(first + 1) % len(up)]})

    def _cas(self, plan: Any, params: Sequence[Any]) -> bool:
        values = plan.values if isinstance(plan, Insert | Update) else ()
        before = self._ledger_row(plan, params)
        if isinstance(plan, Insert):
            is_applied = self.cluster.lwt_insert(plan, params, UNSET)
        else:
            is_applied = self.cluster.lwt_update(plan, params)
        if is_applied and values:
            keys, after = self._ledger_row(plan, params)
            self.watch.ledger(plan.table, keys, before[1], after)
        return is_applied

    def _ledger_row(self, plan: Any, params: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        shape = shape_of(plan.table)
        sources = dict(plan.values) if isinstance(plan, Insert) else {term.column: term.value for term in plan.where}
        keys = {name: value_of(sources[name], params) for name in (*shape.partition, *shape.clustering)}
        row = self.cluster.row(plan.table, *keys.values())
        return keys, {column: value for column, (_, value) in row.cells.items()} if row else {}

    def _write(self, table: str, plans: list[tuple[Any, Sequence[Any]]]) -> None:
        name = f"write {table}"
        self.network.call(name, lambda: self._unsteadily(name, plans), _LOST_WRITE)

    def _unsteadily(self, name: str, plans: list[tuple[Any, Sequence[Any]]]) -> None:
        """Some arrive only when their sender has given up, and of some only a half."""
        chance, weather = self.network.scheduler.current.chance, self.network.weather
        if (grave := chance.odd("straggler", weather.straggler)) is not None:
            self.network.tell(f"no answer, done later: {name}")
            self.network.later(0.5 + 40 * grave, lambda: self._apply_late(plans))
        elif (grave := chance.odd("half a batch", weather.half_batch)) is not None:
            self.network.tell(f"no answer, half done: {name}")
            self._apply(plans[: int(grave * len(plans))])
        else:
            self._apply(plans)
            return
        self.network.scheduler.sleep(TIMEOUT_SECONDS)
        raise _LOST_WRITE

    def _apply_late(self, plans: list[tuple[Any, Sequence[Any]]]) -> None:
        if all(self.cluster.has(plan.table) for plan, _ in plans):
            self._apply(plans)

    def _apply(self, plans: list[tuple[Any, Sequence[Any]]]) -> None:
        for plan, params in plans:
            self._apply_one(plan, params)

    def _apply_one(self, plan: Any, params: Sequence[Any]) -> None:
        if not shape_of(plan.table).is_replicated:
            if isinstance(plan, Delete):
                self.cluster.forget(plan, params)
            else:
                self.cluster.lwt_insert(plan, params, UNSET)
            return
        if not self.cluster.has(plan.table):
            raise missing(plan.table)
        nodes = self._reached()
        if isinstance(plan, Delete):
            self.cluster.delete(plan, params, nodes)
            self.watch.deleted(plan.table, {term.column: value_of(term.value, params) for term in plan.where})
        else:
            self.cluster.insert(plan, params, nodes, UNSET)

    def _reached(self) -> list[int]:
        """Two at least have it when it is acknowledged."""
        up = self.cluster.up
        if len(up) > QUORUM:
            grave = self.network.scheduler.current.chance.odd("missed replica", self.network.weather.missed_replica)
            if grave is not None:
                return [node for at, node in enumerate(up) if at != int(grave * len(up))]
        return up

    def _ddl(self, plan: Ddl) -> None:
        if plan.is_drop:
            is_there = self.cluster.has(plan.table)
            if is_there:
                self.watch.dropping(plan.table)
            self.cluster.drop(plan.table)
            if is_there:
                self.watch.dropped(plan.table)
        else:
            self.cluster.create(plan.table)


def missing(table: str) -> MissingTableError:
    return MissingTableError(f"table {table} is missing", "run: python -m jobs.weeks --now …, or ./firn stack up")
