"""The one importer of the CQL driver: sessions, statements, compare-and-set, batches, token-range pages.

A `Database` is a session to one datacenter and what it has prepared. LOCAL_QUORUM from one datacenter on the other's
keyspace is unavailable, so there is one per datacenter. The caller opens and closes them.
"""

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from cassandra import (
    ConsistencyLevel,
    DriverException,
    InvalidRequest,
    OperationTimedOut,
    ReadTimeout,
    Unavailable,
    WriteFailure,
    WriteTimeout,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.policies import DCAwareRoundRobinPolicy, ExponentialReconnectionPolicy, TokenAwarePolicy
from cassandra.protocol import ErrorMessage
from cassandra.query import UNSET_VALUE, BatchStatement, BatchType, BoundStatement, PreparedStatement, tuple_factory

from core import settings
from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError
from stores.requests import Requests

UNSET: Any = UNSET_VALUE
Rows = list[tuple[Any, ...]]
Params = Sequence[Any]
BATCH_STATEMENTS = 40
BATCH_BYTES = 256 * 1024  # far below half a commit log segment, which is the largest mutation Cassandra takes
_IN_FLIGHT = 32
_RECONNECT_SECONDS = (0.5, 10.0)  # the driver's own default would leave a node that is back alone for ten minutes
_ADD_COLUMN = re.compile(r"ALTER TABLE (\w+)\.(\w+) ADD (\w+) ")


class Level(IntEnum):
    """How many replicas must have answered."""

    QUORUM = ConsistencyLevel.LOCAL_QUORUM
    SERIAL = ConsistencyLevel.LOCAL_SERIAL
    ALL = ConsistencyLevel.ALL


class MissingTableError(BlockedError):
    """A table is not there: to a reader or writer, the sign to reload the ledger."""


@dataclass(frozen=True)
class Statement:
    """One write, to be sent alone or in a batch with others of its partition."""

    query: str
    params: Params


def bounded(statements: Iterable[Statement]) -> Iterator[list[Statement]]:
    """Cuts writes of one partition into batches that Cassandra takes; each is idempotent, so a cut does no harm."""
    batch: list[Statement] = []
    size_bytes = 0
    for statement in statements:
        statement_bytes = sum(map(_payload_bytes, statement.params))
        if batch and (len(batch) >= BATCH_STATEMENTS or size_bytes + statement_bytes > BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(statement)
        size_bytes += statement_bytes
    if batch:
        yield batch


def _payload_bytes(value: Any) -> int:
    if isinstance(value, tuple):
        return sum(map(_payload_bytes, value))
    return len(value) if isinstance(value, bytes | str) else 0


@dataclass
class Database:
    session: Session
    datacenter: str
    _prepared: dict[str, PreparedStatement] = field(default_factory=dict)
    _preparing: threading.Lock = field(default_factory=threading.Lock)

    def rows(self, query: str, params: Params = (), level: Level = Level.QUORUM) -> Rows:
        with translated():
            return list(self.session.execute(self.bind(query, params, level)))

    def cas(self, query: str, params: Params = ()) -> bool:
        """Whether a conditional write was applied; OutcomeUnknownError when the answer was lost."""
        with translated():
            return bool(self.session.execute(self.bind(query, params)).was_applied)

    def write(self, batches: Iterable[Sequence[Statement]]) -> None:
        """Sends each batch (statements of one partition) unlogged, some in flight; all are durable when it returns.

        `batches` is drawn in the caller's thread, so it may itself read from here.
        """
        self.send(map(self._batch, batches))

    def send(self, batches: Iterable[BatchStatement], in_flight: int = _IN_FLIGHT) -> None:
        """As `write`, for batches that are made already."""
        flying: deque[Any] = deque()
        with translated():
            for batch in batches:
                if len(flying) >= in_flight:
                    flying.popleft().result()
                flying.append(self.session.execute_async(batch))
            while flying:
                flying.popleft().result()

    def each(self, query: str, many: Iterable[Params], level: Level = Level.QUORUM) -> Iterator[Rows]:
        """The result of the same query for each of `many`, in their order, some in flight."""
        flying: deque[Any] = deque()
        with translated():
            for params in many:
                if len(flying) >= _IN_FLIGHT:
                    yield list(flying.popleft().result())
                flying.append(self.session.execute_async(self.bind(query, params, level)))
            while flying:
                yield list(flying.popleft().result())

    def pages(self, query: str, params: Params, page_rows: int, level: Level = Level.QUORUM) -> Iterator[Rows]:
        """The result page by page, the next one asked for while the caller works on this one."""
        with translated():
            statement = self.bind(query, params, level)
            statement.fetch_size = page_rows
            future = self.session.execute_async(statement)
            while True:
                result = future.result()
                page: Rows = list(result.current_rows)
                if more := future.has_more_pages:
                    future.start_fetching_next_page()
                yield page
                if not more:
                    return

    def ddl(self, statement: str) -> None:
        """Runs a schema change and waits until every node agrees on it."""
        with translated():
            result = self.session.execute(statement, timeout=60)
            if not result.response_future.is_schema_agreed:
                raise OutcomeUnknownError("the nodes do not agree on the schema yet", "run the same command again")

    def bind(self, query: str, params: Params, level: Level = Level.QUORUM) -> BoundStatement:
        bound = self.prepared(query).bind(params)
        bound.consistency_level = level
        return bound

    def prepared(self, query: str) -> PreparedStatement:
        """Once: the driver forgets a statement with the object that was prepared last."""
        with self._preparing:
            found = self._prepared.get(query)
            if found is None:
                found = self._prepared[query] = self.session.prepare(query)
            return found

    def _batch(self, statements: Sequence[Statement]) -> BatchStatement:
        batch = BatchStatement(BatchType.UNLOGGED, consistency_level=ConsistencyLevel.LOCAL_QUORUM)
        for statement in statements:
            batch.add(self.bind(statement.query, statement.params))
        return batch


@dataclass
class Databases:
    """One region's two datacenters; the same `Database` twice where one cluster is both. Warm is opened at its first
    use, so that hot is read and written while warm is away."""

    hot: Database
    open_warm: Callable[[], Database]
    _warm: Database | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def warm(self) -> Database:
        with self._lock:
            if self._warm is None:
                self._warm = self.open_warm()
            return self._warm


@contextmanager
def connected(config: settings.Settings) -> Iterator[Databases]:
    """Opens a session per distinct datacenter, and closes them."""
    with ExitStack() as closing:

        def opened(endpoint: settings.Cassandra) -> Database:
            database = connect(endpoint)
            closing.callback(database.session.cluster.shutdown)
            return database

        hot = opened(config.hot)
        yield Databases(hot, lambda: hot if _same(config.hot, config.warm) else opened(config.warm))


def connect(endpoint: settings.Cassandra) -> Database:
    """Raises BlockedError when nobody answers."""
    if not endpoint.contact_points:
        raise BlockedError("no Cassandra is known here", "start the local stack: ./firn stack up")
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=endpoint.datacenter)),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
        request_timeout=30,
        row_factory=tuple_factory,
    )
    auth = PlainTextAuthProvider(endpoint.username, endpoint.password.reveal()) if endpoint.username else None
    cluster = Cluster(
        list(endpoint.contact_points),
        port=endpoint.port,
        protocol_version=endpoint.protocol_version,
        auth_provider=auth,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=15,
        control_connection_timeout=10,  # a node that has just come up is slow to tell of itself
        reconnection_policy=ExponentialReconnectionPolicy(*_RECONNECT_SECONDS),
        max_schema_agreement_wait=30,
    )
    try:
        session = cluster.connect()
        session.client_protocol_handler = Requests
        return Database(session, endpoint.datacenter)
    except NoHostAvailable as fault:
        cluster.shutdown()
        raise BlockedError(
            f"no Cassandra of datacenter {endpoint.datacenter} answers at "
            f"{', '.join(endpoint.contact_points)}:{endpoint.port}",
            "start it (./firn stack up), or correct [hot] and [warm] in firn.toml; then run the same command again",
        ) from fault


