"""Rows and how they merge: cell by cell at derived times, so that any order of the same events gives the same row.

A `Row` is the canonical row of `schemas.tables.CANONICAL`. An event is a row too, with only the cells it sets;
applying it is merging. `merge` is commutative, associative and idempotent, and agrees with Cassandra's
last-writer-wins over the week tables, ties included: the greater cell value wins.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from typing import Protocol, TypeVar

from core import ids
from schemas.events import Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet


@dataclass(frozen=True)
class Reaction:
    """`reaction` None: taken back. The cell stays, or an older reaction could return."""

    user_id: int
    event_id: bytes
    reaction: bytes | None


@dataclass(frozen=True)
class Row:
    """`body` is the latest edit's where `edit_id` is set.

    `message_type` None: an amendment whose message is not here. Its `sender_id` is then that of its edits, so that
    what they say is never without its author.
    """

    conversation_id: bytes
    message_id: bytes
    sender_id: int | None = None
    message_type: int | None = None
    body: bytes | None = None
    media_ref: str | None = None
    reply_to: bytes | None = None
    edit_id: bytes | None = None
    deleted: bool = False
    server_ts: datetime | None = None
    reactions: tuple[Reaction, ...] = ()

    @property
    def key(self) -> tuple[bytes, bytes]:
        return self.conversation_id, self.message_id

    @property
    def is_message(self) -> bool:
        return self.message_type is not None


def row_of(event: Event) -> Row:
    """The cells that one event sets."""
    row = Row(event.conversation_id, event.message_id)
    match event:
        case MessageSent():
            return replace(
                row,
                sender_id=event.sender_id,
                message_type=event.message_type,
                body=event.body,
                media_ref=event.media_ref,
                reply_to=event.reply_to,
                server_ts=event.server_ts,
            )
        case MessageEdited():
            return replace(row, sender_id=event.user_id, edit_id=event.event_id, body=event.body)
        case MessageDeleted():
            return replace(row, deleted=True)
        case ReactionSet():
            return replace(row, reactions=(Reaction(event.user_id, event.event_id, event.reaction),))


def merge(a: Row, b: Row) -> Row:
    """Both rows have the same key."""
    edited = _later_edit(a, b)
    merged = Row(
        a.conversation_id,
        a.message_id,
        sender_id=_sender(a, b),
        message_type=_greater(a.message_type, b.message_type),
        body=edited.body if edited else _greater(a.body, b.body),
        media_ref=_greater(a.media_ref, b.media_ref),
        reply_to=_greater_timeuuid(a.reply_to, b.reply_to),
        edit_id=edited.edit_id if edited else None,
        deleted=a.deleted or b.deleted,
        server_ts=_greater(a.server_ts, b.server_ts),
        reactions=_merge_reactions(a.reactions + b.reactions),
    )
    return canonical(merged)


def canonical(row: Row) -> Row:
    """A deleted row keeps who and when, never what."""
    if not row.deleted:
        return row
    return replace(row, body=None, media_ref=None, edit_id=None, reactions=())


def merge_all(rows: Iterable[Row]) -> dict[tuple[bytes, bytes], Row]:
    merged: dict[tuple[bytes, bytes], Row] = {}
    for row in rows:
        known = merged.get(row.key)
        merged[row.key] = merge(known, row) if known else canonical(row)
    return merged


def laid_over(rows: Iterable[Row], amendments: Mapping[tuple[bytes, bytes], Row]) -> Iterator[Row]:
    """`rows` (one per key) with amendments merged in; those that found no row come last, as rows of their own."""
    unseen = dict(amendments)
    for row in rows:
        amendment = unseen.pop(row.key, None)
        yield merge(row, amendment) if amendment else row
    yield from unseen.values()


def apply(row: Row, events: Iterable[Event]) -> Row:
    return reduce(merge, map(row_of, events), canonical(row))


def visible(rows: Iterable[Row]) -> Iterator[Row]:
    """What a person may see: messages that were not deleted, without reactions that were taken back."""
    for row in rows:
        if row.is_message and not row.deleted:
            yield replace(row, reactions=tuple(r for r in row.reactions if r.reaction is not None))


def cell_order(event_id: bytes, value: bytes | None) -> tuple[int, bytes, bytes]:
    """Sorts cells as Cassandra does a frozen (timeuuid, blob): by write timestamp, then by the bytes as stored."""
    return ids.unix_us(event_id), ids.to_timeuuid(event_id).bytes, _length_prefixed(value)


def _length_prefixed(value: bytes | None) -> bytes:
    """Null has the length -1, whose bytes are above those of any other."""
    return b"\xff\xff\xff\xff" if value is None else len(value).to_bytes(4, "big") + value


def _sender(a: Row, b: Row) -> int | None:
    """Who sent the message, whoever edited it. A message is never without its sender."""
    if a.is_message != b.is_message:
        return a.sender_id if a.is_message else b.sender_id
    return _greater(a.sender_id, b.sender_id)


def _later_edit(a: Row, b: Row) -> Row | None:
    edits = [row for row in (a, b) if row.edit_id is not None]
    return max(edits, key=lambda row: cell_order(row.edit_id or b"", row.body), default=None)


def _merge_reactions(reactions: Iterable[Reaction]) -> tuple[Reaction, ...]:
    latest: dict[int, Reaction] = {}
    for reaction in sorted(reactions, key=lambda r: cell_order(r.event_id, r.reaction)):
        latest[reaction.user_id] = reaction
    return tuple(latest[user_id] for user_id in sorted(latest))


_T = TypeVar("_T", bound="_Ordered")


class _Ordered(Protocol):
    def __lt__(self: _T, other: _T, /) -> bool: ...


def _greater(a: _T | None, b: _T | None) -> _T | None:
    """Cells of a message are written once; two values could only come from a broken writer, and then order decides."""
    if a is None or b is None:
        return b if a is None else a
    return b if a < b else a


def _greater_timeuuid(a: bytes | None, b: bytes | None) -> bytes | None:
    """By the bytes that Cassandra stores, which are not in time order."""
    if a is None or b is None:
        return b if a is None else a
    return max(a, b, key=lambda ordered: ids.to_timeuuid(ordered).bytes)
