"""Hypothesis strategies that all tests share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeVar

from hypothesis import strategies as st

from core import ids, weeks
from core.moves import MOVES, THAWS, State, Unit
from core.overlay import Reaction, Row, canonical
from core.topics import Record
from schemas.events import Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet

T = TypeVar("T")
EARLIEST = datetime(2015, 1, 1)  # naive, as hypothesis wants its bounds
LATEST = datetime(2040, 1, 1)

instants = st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC))


def _in_milliseconds(when: datetime) -> datetime:
    return when.replace(microsecond=when.microsecond // 1000 * 1000)


milliseconds = instants.map(_in_milliseconds)
week_numbers = st.integers(weeks.of_instant(EARLIEST.replace(tzinfo=UTC)), weeks.of_instant(LATEST.replace(tzinfo=UTC)))
clocks = st.integers(0, 2**16 - 1)
nodes = st.integers(0, 2**48 - 1)
users = st.integers(0, 2**63 - 1)
bodies = st.binary(max_size=64)
texts = st.text(st.characters(codec="utf-8"), max_size=20)


def ids_at(when: st.SearchStrategy[datetime]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda at, clock, node: ids.compose((at - ids.UNIX_EPOCH) // timedelta(microseconds=1), clock, node),
        when,
        clocks,
        nodes,
    )


ordered_ids = ids_at(instants)
conversation_ids = st.builds(ids.conversation_uuid, texts, texts)
tokens = st.integers(-(2**63) + 1, 2**63 - 1)

messages = st.builds(
    MessageSent,
    conversation_id=conversation_ids,
    message_id=ordered_ids,
    sender_id=users,
    message_type=st.integers(0, 127),
    body=st.none() | bodies,
    media_ref=st.none() | texts,
    reply_to=st.none() | ordered_ids,
    preview=st.none() | bodies,
    server_ts=milliseconds,
).map(lambda sent: replace(sent, server_ts=_in_milliseconds(ids.instant(sent.message_id))))
_amended = {
    "conversation_id": conversation_ids,
    "message_id": ordered_ids,
    "event_id": ordered_ids,
    "user_id": users,
}
edits = st.builds(MessageEdited, **_amended, body=st.none() | bodies)
deletions = st.builds(MessageDeleted, **_amended)
reactions = st.builds(ReactionSet, **_amended, reaction=st.none() | bodies)
amendments: st.SearchStrategy[Event] = st.one_of(edits, deletions, reactions)
events: st.SearchStrategy[Event] = st.one_of(messages, edits, deletions, reactions)
records = st.builds(
    Record,
    topic=st.just("messages.us.direct"),
    partition=st.integers(0, 7),
    offset=st.integers(0, 2**40),
    timestamp_ms=st.integers(0, 2**41),
    key=conversation_ids,
    value=st.binary(max_size=64),
)

# A crowded week: few people, few ids, few microseconds, so that ties, orphans and replays are the rule.
CROWDED_WEEK = 2913
_CROWDED_US = (weeks.start(CROWDED_WEEK) - ids.UNIX_EPOCH) // timedelta(microseconds=1) + 3_600_000_000
_few_ids = st.builds(ids.compose, st.integers(_CROWDED_US, _CROWDED_US + 2), st.integers(0, 1), st.integers(0, 1))
_few_values = st.none() | st.sampled_from([b"", b"a", b"b", b"ab"])
_few_instants = st.sampled_from([weeks.start(CROWDED_WEEK) + timedelta(milliseconds=n) for n in range(2)])


def crowded_events(conversations: Sequence[bytes], unique_ids: bool = False) -> st.SearchStrategy[list[Event]]:
    """A history in no order; unless `unique_ids`, an id may even come back with another content."""
    conversation = st.sampled_from(conversations)
    amended = {
        "conversation_id": conversation,
        "message_id": _few_ids,
        "event_id": ordered_ids if unique_ids else _few_ids,
        "user_id": st.integers(1, 3),
    }
    sent = st.builds(
        MessageSent,
        conversation_id=conversation,
        message_id=_few_ids,
        sender_id=st.integers(1, 3),
        message_type=st.integers(0, 2),
        body=_few_values,
        media_ref=st.none() | st.sampled_from(["", "a", "b"]),
        reply_to=st.none() | _few_ids,
        preview=st.none(),
        server_ts=_few_instants,
    )
    event = st.one_of(
        sent,
        st.builds(MessageEdited, **amended, body=_few_values),
        st.builds(MessageDeleted, **amended),
        st.builds(ReactionSet, **amended, reaction=_few_values),
    )
    key: Callable[[Event], object] | None = (lambda e: (e.conversation_id, e.event_id)) if unique_ids else None
    return st.lists(event, max_size=24, unique_by=key)


def shuffled_in_chunks(items: st.SearchStrategy[list[T]]) -> st.SearchStrategy[tuple[list[T], list[list[T]]]]:
    """Items, and the same items replayed in part, in any order and any split."""
    return items.flatmap(_chunks)


def _chunks(items: list[T]) -> st.SearchStrategy[tuple[list[T], list[list[T]]]]:
    replayed = st.lists(st.sampled_from(items), max_size=4) if items else st.just([])
    ordered = replayed.flatmap(lambda again: st.permutations([*items, *again]))
    cuts = st.lists(st.integers(0, len(items)), max_size=4).map(sorted)
    return st.builds(_cut, st.just(items), ordered, cuts)


def _cut(items: list[T], ordered: list[T], cuts: list[int]) -> tuple[list[T], list[list[T]]]:
    bounds = [0, *cuts, len(ordered)]
    return items, [ordered[start:end] for start, end in pairwise(bounds)]


_reactions_on = st.lists(
    st.builds(Reaction, user_id=users, event_id=ordered_ids, reaction=st.none() | bodies),
    max_size=4,
    unique_by=lambda reaction: reaction.user_id,
).map(lambda found: tuple(sorted(found, key=lambda reaction: reaction.user_id)))
rows = st.builds(
    Row,
    conversation_id=conversation_ids,
    message_id=ordered_ids,
    sender_id=st.none() | users,
    message_type=st.none() | st.integers(0, 127),
    body=st.none() | bodies,
    media_ref=st.none() | texts,
    reply_to=st.none() | ordered_ids,
    edit_id=st.none() | ordered_ids,
    deleted=st.booleans(),
    server_ts=st.none() | milliseconds,
    reactions=_reactions_on,
).map(canonical)

units = st.builds(
    Unit,
    region=st.just("us"),
    week=week_numbers,
    slice=st.just(0),
    move=st.sampled_from((*MOVES, *THAWS)),
    state=st.sampled_from(State),
    epoch=st.integers(0, 9),
    revision=st.integers(0, 9),
    shards=st.sampled_from([0, 1, 2, 4]),
    route=st.integers(0, 9),
    settled=st.booleans(),
    switched_at=st.none() | instants,
    generation=st.integers(0, 2),
    hold_until=st.none() | instants,
)