@contextmanager
def translated() -> Iterator[None]:
    """The driver's faults as ours. A lost answer to a write is unknown, never failed."""
    try:
        yield
    except (WriteTimeout, WriteFailure) as fault:
        raise OutcomeUnknownError("Cassandra did not confirm a write", "run the same command again") from fault
    except ErrorMessage as fault:
        # What the driver has no class for, a compare-and-set of unknown outcome among them.
        raise OutcomeUnknownError("Cassandra met an error of its own", "look at its log; then run it again") from fault
    except InvalidRequest as fault:
        raise _invalid(fault) from fault
    except OperationTimedOut as fault:
        raise OutcomeUnknownError("Cassandra did not answer in time", "run the same command again") from fault
    except (Unavailable, ReadTimeout) as fault:
        raise _too_few(fault) from fault
    except (NoHostAvailable, DriverException) as fault:
        if lacking := _lacking(fault):
            raise _too_few(lacking) from fault
        raise BlockedError(
            f"Cassandra cannot answer now ({type(fault).__name__})",
            "look at ./firn stack status; then run the same command again",
        ) from fault


def _lacking(fault: Exception) -> Unavailable | ReadTimeout | None:
    """What the last of the nodes that were asked in vain said, where it said that others are away."""
    errors = fault.errors if isinstance(fault, NoHostAvailable) else {}
    said = list(errors.values()) if isinstance(errors, dict) else []  # of a session that was not opened: hosts alone
    return next((one for one in said if isinstance(one, Unavailable | ReadTimeout)), None)


