"""Week tables and the lane give back what the pure rules say, in whatever order, split and repetition."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core import ids, ring
from core.overlay import Reaction, Row, merge, merge_all, row_of
from core.settings import Settings
from core.tiers import Tier
from schemas.events import Event, MessageEdited
from stores import messages
from stores.cassandra import BATCH_BYTES, BATCH_STATEMENTS, Databases, MissingTableError, connected
from stores.lane import Lane, key_of
from tests.strategies import CROWDED_WEEK as WEEK
from tests.strategies import crowded_events, shuffled_in_chunks

pytestmark = pytest.mark.services
SLOTS = (b"\0", b"\1")
RING_SLICES = 16
FRESH = count()
few = hypothesis_settings(max_examples=40, deadline=None, derandomize=True)
written_somehow = shuffled_in_chunks(crowded_events(SLOTS))


class Place(NamedTuple):
    db: Databases
    region: str

    @property
    def lane(self) -> Lane:
        return Lane(self.db.hot, self.region, RING_SLICES)


@pytest.fixture(scope="module")
def place(config: Settings, region: str) -> Iterator[Place]:
    with connected(config) as db:
        messages.create_tables(db.hot, region, Tier.HOT, WEEK, 1)
        messages.create_tables(db.warm, region, Tier.WARM, WEEK, 1)
        yield Place(db, region)


def fresh_conversations() -> list[bytes]:
    """One per slot, unknown to every earlier example, so that nothing has to be cleaned up."""
    return [ids.conversation_uuid("example", str(next(FRESH))) for _ in SLOTS]


def moved(events: list[Event], conversations: list[bytes]) -> list[Event]:
    return [replace(event, conversation_id=conversations[SLOTS.index(event.conversation_id)]) for event in events]


def write(place: Place, tier: Tier, rows: Iterator[Row] | list[Row]) -> None:
    place.db.hot.write(messages.batches(place.region, tier, WEEK, rows))


def range_of(conversation: bytes) -> ring.Range:
    token = ring.token(conversation)
    return ring.Range(token - 1, token)


def scanned(place: Place, tier: Tier, conversations: list[bytes]) -> list[Row]:
    return [row for c in conversations for row in messages.scan(place.db.hot, place.region, tier, WEEK, range_of(c))]


def expected(events: list[Event], conversations: list[bytes]) -> list[Row]:
    """Newest first within each conversation."""
    merged = merge_all(map(row_of, events)).values()
    return sorted(merged, key=lambda row: (conversations.index(row.conversation_id), -int.from_bytes(row.message_id)))


def write_chunks(place: Place, chunks: list[list[Event]], conversations: list[bytes], merged: bool) -> None:
    """As the consumer does it, a batch merged first; or event by event."""
    for chunk in chunks:
        rows = [row_of(event) for event in moved(chunk, conversations)]
        write(place, Tier.HOT, list(merge_all(rows).values()) if merged else rows)


@few
@given(written_somehow, st.booleans())
def test_a_scan_gives_the_merged_rows(
    place: Place, written: tuple[list[Event], list[list[Event]]], merged: bool
) -> None:
    events, chunks = written
    conversations = fresh_conversations()
    write_chunks(place, chunks, conversations, merged)
    assert scanned(place, Tier.HOT, conversations) == expected(moved(events, conversations), conversations)


@few
@given(written_somehow, st.integers(1, 6), st.data())
def test_a_read_gives_the_newest_merged_rows(
    place: Place, written: tuple[list[Event], list[list[Event]]], limit: int, data: st.DataObject
) -> None:
    """Down to the last of `limit` rows that are more than reactions."""
    events, chunks = written
    conversations = fresh_conversations()
    write_chunks(place, chunks, conversations, True)
    rows = expected(moved(events, conversations), conversations)
    befores = st.none() | st.sampled_from([row.message_id for row in rows]) if rows else st.none()
    before = data.draw(befores)
    for conversation in conversations:
        below = [row for row in rows if row.conversation_id == conversation and (not before or row.message_id < before)]
        full = [n for n, row in enumerate(below) if row.is_message or row.deleted or row.edit_id]
        wanted = below[: full[limit - 1] + 1] if len(full) >= limit else below
        assert messages.read(place.db.hot, place.region, Tier.HOT, WEEK, conversation, before, limit) == wanted


@few
@given(written_somehow)
def test_one_row_is_read_whole_and_held(place: Place, written: tuple[list[Event], list[list[Event]]]) -> None:
    events, chunks = written
    conversations = fresh_conversations()
    write_chunks(place, chunks, conversations, True)
    mine = moved(events, conversations)
    at = (place.db.hot, place.region, Tier.HOT, WEEK)
    for row in expected(mine, conversations):
        assert messages.read_one(*at, *row.key) == row
    assert all(messages.holds(*at, row_of(event)) for event in mine)
    assert messages.read_one(*at, conversations[0], ids.compose(0, 0, 0)) is None


@few
@given(shuffled_in_chunks(crowded_events(SLOTS)), st.integers(0, 4))
def test_a_copy_is_the_same_rows(place: Place, written: tuple[list[Event], list[list[Event]]], split: int) -> None:
    """Also when it happens twice, while some was written to the sink already, or late."""
    events, chunks = written
    conversations = fresh_conversations()
    write_chunks(place, chunks[:split], conversations, True)
    for chunk in chunks[split:]:
        write(place, Tier.WARM, list(merge_all(map(row_of, moved(chunk, conversations))).values()))
    for _ in range(2):
        write(place, Tier.WARM, scanned(place, Tier.HOT, conversations))
    assert scanned(place, Tier.WARM, conversations) == expected(moved(events, conversations), conversations)


M, E = ids.compose(5, 0, 0), ids.compose(9, 0, 0)
VALUES = (None, b"", b"a", b"b", b"ab")
IDS_OF_AN_INSTANT = [*(ids.compose(5, clock, node) for clock in (0, 1) for node in (0, 1)), ids.compose(2**50, 0, 0)]
TIES = [
    *(Row(b"", M, edit_id=E, body=value) for value in VALUES),
    *(Row(b"", M, edit_id=edit_id, body=b"x") for edit_id in IDS_OF_AN_INSTANT),
    *(Row(b"", M, reactions=(Reaction(1, E, value),)) for value in VALUES),
    *(Row(b"", M, sender_id=editor, edit_id=E, body=b"x") for editor in (1, 2)),
    Row(b"", M, sender_id=2, deleted=True),
    *(Row(b"", M, 1, 0, body=value) for value in VALUES),
    *(Row(b"", M, 1, 0, reply_to=reply_to) for reply_to in IDS_OF_AN_INSTANT),
    *(Row(b"", M, sender_id=sender, message_type=3 - sender, media_ref="é" * sender) for sender in (1, 2)),
]


def test_ties_end_as_the_rules_say(place: Place) -> None:
    """Two values of one cell at one microsecond, which only a broken writer makes: one row all the same."""
    wanted = {}
    batches = []
    for number, (a, b) in enumerate(product(TIES, TIES)):
        conversation = ids.conversation_uuid("tie", str(number))
        rows = [replace(row, conversation_id=conversation) for row in (a, b)]
        wanted[conversation] = merge(*rows)
        batches += [list(messages.batches(place.region, Tier.HOT, WEEK, [row])) for row in rows]
    place.db.hot.write(batch for found in batches for batch in found)
    found = {row.conversation_id: row for row in messages.scan(place.db.hot, place.region, Tier.HOT, WEEK, ring.WHOLE)}
    assert {conversation: found[conversation] for conversation in wanted} == wanted


def test_shards_together_are_the_week(place: Place) -> None:
    def scan(tokens: ring.Range) -> list[Row]:
        return list(messages.scan(place.db.hot, place.region, Tier.HOT, WEEK, tokens))

    conversations = [ids.conversation_uuid("whole", str(number)) for number in range(30)]
    rows = [Row(conversation, ids.compose(1, 0, 0), 1, 0) for conversation in conversations]
    write(place, Tier.HOT, rows)
    whole = scan(ring.WHOLE)
    assert {row.conversation_id for row in whole} >= set(conversations)
    assert [row for shard in range(8) for row in scan(ring.cut(shard, 8))] == whole


def test_a_long_conversation_goes_in_several_batches(place: Place) -> None:
    (conversation, _) = fresh_conversations()
    big = b"x" * (BATCH_BYTES // 2)
    rows = [Row(conversation, ids.compose(n, 0, 0), 1, 0, body=big if n < 3 else b"") for n in range(200)]
    sent = list(messages.batches(place.region, Tier.HOT, WEEK, rows))
    assert all(len(batch) <= BATCH_STATEMENTS for batch in sent)
    assert len(sent) >= 200 / BATCH_STATEMENTS
    place.db.hot.write(sent)
    assert scanned(place, Tier.HOT, [conversation]) == rows[::-1]


def test_a_table_that_is_not_there_is_named_so(place: Place) -> None:
    with pytest.raises(MissingTableError):
        list(messages.scan(place.db.hot, place.region, Tier.HOT, WEEK + 1, ring.WHOLE))
    with pytest.raises(MissingTableError):
        place.db.hot.write(
            messages.batches(place.region, Tier.HOT, WEEK + 1, [Row(bytes(16), ids.compose(0, 0, 0), 1, 0)])
        )


# The lane

lane_histories = crowded_events(SLOTS, unique_ids=True)


def fill(place: Place, events: list[Event]) -> None:
    place.db.hot.write([place.lane.write(WEEK, event)] for event in events)


def in_lane(place: Place, conversations: list[bytes]) -> list[Event]:
    return [event for c in conversations for event in place.lane.scan(WEEK, range_of(c))]


def in_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event.conversation_id, event.message_id, event.event_id))


@few
@given(lane_histories)
def test_the_lane_gives_back_every_event_once(place: Place, history: list[Event]) -> None:
    conversations = fresh_conversations()
    events = moved(history, conversations)
    fill(place, events + events[:3])
    assert in_order(in_lane(place, conversations)) == in_order(events)
    for conversation in conversations:
        of_it = [event for event in events if event.conversation_id == conversation]
        assert merge_all(place.lane.read(WEEK, conversation)) == merge_all(map(row_of, of_it))
        assert place.lane.read(WEEK + 1, conversation) == []


@few
@given(lane_histories, st.data())
def test_clearing_takes_only_what_it_was_given(place: Place, history: list[Event], data: st.DataObject) -> None:
    conversations = fresh_conversations()
    events = moved(history, conversations)
    later, before = data.draw(st.integers(0, len(events))), data.draw(st.booleans())
    taken = [event for event in events[:later] if data.draw(st.booleans())]
    fill(place, events if before else events[:later])
    place.lane.clear(WEEK, map(key_of, taken))
    fill(place, events[later:])
    assert in_order(in_lane(place, conversations)) == in_order([event for event in events if event not in taken])


def test_a_cleared_event_stays_away_when_it_is_replayed(place: Place) -> None:
    conversation = fresh_conversations()[0]
    first, second = (
        MessageEdited(conversation, ids.compose(5, 0, 0), ids.compose(9, 0, node), 1, b"e") for node in range(2)
    )
    fill(place, [first])
    place.lane.clear(WEEK, [key_of(first)])
    fill(place, [first, second])
    assert in_lane(place, [conversation]) == [second]


@pytest.mark.parametrize("parts", [1, 2, 16, 64])
def test_parts_of_the_ring_share_the_lane_out(place: Place, parts: int) -> None:
    """Whether they are larger or smaller than a ring slice; the edges of the ring belong to somebody."""
    week = WEEK + 10 + parts
    conversations = [ids.conversation_uuid("ring", str(number)) for number in range(40)]
    events: list[Event] = [MessageEdited(c, ids.compose(5, 0, 0), ids.compose(9, 0, 0), 1, b"e") for c in conversations]
    place.db.hot.write([place.lane.write(week, event)] for event in events)
    found = [event for part in range(parts) for event in place.lane.scan(week, ring.cut(part, parts))]
    assert in_order(found) == in_order(events)
