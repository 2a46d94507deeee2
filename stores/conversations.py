"""What is known of a conversation beside its weeks: which weeks, who, and the newest message.

Every write is at a derived time, so any order and any repetition converge.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

from core import ids, weeks
from schemas.events import MessageSent
from stores.cassandra import Database, Statement

# Mirrored at this instant (2005-01-01) timestamps count down: the earliest joining wins, in whichever order messages
# arrive. None lies in the future, which ScyllaDB would refuse, for messages since 1984.
_MIRROR_US = 1_104_537_600_000_000


def present(region: str, conversation_id: bytes, week: int) -> Statement:
    """Sent before the first message of that week, so that a reader never skips a week that has one."""
    written_us = int((weeks.start(week) - ids.UNIX_EPOCH).total_seconds()) * 1_000_000
    return Statement(
        f"INSERT INTO {region}_hot.conversation_weeks (conversation_id, week, present) VALUES (?, ?, true) "
        "USING TIMESTAMP ?",
        (UUID(bytes=conversation_id), week, written_us),
    )


def head(region: str, message: MessageSent) -> Statement:
    cell = (ids.to_timeuuid(message.message_id), message.sender_id, message.preview)
    return Statement(
        f"INSERT INTO {region}_hot.heads (conversation_id, head) VALUES (?, ?) USING TIMESTAMP ?",
        (UUID(bytes=message.conversation_id), cell, ids.unix_us(message.message_id)),
    )


def joined(region: str, message: MessageSent) -> Iterator[Statement]:
    """A sender is a member from the first message on; both directions."""
    joined_at = ids.instant(message.message_id)
    conversation, user_id = UUID(bytes=message.conversation_id), message.sender_id
    earlier_is_later = 2 * _MIRROR_US - ids.unix_us(message.message_id)
    yield Statement(
        f"INSERT INTO {region}_hot.members (conversation_id, user_id, joined_at) VALUES (?, ?, ?) USING TIMESTAMP ?",
        (conversation, user_id, joined_at, earlier_is_later),
    )
    yield Statement(
        f"INSERT INTO {region}_hot.memberships (user_id, conversation_id, joined_at) VALUES (?, ?, ?) "
        "USING TIMESTAMP ?",
        (user_id, conversation, joined_at, earlier_is_later),
    )


def weeks_of(db: Database, region: str, conversation_id: bytes, last_week: int | None = None) -> list[int]:
    """Weeks that hold anything, newest first, from `last_week` down."""
    bound = "" if last_week is None else " AND week <= ?"
    params = [UUID(bytes=conversation_id)] if last_week is None else [UUID(bytes=conversation_id), last_week]
    rows = db.rows(f"SELECT week FROM {region}_hot.conversation_weeks WHERE conversation_id = ?{bound}", params)
    return [week for (week,) in rows]


def members_of(db: Database, region: str, conversation_id: bytes) -> dict[int, datetime]:
    query = f"SELECT user_id, joined_at FROM {region}_hot.members WHERE conversation_id = ?"
    return {user: at.replace(tzinfo=UTC) for user, at in db.rows(query, (UUID(bytes=conversation_id),))}


def heads(db: Database, region: str, conversation_id: bytes) -> bytes | None:
    """The id of the newest message."""
    rows = db.rows(f"SELECT head FROM {region}_hot.heads WHERE conversation_id = ?", (UUID(bytes=conversation_id),))
    return ids.from_timeuuid(rows[0][0][0]) if rows else None
