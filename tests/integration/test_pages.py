"""A real table read raw is what the driver's own rows say, whatever protocol, page size and number of ranges."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import chain
from typing import Any

import pyarrow as pa
import pytest

from bench.pages import arrow
from core import ids, ring, weeks
from core.canonical import of_batches
from core.digest import of_rows
from core.errors import BlockedError
from core.overlay import Reaction, Row
from core.rows import from_batch, to_batches
from core.settings import Settings
from core.tiers import Tier
from schemas.tables import MESSAGES, REACTIONS, Table
from stores import inserts, messages, scans
from stores.cassandra import Database, MissingTableError, connect
from stores.pages import drain, layout_of, raw

WEEK = 2913
TABLES = [MESSAGES, REACTIONS]
CONVERSATIONS, EACH = 30, 9


def made() -> Iterator[Row]:
    """Plain, edited, deleted, with an empty body, with reactions one of which was taken back."""
    for number in range(CONVERSATIONS * EACH):
        conversation = ids.conversation_uuid("pages", str(number // EACH))
        sent = weeks.start(WEEK) + timedelta(minutes=number)
        message, later = (
            ids.compose((at - ids.UNIX_EPOCH) // timedelta(microseconds=1), number, 7)
            for at in (sent, sent + timedelta(seconds=9))
        )
        row = Row(conversation, message, sender_id=number, message_type=number % 4, body=bytes(number), server_ts=sent)
        reactions = (Reaction(1, later, b"+"), Reaction(2, later, None))
        yield [
            row,
            replace(row, edit_id=later, body=b"new"),
            replace(row, deleted=True, body=None),
            replace(row, reactions=reactions, media_ref="a" * 64, reply_to=message),
        ][number % 4]


@pytest.fixture(scope="module", params=[4, 5])
def db(request: pytest.FixtureRequest, config: Settings, region: str) -> Iterator[Database]:
    database = connect(replace(config.hot, protocol_version=request.param))
    try:
        messages.create_tables(database, region, Tier.HOT, WEEK, 1)
        database.write(messages.batches(region, Tier.HOT, WEEK, made()))
        yield database
    finally:
        database.session.cluster.shutdown()


def query(region: str, table: Table) -> str:
    where = "WHERE token(conversation_id) > ? AND token(conversation_id) <= ?"
    return f"SELECT {', '.join(table.names)} FROM {region}_hot.{table.name}{WEEK} {where}"


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@pytest.mark.parametrize(("ranges", "in_flight", "page_rows"), [(1, 1, 1000), (1, 4, 7), (8, 3, 7), (8, 20, 1)])
def test_every_row_of_every_range_is_what_the_driver_says(
    db: Database, region: str, table: Table, ranges: int, in_flight: int, page_rows: int
) -> None:
    asked = [ring.cut(part, ranges) for part in range(ranges)]
    with raw(db) as opened:
        found = list(drain(opened, query(region, table), asked, in_flight, page_rows))
    columns = [
        tuple(column[2:4]) for column in db.bind(query(region, table), (0, 0)).prepared_statement.result_metadata
    ]
    for tokens in asked:
        batches = [batch for of, batch in found if of == tokens]
        theirs = arrow(columns, db.rows(query(region, table), (tokens.start, tokens.end)))
        assert pa.Table.from_batches(batches) == pa.Table.from_batches([theirs])
        assert all(batch.num_rows <= page_rows for batch in batches)
    whole = sum(batch.num_rows for _, batch in found)
    assert whole == {"messages_w": CONVERSATIONS * EACH, "reactions_w": 2 * (CONVERSATIONS * EACH // 4)}[table.name]


def test_no_more_pages_are_on_their_way_than_said(db: Database, region: str) -> None:
    """One of each open range, that of the batch in hand too: it was asked for before the batch was decoded."""
    with raw(db) as opened:
        flying, most, begun = Counter[str](), 0, opened.session.execute_async

        def watched(*given: Any) -> Any:
            flying["open"] += 1
            return begun(*given)

        opened.session.execute_async = watched
        found = drain(opened, query(region, MESSAGES), [ring.cut(part, 16) for part in range(16)], 3, 1000)
        for number, _ in enumerate(found, 1):
            most = max(most, flying["open"] - number)
    assert most == 3


def test_a_table_that_is_not_there_is_blocked(db: Database, region: str) -> None:
    with raw(db) as opened, pytest.raises(BlockedError):
        list(drain(opened, query(f"no_{region}", MESSAGES), [ring.WHOLE], 2, 10))


def test_what_was_prepared_names_its_columns(db: Database, region: str) -> None:
    for table in TABLES:
        assert layout_of(db.bind(query(region, table), (0, 0))).names == table.names


def test_a_scan_by_batches_has_the_rows_of_a_scan_by_rows(db: Database, region: str) -> None:
    """A reaction whose message never came is among them."""
    lone = Row(ids.conversation_uuid("pages", "lone"), next(made()).message_id)
    lone = replace(lone, reactions=(Reaction(5, lone.message_id, b"+"),))
    messages.create_tables(db, region, Tier.HOT, WEEK + 1, 1)
    db.write(messages.batches(region, Tier.HOT, WEEK + 1, [*made(), lone]))
    place = (db, region, Tier.HOT, WEEK + 1)
    found = [row for batch in scans.scan(*place, ring.WHOLE) for row in from_batch(batch)]
    wanted = list(messages.scan(*place, ring.WHOLE))
    assert lone in wanted
    assert sorted(found, key=lambda row: row.key) == sorted(wanted, key=lambda row: row.key)
    halves = [scans.scan(*place, half) for half in ring.split(ring.WHOLE, 2)]
    assert of_batches(chain(*halves)) == of_rows(wanted)


@pytest.mark.parametrize("piece_bytes", [1, 8_000, 20_000])
def test_pieces_of_any_size_are_the_whole(
    db: Database, region: str, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(scans, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(scans, "FIRST_PIECE", 3)
    place = (db, region, Tier.HOT, WEEK, ring.split(ring.WHOLE, 16)[3])
    assert of_batches(scans.scan(*place)) == of_rows(messages.scan(*place))


def cells(db: Database, region: str, week: int) -> list[list[tuple[Any, ...]]]:
    """Every cell, and when it was written."""
    found = []
    for table in TABLES:
        key = table.key.split(", ")
        written = [f"WRITETIME({name})" for name in table.names if name not in key]
        rows = db.rows(f"SELECT {', '.join([*table.names, *written])} FROM {region}_hot.{table.name}{week}")
        found.append(sorted(rows, key=lambda row: row[: len(key)]))
    return found


def test_what_is_written_by_batches_is_what_is_written_by_rows(
    db: Database, region: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Amendments whose message is not there among them; and the statements that a node has forgotten, as it does when a
    table is altered, are prepared again."""
    lone = Row(ids.conversation_uuid("pages", "lone"), next(made()).message_id, sender_id=5, body=b"late")
    lone = replace(lone, edit_id=lone.message_id, reactions=(Reaction(5, lone.message_id, b"+"),))
    rows = [*made(), lone]
    by_rows, by_batches = WEEK + 2, WEEK + 3
    for week in (by_rows, by_batches):
        messages.create_tables(db, region, Tier.HOT, week, 1)
    db.write(messages.batches(region, Tier.HOT, by_rows, rows))
    inserts.write(db, region, Tier.HOT, by_batches, to_batches(rows[:-50]))
    for table in TABLES:
        db.ddl(
            f"ALTER TABLE {region}_hot.{table.name}{by_batches} ADD spare_of_v{db.session.cluster.protocol_version} int"
        )
    with caplog.at_level("DEBUG", "cassandra.cluster"):
        inserts.write(db, region, Tier.HOT, by_batches, to_batches(rows[-50:]))
    assert "Re-preparing unrecognized prepared statement" in caplog.text
    assert cells(db, region, by_batches) == cells(db, region, by_rows)
    assert of_batches(scans.scan(db, region, Tier.HOT, by_batches, ring.WHOLE)) == of_rows(rows)


def test_batches_for_a_table_that_is_not_there(db: Database, region: str) -> None:
    with pytest.raises(MissingTableError):
        inserts.write(db, region, Tier.HOT, WEEK + 4, to_batches(made()))
