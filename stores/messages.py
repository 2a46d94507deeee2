"""Week tables: rows in, rows out. A row here is `core.overlay.Row`; ids become TIMEUUIDs only at this boundary.

Every cell is written at the time of the id that caused it, nulls stay unset, and nothing is ever deleted singly,
so writing a row twice, late, or in parts gives the same cells.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from core import ids, ring
from core.overlay import Reaction, Row, canonical, merge
from core.steps import irreversible
from core.tiers import Tier
from schemas.tables import MESSAGES, REACTIONS, WEEK_TABLES, Table
from stores.cassandra import UNSET, Database, Level, Statement, bounded

PAGE_ROWS = 2000
_ID_NAMESPACE = UUID("6f1a0c52-6669-726e-8000-7765656b7462")


def keyspace(region: str, tier: Tier) -> str:
    return f"{region}_{tier}"


def create_tables(db: Database, region: str, tier: Tier, week: int, generation: int) -> None:
    """Table ids are derived, so two makers at once make the same tables. Runs under the DDL lease."""
    for table in WEEK_TABLES:
        name = f"{keyspace(region, tier)}.{table.name}{week}"
        table_id = uuid5(_ID_NAMESPACE, f"{name}.{generation}")
        db.ddl(table.ddl(keyspace(region, tier), str(week), f"id = {table_id}"))


@irreversible("tables: dropped")
def drop_tables(db: Database, region: str, tier: Tier, week: int) -> None:
    for table in WEEK_TABLES:
        db.ddl(f"DROP TABLE IF EXISTS {keyspace(region, tier)}.{table.name}{week}")


def existing_tables(db: Database, region: str, tier: Tier) -> frozenset[str]:
    rows = db.rows("SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?", (keyspace(region, tier),))
    return frozenset(name for (name,) in rows)


def drift(db: Database, region: str, tier: Tier, week: int) -> list[str]:
    """A sentence for each column of the week's tables that is not as it is declared: added, missing, of another type.
    The tables are there."""
    query = "SELECT column_name, type FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?"
    found = []
    for table in WEEK_TABLES:
        name = f"{keyspace(region, tier)}.{table.name}{week}"
        columns: dict[str, str] = dict(db.rows(query, (keyspace(region, tier), f"{table.name}{week}")))
        found += [f"table {name} {how}" for how in drifted(table, columns)]
    return found


def drifted(table: Table, columns: Mapping[str, str]) -> list[str]:
    """`columns` are those of the database, by name, with their types."""
    declared = {column.name: column.cql for column in table.columns}
    added = [f"has a column {name} that is not declared" for name in sorted(columns.keys() - declared.keys())]
    missing = [f"lacks the column {name}" for name in sorted(declared.keys() - columns.keys())]
    other = [
        f"has {name} as {columns[name]}, not {kind}"
        for name, kind in declared.items()
        if name in columns and columns[name] != kind
    ]
    return missing + other + added


def table_names(week: int) -> list[str]:
    return [f"{table.name}{week}" for table in WEEK_TABLES]


class Inserts(NamedTuple):
    """The four writes into a week's tables: a message's cells, who edited one that is not here, an edit, a reaction."""

    message: str
    author: str
    edit: str
    reaction: str


def inserts(region: str, tier: Tier, week: int) -> Inserts:
    space = keyspace(region, tier)
    return Inserts(
        _insert(
            f"{space}.{MESSAGES.name}{week}",
            *("sender_id", "message_type", "body", "media_ref", "reply_to", "deleted", "server_ts"),
        ),
        _insert(f"{space}.{MESSAGES.name}{week}", "sender_id"),
        _insert(f"{space}.{MESSAGES.name}{week}", "edit"),
        _insert(f"{space}.{REACTIONS.name}{week}", "user_id", "reaction"),
    )


def _insert(table: str, *columns: str) -> str:
    named = ("conversation_id", "message_id", *columns)
    marks = ", ".join("?" for _ in named)
    return f"INSERT INTO {table} ({', '.join(named)}) VALUES ({marks}) USING TIMESTAMP ?"


def batches(region: str, tier: Tier, week: int, rows: Iterable[Row]) -> Iterator[list[Statement]]:
    """Batches of one conversation each; `rows` of one conversation should come together."""
    into = inserts(region, tier, week)
    for _, of_conversation in groupby(rows, key=lambda row: row.conversation_id):
        yield from bounded(statement for row in of_conversation for statement in statements(into, row))


def statements(into: Inserts, row: Row) -> Iterator[Statement]:
    """The writes that make `row`: its message's cells, its edit's, its reactions', each at its own time.

    Who edited a message that is not here is written a microsecond before the message: its own sender wins.
    `stores.inserts` does the same for whole batches.
    """
    key = (UUID(bytes=row.conversation_id), ids.to_timeuuid(row.message_id))
    written_us = ids.unix_us(row.message_id)
    if row.is_message or row.deleted:
        yield Statement(into.message, (*key, *_cells(row), written_us))
    if row.sender_id is not None and not row.is_message:
        yield Statement(into.author, (*key, row.sender_id, written_us - 1))
    if row.edit_id and not row.deleted:
        edit = ids.to_timeuuid(row.edit_id), row.body
        yield Statement(into.edit, (*key, edit, ids.unix_us(row.edit_id)))
    for one in row.reactions:
        reaction = ids.to_timeuuid(one.event_id), one.reaction
        yield Statement(into.reaction, (*key, one.user_id, reaction, ids.unix_us(one.event_id)))


def _cells(row: Row) -> Iterator[Any]:
    """Of a message that was sent, or of one of which only the deletion is known."""
    yield _unset(row.sender_id if row.is_message else None)
    yield _unset(row.message_type)
    yield UNSET if row.edit_id else _unset(row.body)
    yield _unset(row.media_ref)
    yield _unset(row.reply_to and ids.to_timeuuid(row.reply_to))
    yield row.deleted or UNSET
    yield _unset(row.server_ts)


def scan(
    db: Database, region: str, tier: Tier, week: int, tokens: ring.Range, level: Level = Level.QUORUM
) -> Iterator[Row]:
    """Canonical rows of a token range, in token order, newest first within a conversation; constant memory."""
    space = keyspace(region, tier)
    where = "WHERE token(conversation_id) > ? AND token(conversation_id) <= ?"
    params = (tokens.start, tokens.end)
    messages = f"SELECT {', '.join(MESSAGES.names)} FROM {space}.{MESSAGES.name}{week} {where}"
    reactions = f"SELECT {', '.join(REACTIONS.names)} FROM {space}.{REACTIONS.name}{week} {where}"
    return _joined(
        (_row(values) for page in db.pages(messages, params, PAGE_ROWS, level) for values in page),
        _reacted(values for page in db.pages(reactions, params, PAGE_ROWS, level) for values in page),
    )


def require_all(db: Database, region: str, tier: Tier, week: int, conversation_id: bytes) -> None:
    """BlockedError while a replica of this conversation is away: then nothing can be read from all of them."""
    query = f"SELECT message_id FROM {keyspace(region, tier)}.{MESSAGES.name}{week} WHERE conversation_id = ? LIMIT 1"
    db.rows(query, (UUID(bytes=conversation_id),), Level.ALL)


def holds(db: Database, region: str, tier: Tier, week: int, row: Row) -> bool:
    """Whether the table has every cell of `row`, or a later one."""
    found = read_one(db, region, tier, week, row.conversation_id, row.message_id)
    return found is not None and merge(found, row) == found


def read_one(db: Database, region: str, tier: Tier, week: int, conversation_id: bytes, message_id: bytes) -> Row | None:
    key = (UUID(bytes=conversation_id), ids.to_timeuuid(message_id))
    where = "WHERE conversation_id = ? AND message_id = ?"
    space = keyspace(region, tier)
    rows = db.rows(f"SELECT {', '.join(MESSAGES.names)} FROM {space}.{MESSAGES.name}{week} {where}", key)
    reacted = db.rows(f"SELECT {', '.join(REACTIONS.names)} FROM {space}.{REACTIONS.name}{week} {where}", key)
    return next(_joined(map(_row, rows), _reacted(reacted)), None)


def read(
    db: Database, region: str, tier: Tier, week: int, conversation_id: bytes, before: bytes | None, limit: int
) -> list[Row]:
    """Up to `limit` canonical rows of one conversation, newest first, with ids below `before`."""
    space = keyspace(region, tier)
    conversation = UUID(bytes=conversation_id)
    bound, params = (
        ("", [conversation]) if before is None else (" AND message_id < ?", [conversation, ids.to_timeuuid(before)])
    )
    where = f"WHERE conversation_id = ?{bound}"
    rows = db.rows(
        f"SELECT {', '.join(MESSAGES.names)} FROM {space}.{MESSAGES.name}{week} {where} LIMIT ?", (*params, limit)
    )
    last = rows[-1][1] if len(rows) == limit else None
    lower, bounds = ("", params) if last is None else (" AND message_id >= ?", [*params, last])
    found = db.rows(f"SELECT {', '.join(REACTIONS.names)} FROM {space}.{REACTIONS.name}{week} {where}{lower}", bounds)
    return list(_joined(map(_row, rows), _reacted(found)))


def _joined(messages: Iterator[Row], reacted: Iterator[Row]) -> Iterator[Row]:
    """Two streams in one order, joined by key; a reaction whose message is not there makes a row of its own."""
    pending, reaction = next(messages, None), next(reacted, None)
    while pending or reaction:
        if reaction is None or (pending and _order(pending) < _order(reaction)):
            assert pending is not None
            yield canonical(pending)
            pending = next(messages, None)
        elif pending is None or _order(reaction) < _order(pending):
            yield reaction
            reaction = next(reacted, None)
        else:
            yield canonical(replace(pending, reactions=reaction.reactions))
            pending, reaction = next(messages, None), next(reacted, None)


def _order(row: Row) -> tuple[int, bytes, int]:
    return ring.token(row.conversation_id), row.conversation_id, -int.from_bytes(row.message_id, "big")


def _row(values: tuple[Any, ...]) -> Row:
    conversation, message, sender, kind, body, media, reply_to, edit, deleted, server_ts = values
    return Row(
        conversation.bytes,
        ids.from_timeuuid(message),
        sender_id=sender,
        message_type=kind,
        body=edit[1] if edit else body,
        media_ref=media,
        reply_to=ids.from_timeuuid(reply_to) if reply_to else None,
        edit_id=ids.from_timeuuid(edit[0]) if edit else None,
        deleted=bool(deleted),
        server_ts=_utc(server_ts),
    )


def _reacted(found: Iterable[tuple[Any, ...]]) -> Iterator[Row]:
    """One row per message, its reactions by user."""
    for (conversation, message), group in groupby(found, key=lambda values: values[:2]):
        reactions = tuple(Reaction(user, ids.from_timeuuid(cell[0]), cell[1]) for _, _, user, cell in group)
        yield Row(conversation.bytes, ids.from_timeuuid(message), reactions=reactions)


def _unset(value: Any) -> Any:
    return UNSET if value is None else value


def _utc(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value else None
