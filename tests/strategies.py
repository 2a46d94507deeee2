"""Hypothesis strategies that all tests share."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from core import ids, weeks
from core.topics import Record
from schemas.events import Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet

EARLIEST = datetime(2015, 1, 1)  # naive, as hypothesis wants its bounds
LATEST = datetime(2040, 1, 1)

instants = st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC))
milliseconds = instants.map(lambda when: when.replace(microsecond=when.microsecond // 1000 * 1000))
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
)
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
