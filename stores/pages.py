"""Whole token ranges out of Cassandra as Arrow, several pages on their way at once.

The driver decodes in the one thread that also reads its sockets. A session with `RawPages` hands the body of each page
on as it came, so that whoever takes it decodes it, in his own thread.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from queue import SimpleQueue
from typing import Any

import pyarrow as pa
from cassandra.cluster import ResponseFuture
from cassandra.cqltypes import UserType
from cassandra.protocol import ProtocolHandler, ResultMessage
from cassandra.query import BoundStatement

from core import ring
from core.errors import DamagedError
from stores import frames
from stores.cassandra import Database, Level, translated
from stores.frames import Kind, Layout, decoded, opened

_KIND_BYTES = 4
_ALIASES = {"varchar": "text"}


class _RawResult(ResultMessage):  # type: ignore[misc]  # the driver has no types
    """Raises nothing: the driver would write the whole buffer into its log, and with it what people wrote. A page that
    is broken here is found so again by whoever decodes it."""

    def recv_results_rows(self, body: BytesIO, *_: Any) -> None:
        begin = body.tell() - _KIND_BYTES
        self.parsed_rows = body.getvalue()[begin:]
        try:
            self.paging_state = frames.paging_state(self.parsed_rows)
        except DamagedError:
            self.paging_state = None


class RawPages(ProtocolHandler):  # type: ignore[misc]
    """The `client_protocol_handler` of a session whose rows are to stay as they came."""

    message_types_by_opcode = ProtocolHandler.message_types_by_opcode | {ResultMessage.opcode: _RawResult}


@contextmanager
def raw(db: Database) -> Iterator[Database]:
    """A second session to the same cluster, for `drain` alone: its rows are bytes."""
    with translated():
        session = db.session.cluster.connect()
    session.client_protocol_handler = RawPages
    try:
        yield Database(session, db.datacenter)
    finally:
        session.shutdown()


def layout_of(bound: BoundStatement) -> Layout:
    """Of the rows that a prepared statement gives."""
    return frames.layout([(column[2], kind_of(column[3])) for column in bound.prepared_statement.result_metadata])


def kind_of(cql: Any) -> Kind:
    """Of a type of the driver; a user's type may be called like one of ours."""
    if issubclass(cql, UserType):
        return Kind(f"user type {cql.typename}", None)
    return frames.kind(_ALIASES.get(cql.typename, cql.typename), [kind_of(child) for child in cql.subtypes])


def drain(
    db: Database,
    query: str,
    ranges: Iterable[ring.Range],
    in_flight: int,
    page_rows: int,
    level: Level = Level.QUORUM,
) -> Iterator[tuple[ring.Range, pa.RecordBatch]]:
    """Every page of each range, and which it is of: in order within a range, in none between them. `db` is `raw`;
    `query` takes a range's two ends.

    So many ranges are read at once, one page of each on its way or waiting, so that no more pages than that are in
    memory beside the caller's. The next page is asked for before this one is decoded.
    """
    with translated():
        layout = layout_of(db.bind(query, (0, 0), level))
    for tokens, body in bodies(db, query, ranges, in_flight, page_rows, level):
        yield tokens, decoded(opened(body, layout))


def bodies(
    db: Database, query: str, ranges: Iterable[ring.Range], in_flight: int, page_rows: int, level: Level = Level.QUORUM
) -> Iterator[tuple[ring.Range, bytes]]:
    """What `drain` decodes."""
    arrived: SimpleQueue[tuple[ring.Range, ResponseFuture]] = SimpleQueue()
    waiting = iter(ranges)

    def begin() -> int:
        tokens = next(waiting, None)
        if tokens is None:
            return 0
        bound = db.bind(query, (tokens.start, tokens.end), level)
        bound.fetch_size = page_rows
        future = db.session.execute_async(bound)

        def told(_: object) -> None:
            """Of each page, in the order in which they come, whichever range they are of."""
            arrived.put((tokens, future))

        future.add_callbacks(told, told)
        return 1

    with translated():
        flying = sum(begin() for _ in range(in_flight))
        while flying:
            tokens, future = arrived.get()
            body: bytes = future.result().current_rows
            if future.has_more_pages:
                future.start_fetching_next_page()
            else:
                flying += begin() - 1
            yield tokens, body
