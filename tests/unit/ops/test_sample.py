"""The sample is real traffic in small, the same on every machine, and cut into windows at will."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from core import ids, weeks
from core.errors import RefusedError
from ops import sample
from schemas.events import BODY_BYTES_MAX, Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet, encode
from tests.strategies import conversation_ids

START = sample.LAST - timedelta(days=120)
END = sample.LAST + timedelta(seconds=1)
REGIONS = ("us", "eu")
SHIPPED_BYTES_MAX = 2_000_000


@pytest.fixture(scope="module")
def traffic() -> list[tuple[str, Event]]:
    return list(sample.traffic(START, END, REGIONS))


def test_what_is_shipped_is_small_long_and_free_of_names() -> None:
    table = pq.read_table(sample.DATA)
    assert sample.DATA.stat().st_size <= SHIPPED_BYTES_MAX
    assert tuple(table.column_names) == sample.COLUMNS
    assert table.num_rows > 40_000
    times: list[datetime] = table["sent_at"].to_pylist()  # type: ignore[assignment]
    assert times == sorted(times)
    assert times[-1] == sample.LAST
    assert times[-1] - times[0] > timedelta(days=14 * 30)


def test_messages_keep_time_conversation_sender_and_length() -> None:
    rows = pq.read_table(sample.DATA).to_pylist()[-500:]
    found = {m.message_id: m for m in sample.messages(rows[0]["sent_at"], END)}
    for row in rows:
        name = f"{row['stream']}/{row['topic']}"
        message = found[ids.imported_id(row["sent_at"], "lean-archive", name, str(row["source_id"]))]
        assert message.conversation_id == ids.conversation_uuid("lean-archive", name)
        assert (message.sender_id, message.server_ts) == (row["sender"], row["sent_at"])
        assert len(message.body or b"") == min(row["body_bytes"], BODY_BYTES_MAX)
        assert message.message_type == bool(row["media"])
        assert (message.media_ref is not None) == bool(row["media"])


def test_traffic_is_in_order_of_event_id_and_each_id_is_new(traffic: list[tuple[str, Event]]) -> None:
    order = [event.event_id for _, event in traffic]
    assert order == sorted(set(order))
    assert START <= ids.instant(order[0]) <= ids.instant(order[-1]) < END
    assert all(ids.is_ordered_id(event_id) for event_id in order)


def test_the_same_bits_everywhere() -> None:
    digest = blake3()
    for region, event in islice(sample.traffic(START, END, REGIONS), 3000):
        digest.update(region.encode() + encode(event))
    assert digest.hexdigest(16) == "8faff32ce263f03ce84faa52e7b41778"


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, 20 * 86_400_000_000), min_size=3, max_size=3))
def test_windows_join(cuts: list[int]) -> None:
    first, middle, last = (sample.LAST - timedelta(microseconds=cut) for cut in sorted(cuts, reverse=True))
    joined = [*sample.traffic(first, middle, REGIONS), *sample.traffic(middle, last, REGIONS)]
    assert joined == list(sample.traffic(first, last, REGIONS))


def test_amendments_come_after_their_message_by_people_of_the_conversation(traffic: list[tuple[str, Event]]) -> None:
    sent = {event.message_id: event for _, event in traffic if isinstance(event, MessageSent)}
    gone: set[bytes] = set()
    for region, event in traffic:
        if isinstance(event, MessageSent) or event.message_id not in sent:
            continue
        message = sent[event.message_id]
        assert event.event_id > message.message_id
        assert event.message_id not in gone
        assert region == sample.region_of(message.conversation_id, REGIONS)
        assert event.user_id in sample.participants(event.conversation_id)
        assert (event.user_id != message.sender_id) == isinstance(event, ReactionSet)
        if isinstance(event, MessageDeleted):
            gone.add(event.message_id)
    assert gone


def test_the_shares_of_amendments() -> None:
    messages = list(sample.messages(sample.LAST - sample.SPAN, END))
    touched: dict[type[Event], set[bytes]] = defaultdict(set)
    reactions: Counter[tuple[bytes, int]] = Counter()
    late = taken_back = 0
    for message in messages:
        for event in sample.amendments(message):
            touched[type(event)].add(event.message_id)
            if isinstance(event, ReactionSet):
                reactions[event.message_id, event.user_id] += 1
                taken_back += event.reaction is None
            elif isinstance(event, MessageEdited):
                moved_at = weeks.end(weeks.of_id(message.message_id)) + timedelta(days=7)
                late += ids.instant(event.event_id) >= moved_at
    share = {kind: len(found) / len(messages) for kind, found in touched.items()}
    assert share[MessageEdited] == pytest.approx(0.03, abs=0.005)
    assert share[MessageDeleted] == pytest.approx(0.01, abs=0.003)
    assert share[ReactionSet] == pytest.approx(0.05, abs=0.01)
    assert late > 50
    assert taken_back > 50
    assert sum(count > 1 for count in reactions.values()) > 100


@given(conversation_ids)
def test_a_region_more_moves_only_what_it_takes(conversation_id: bytes) -> None:
    before = sample.region_of(conversation_id, ("us", "eu"))
    assert before == sample.region_of(conversation_id, ("eu", "us"))
    assert sample.region_of(conversation_id, ("us", "eu", "ap")) in (before, "ap")


def test_groups_are_those_with_more_than_two_senders() -> None:
    people = defaultdict(set)
    for message in sample.messages(sample.LAST - sample.SPAN, END):
        people[message.conversation_id].add(message.sender_id)
    assert all(sample.is_group(one) == (len(found) > 2) for one, found in people.items())
    assert 0 < sum(not sample.is_group(one) for one in people) < len(people)
    with pytest.raises(RefusedError):
        sample.is_group(bytes(16))


def test_the_longest_lived_conversation_spans_the_tiers() -> None:
    longest = sample.longest_lived()
    times = [m.server_ts for m in sample.messages(sample.LAST - sample.SPAN, END) if m.conversation_id == longest]
    assert times[-1] - times[0] > timedelta(days=400)


def test_building_takes_whole_conversations_and_always_the_longest(tmp_path: Path) -> None:
    last = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {
            "stream": 1,
            "topic": topic,
            "sender": 5,
            "sent_at": last - timedelta(days=days),
            "source_id": days * 1000 - topic,
            "body_bytes": 3,
            "media": [],
            "text": "secret",
        }
        for days in range(500, -1, -20)
        for topic in range(200)
        if topic != 7 or days in (440, 20)
        if topic == 7 or days < 400
    ]
    schema = pa.schema(
        [
            ("stream", pa.int16()),
            ("topic", pa.int32()),
            ("sender", pa.int32()),
            ("sent_at", pa.timestamp("ms", "UTC")),
            ("source_id", pa.int64()),
            ("body_bytes", pa.int32()),
            ("media", pa.list_(pa.int32())),
            ("text", pa.string()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "archive.parquet")
    count = sample.build(tmp_path / "archive.parquet", tmp_path / "one.parquet")
    assert sample.build(tmp_path / "archive.parquet", tmp_path / "two.parquet") == count
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    kept = pq.read_table(tmp_path / "one.parquet")
    assert tuple(kept.column_names) == sample.COLUMNS
    topics = Counter(kept["topic"].to_pylist())
    assert topics.pop(7) == 2
    assert set(topics.values()) == {20}
    assert 20 < len(topics) < 100
    order = kept["sent_at"].to_numpy()
    assert (order[1:] >= order[:-1]).all()
