"""Every column that could hold a person's bytes, declared once; DDL, Arrow schemas and checks derive from here.

Tags: `subject` names a person; `personal` is about a person; `ciphertext` is bytes that only devices can read;
`region` ties the row to where it may lie; `plain` is none of these. Each column has at least one.
"""

from dataclasses import dataclass

import pyarrow as pa

ID = pa.binary()
INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Column:
    name: str
    cql: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """`key` is the CQL primary key; `name` of a week table is completed by the week's number."""

    name: str
    key: str
    columns: tuple[Column, ...]
    options: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def ddl(self, keyspace: str, suffix: str = "", options: str = "") -> str:
        columns = ", ".join(f"{column.name} {column.cql}" for column in self.columns)
        clauses = " AND ".join(clause for clause in (self.options, options) if clause)
        with_ = f" WITH {clauses}" if clauses else ""
        return f"CREATE TABLE IF NOT EXISTS {keyspace}.{self.name}{suffix} ({columns}, PRIMARY KEY ({self.key})){with_}"


# One-day windows: a week table is dropped whole, so windows never hold a tombstone of another week.
_WEEK_OPTIONS = (
    "compaction = {'class': 'TimeWindowCompactionStrategy', "
    "'compaction_window_unit': 'DAYS', 'compaction_window_size': 1}"
)

MESSAGES = Table(
    "messages_w",
    "conversation_id, message_id",
    (
        Column("conversation_id", "uuid", ("personal",)),
        Column("message_id", "timeuuid", ("personal",)),
        Column("sender_id", "bigint", ("subject",)),
        Column("message_type", "tinyint", ("personal",)),
        Column("body", "blob", ("ciphertext",)),
        Column("media_ref", "text", ("personal",)),
        Column("reply_to", "timeuuid", ("personal",)),
        # (edit_id, body): one cell, so that two edits at one instant cannot mix.
        Column("edit", "frozen<tuple<timeuuid, blob>>", ("ciphertext",)),
        Column("deleted", "boolean", ("personal",)),
        Column("server_ts", "timestamp", ("personal",)),
    ),
    "CLUSTERING ORDER BY (message_id DESC) AND " + _WEEK_OPTIONS,
)

REACTIONS = Table(
    "reactions_w",
    "conversation_id, message_id, user_id",
    (
        Column("conversation_id", "uuid", ("personal",)),
        Column("message_id", "timeuuid", ("personal",)),
        Column("user_id", "bigint", ("subject",)),
        # (event_id, reaction); a removal is a cell with a null reaction, never a tombstone.
        Column("reaction", "frozen<tuple<timeuuid, blob>>", ("ciphertext",)),
    ),
    "CLUSTERING ORDER BY (message_id DESC, user_id ASC) AND " + _WEEK_OPTIONS,
)

WEEK_TABLES = (MESSAGES, REACTIONS)

# The canonical row: what copy, digest, reader, cold file and export agree on.
# Ids are 16 bytes in time order (UUIDv6 layout). A row whose sender is null is an amendment
# that came before its message; it is kept, hidden from readers, and counted.
CANONICAL = pa.schema(
    [
        pa.field("conversation_id", ID, nullable=False, metadata={"tags": "personal"}),
        pa.field("message_id", ID, nullable=False, metadata={"tags": "personal"}),
        pa.field("sender_id", pa.int64(), metadata={"tags": "subject"}),
        pa.field("message_type", pa.int8(), metadata={"tags": "personal"}),
        pa.field("body", pa.binary(), metadata={"tags": "ciphertext"}),
        pa.field("media_ref", pa.string(), metadata={"tags": "personal"}),
        pa.field("reply_to", ID, metadata={"tags": "personal"}),
        pa.field("edit_id", ID, metadata={"tags": "personal"}),
        pa.field("deleted", pa.bool_(), nullable=False, metadata={"tags": "personal"}),
        pa.field("server_ts", INSTANT, metadata={"tags": "personal"}),
        pa.field(
            "reactions",
            pa.list_(
                pa.struct(
                    [
                        pa.field("user_id", pa.int64(), nullable=False),
                        pa.field("event_id", ID, nullable=False),
                        pa.field("reaction", pa.binary()),
                    ]
                )
            ),
            metadata={"tags": "subject,ciphertext"},
        ),
    ]
)
