"""Every column that could hold a person's bytes, declared once; DDL, Arrow schemas and checks derive from here.

Tags: `subject` names a person; `personal` is about a person; `ciphertext` is bytes that only devices can read;
`region` ties the row to where it may lie; `plain` is none of these. Each column has at least one.
"""

from dataclasses import dataclass
from typing import Any

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
_FIELDS: "list[pa.Field[Any]]" = [
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
CANONICAL = pa.schema(_FIELDS)


def _field(name: str, kind: pa.DataType, tags: str, nullable: bool = False) -> "pa.Field[Any]":
    return pa.field(name, kind, nullable=nullable, metadata={"tags": tags})


# A frozen row: the key in clear, so that it can be found; a random reference in place of the person; all else sealed
# under the key of whom it is about (core/sealing.py says how).
FROZEN_ROW = pa.schema(
    [
        _field("conversation_id", ID, "personal"),
        _field("message_id", ID, "personal"),
        _field("subject", pa.binary(), "personal"),
        _field("sealed", pa.binary(), "ciphertext"),
        pa.field(
            "reactions",
            pa.list_(
                pa.struct([pa.field("subject", pa.binary(), nullable=False), pa.field("sealed", pa.binary(), False)])
            ),
            metadata={"tags": "personal,ciphertext"},
        ),
    ]
)

# The manifest of frozen objects: one row per (week, generation, shard).
FROZEN_MANIFEST = pa.schema(
    [
        _field("shard", pa.int32(), "plain"),
        _field("shards", pa.int32(), "plain"),
        _field("object", pa.string(), "plain"),
        _field("size_bytes", pa.int64(), "plain"),
        _field("rows", pa.int64(), "plain"),
        _field("digest", pa.string(), "plain"),
        _field("sha256", pa.string(), "plain"),
        _field("storage_class", pa.string(), "plain"),
        _field("frozen_at", INSTANT, "plain"),
    ]
)

# What an import could not keep: where in which file it stood, why, and the row itself as JSON.
QUARANTINE = pa.schema(
    [
        _field("source", pa.string(), "personal"),  # people name files after people
        _field("line", pa.int64(), "plain"),
        _field("reason", pa.string(), "plain"),
        _field("row", pa.binary(), "subject,personal,ciphertext"),
    ]
)

_REGION = Column("region", "text", ("region",))


def _plain(**columns: str) -> tuple[Column, ...]:
    return tuple(Column(name, cql, ("plain",)) for name, cql in columns.items())


# The ledger. Its DDL is schemas/cql/0001_ledger.cql; what is declared here must agree with it.
ROUTES = Table("routes", "region", (_REGION, *_plain(route="bigint", first_week="int")))
LEASES = Table("leases", "name", _plain(name="text", holder="text", epoch="bigint", expires_at="timestamp"))
WEEKS = Table(
    "weeks", "(region), week, tier", (_REGION, *_plain(week="int", tier="text", generation="int", state="text"))
)
MOVES = Table(
    "moves",
    "(region), week, slice",
    (
        _REGION,
        *_plain(week="int", slice="int", source="text", sink="text", state="text", epoch="bigint", revision="bigint"),
        *_plain(shards="int", route="bigint", commits="int", settled="boolean"),
        *_plain(sealed_at="timestamp", switched_at="timestamp", generation="int"),
    ),
)
MOVE_PARTS = Table(
    "move_parts",
    "(region, week, slice), source, shard",
    (
        _REGION,
        *_plain(week="int", slice="int", source="text", shard="int", epoch="bigint", path="text", rows="bigint"),
        *_plain(bytes="bigint", digest="text", sha256="text", verified="boolean"),
    ),
)
POINTERS = Table(
    "pointers",
    "(region, week, slice), shards, shard",
    (
        _REGION,
        *_plain(week="int", slice="int", shards="int", shard="int", path="text", version="bigint", rows="bigint"),
        *_plain(bytes="bigint", sha256="text", digest="text"),
    ),
)
# What waits below: schemas/cql/0003_lower_tiers.cql.
RUNS = Table(
    "runs",
    "(region, week, slice), name",
    (
        _REGION,
        *_plain(week="int", slice="int", name="text", path="text", rows="bigint", bytes="bigint", sha256="text"),
        *_plain(digest="text", folded="boolean"),
    ),
)
FROZEN = Table(
    "frozen",
    "(region, week, slice), generation, shard",
    (
        _REGION,
        *_plain(week="int", slice="int", generation="int", shard="int", epoch="bigint", shards="int", path="text"),
        *_plain(rows="bigint", bytes="bigint", sha256="text", digest="text", storage_class="text"),
        *_plain(frozen_at="timestamp"),
    ),
)
VERDICTS = Table(
    "verdicts",
    "(region, week), slice",
    (
        _REGION,
        *_plain(week="int", slice="int", files="text", suite="text", passed="boolean", failed="text"),
        *_plain(judged_at="timestamp"),
    ),
)
# Made by the first migration itself.
MIGRATIONS = Table("migrations", "name", _plain(name="text"))
META_TABLES = (ROUTES, LEASES, WEEKS, MOVES, MOVE_PARTS, POINTERS, RUNS, FROZEN, VERDICTS, MIGRATIONS)

PERSON_KEYS = Table(
    "person_keys",
    "user_id",
    (
        Column("user_id", "bigint", ("subject",)),
        Column("wrapped", "blob", ("subject", "ciphertext")),
        *_plain(wrapped_by="text", destroyed="boolean"),
    ),
)
SUBJECTS = Table(
    "subjects",
    "(object), reference",
    (
        *_plain(object="text"),
        Column("reference", "blob", ("personal", "ciphertext")),
        Column("user_id", "bigint", ("subject",)),
    ),
)
VAULT_TABLES = (PERSON_KEYS, SUBJECTS)

# What is known of a conversation beside its week tables: schemas/cql/0002_conversations.cql.
LANE = Table(
    "lane",
    "(region, week, ring_slice), conversation_id, message_id, event_id, user_id",
    (
        _REGION,
        *_plain(week="int", ring_slice="int"),
        Column("conversation_id", "uuid", ("personal",)),
        Column("message_id", "timeuuid", ("personal",)),
        Column("event_id", "timeuuid", ("personal",)),
        Column("user_id", "bigint", ("subject",)),
        Column("event", "blob", ("subject", "personal", "ciphertext")),
    ),
)
CONVERSATION_WEEKS = Table(
    "conversation_weeks",
    "conversation_id, week",
    (
        Column("conversation_id", "uuid", ("personal",)),
        Column("week", "int", ("personal",)),
        Column("present", "boolean", ("plain",)),
    ),
    "CLUSTERING ORDER BY (week DESC)",
)
MEMBERS = Table(
    "members",
    "conversation_id, user_id",
    (
        Column("conversation_id", "uuid", ("personal",)),
        Column("user_id", "bigint", ("subject",)),
        Column("role", "tinyint", ("personal",)),
        Column("joined_at", "timestamp", ("personal",)),
        Column("left_at", "timestamp", ("personal",)),
    ),
)
MEMBERSHIPS = Table(
    "memberships",
    "user_id, conversation_id",
    (
        Column("user_id", "bigint", ("subject",)),
        Column("conversation_id", "uuid", ("personal",)),
        Column("joined_at", "timestamp", ("personal",)),
    ),
)
HEADS = Table(
    "heads",
    "conversation_id",
    (
        Column("conversation_id", "uuid", ("personal",)),
        Column("head", "frozen<tuple<timeuuid, bigint, blob>>", ("subject", "personal", "ciphertext")),
    ),
)
HOT_TABLES = (LANE, CONVERSATION_WEEKS, MEMBERS, MEMBERSHIPS, HEADS)