def _too_few(fault: Unavailable | ReadTimeout) -> BlockedError:
    """Of a read, or of what a coordinator that knows that replicas are away did not begin."""
    is_away = isinstance(fault, Unavailable)
    answered = fault.alive_replicas if is_away else fault.received_responses
    needed = fault.required_replicas if is_away else fault.required_responses
    level = ConsistencyLevel.value_to_name.get(fault.consistency, "this level")
    return BlockedError(
        f"only {answered or 0} of the {needed or 'many'} replicas that {level} needs answer",
        "see which node is down (nodetool status) and start it; then run the same command again",
    )


def _invalid(fault: InvalidRequest) -> FirnError:
    text = str(fault)
    if "unconfigured table" in text or "does not exist" in text or "nconfigured column family" in text:
        return MissingTableError(
            "a table or keyspace is missing", "run: python -m jobs.weeks --now …, or ./firn stack up"
        )
    return DamagedError(
        f"Cassandra refused a statement ({type(fault).__name__})", "the schema is not ours; look at its log"
    )


def _same(hot: settings.Cassandra, warm: settings.Cassandra) -> bool:
    return (hot.contact_points, hot.port, hot.datacenter) == (warm.contact_points, warm.port, warm.datacenter)


def migrate(db: Databases, config: settings.Settings, region: str, folder: Path) -> int:
    """Makes the region's keyspaces and applies the numbered files that it lacks; returns how many. Under the DDL lease
    everywhere but on a region's very first start, where IF NOT EXISTS makes a race harmless."""
    for suffix, endpoint, database in (
        ("hot", config.hot, db.hot),
        ("meta", config.hot, db.hot),
        ("warm", config.warm, db.warm),
        ("vault", config.hot, db.hot),
    ):
        database.ddl(
            f"CREATE KEYSPACE IF NOT EXISTS {region}_{suffix} WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy', '{endpoint.datacenter}': {endpoint.replication}}}"
        )
    db.hot.ddl(f"CREATE TABLE IF NOT EXISTS {region}_meta.migrations (name text PRIMARY KEY)")
    applied = {name for (name,) in db.hot.rows(f"SELECT name FROM {region}_meta.migrations")}
    pending = [path for path in sorted(folder.glob("*.cql")) if path.name not in applied]
    for path in pending:
        for statement in _statements(path.read_text().replace("{region}", region)):
            if not _has_column(db.hot, statement):
                db.hot.ddl(statement)
        db.hot.rows(f"INSERT INTO {region}_meta.migrations (name) VALUES (?)", (path.name,))
    return len(pending)


def _has_column(db: Database, statement: str) -> bool:
    """Whether a migration that was killed had added this column: ADD IF NOT EXISTS is not for both databases."""
    found = _ADD_COLUMN.match(statement)
    query = "SELECT type FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ? AND column_name = ?"
    return found is not None and bool(db.rows(query, found.groups()))


def _statements(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [statement.strip() for statement in "\n".join(lines).split(";") if statement.strip()]
