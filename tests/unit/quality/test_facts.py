"""Facts taken column by column say what a reader of one row after another would say."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids, ring, weeks
from core.intake import CLOCK_SKEW_US
from core.overlay import Reaction, Row
from core.rows import to_batch
from quality import facts
from quality.columns import Kind, declared
from quality.facts import of_batch, of_file
from schemas.tables import CANONICAL
from tests import strategies

US = timedelta(microseconds=1)
WEEK = strategies.CROWDED_WEEK
EDGE = weeks.start(WEEK)
SKEW = timedelta(microseconds=CLOCK_SKEW_US)

near_edges = st.sampled_from([EDGE - US, EDGE, EDGE + timedelta(days=3), weeks.end(WEEK) - US, weeks.end(WEEK)])
message_ids = strategies.ids_at(near_edges)
odd_ids = strategies.ordered_ids | st.binary(max_size=18) | st.binary(min_size=16, max_size=16)
few_conversations = st.sampled_from([ids.conversation_uuid("few", str(number)) for number in range(3)])
reactions = st.lists(st.builds(Reaction, st.integers(-1, 3), odd_ids, st.none() | strategies.bodies), max_size=4).map(
    tuple
)
server_times = st.builds(
    lambda edge, skew, by: edge + skew + by * US,
    near_edges,
    st.sampled_from([-SKEW, timedelta(), SKEW]),
    st.integers(-1, 1),
)
odd_rows = st.builds(
    Row,
    conversation_id=few_conversations | odd_ids | st.none(),
    message_id=message_ids | odd_ids | st.none(),
    sender_id=st.none() | strategies.users,
    message_type=st.none() | st.integers(-128, 127),
    body=st.none() | strategies.bodies,
    media_ref=st.none() | strategies.texts,
    reply_to=st.none() | odd_ids,
    edit_id=st.none() | odd_ids,
    deleted=st.booleans() | st.none(),
    server_ts=st.none() | server_times,
    reactions=reactions,
)
tokens_of_a_shard = st.integers(0, 2).flatmap(
    lambda power: st.integers(0, 2**power - 1).map(lambda part: ring.cut(part, 2**power))
)


def values(row: Row, name: str) -> list[Any]:
    outer, _, inner = name.partition(".")
    return [getattr(reaction, inner) for reaction in row.reactions] if inner else [getattr(row, outer)]


def naive(rows: Sequence[Row], week: int, tokens: ring.Range, told: int) -> dict[str, int]:
    found = {
        facts.ROWS: len(rows),
        facts.ROWS_TOLD: told,
        facts.OTHER_WEEK: sum(is_ours(row.message_id) and weeks.of_id(row.message_id) != week for row in rows),
        facts.OTHER_SHARD: sum(is_elsewhere(row, tokens) for row in rows),
        facts.OUT_OF_ORDER: sum(is_before(row, above) for above, row in pairwise(rows)),
        facts.REPEATED: sum(None not in row.key and row.key == above.key for above, row in pairwise(rows)),
        facts.DELETED_BUT_FULL: sum(bool(row.deleted) and is_full(row) for row in rows),
        facts.INCOMPLETE: sum(row.is_message and None in (row.sender_id, row.server_ts) for row in rows),
        facts.UNSIGNED: sum(row.edit_id is not None and row.sender_id is None for row in rows),
        facts.ORPHAN_BUT_FULL: sum(not row.is_message and has_message_cells(row) for row in rows),
        facts.OTHER_TIME: sum(is_untimely(row) for row in rows),
        facts.UNSORTED: sum(any(a.user_id >= b.user_id for a, b in pairwise(row.reactions)) for row in rows),
    }
    for column in declared():
        given_values = [value for row in rows for value in values(row, column.name)]
        present = [value for value in given_values if value is not None]
        if not column.nullable:
            found[facts.nulls(column)] = len(given_values) - len(present)
        if column.kind is Kind.UUID:
            found[facts.strangers(column)] = sum(len(value) != 16 for value in present)
        if column.kind is Kind.ORDERED_ID:
            found[facts.strangers(column)] = sum(not is_ours(value) for value in present)
        if column.most is not None:
            found[facts.largest(column)] = max(map(len, present), default=0)
        if column.least is not None:
            found[facts.least(column)] = min([column.least, *present])
    return found


def is_ours(message_id: bytes | None) -> bool:
    return message_id is not None and ids.is_ordered_id(message_id)


def is_elsewhere(row: Row, tokens: ring.Range) -> bool:
    conversation: bytes | None = row.conversation_id
    return conversation is not None and len(conversation) == 16 and ring.token(conversation) not in tokens


def is_before(row: Row, above: Row) -> bool:
    if None in (row.conversation_id, above.conversation_id):
        return False
    if row.conversation_id != above.conversation_id:
        return row.conversation_id < above.conversation_id
    return None not in (row.message_id, above.message_id) and row.message_id < above.message_id


def is_full(row: Row) -> bool:
    return (row.body, row.media_ref, row.edit_id, row.reactions) != (None, None, None, ())


def has_message_cells(row: Row) -> bool:
    cells = (row.media_ref, row.reply_to, row.server_ts)
    return cells != (None,) * 3 or (row.body is not None and row.edit_id is None)


def is_untimely(row: Row) -> bool:
    if row.server_ts is None or not is_ours(row.message_id):
        return False
    return abs(row.server_ts - ids.instant(row.message_id)) > SKEW


def with_years(row: Row) -> bool:
    """Python's own times end in 9999; an id can be of any year."""
    return not is_ours(row.message_id) or ids.unix_us(row.message_id) < 200_000_000_000_000_000


many_rows = st.lists(odd_rows.filter(with_years), max_size=8)
cuts = st.lists(st.integers(0, 8), max_size=3).map(sorted)


@given(many_rows, cuts, st.booleans(), tokens_of_a_shard, st.integers(0, 9))
def test_facts_are_those_of_a_row_by_row_reading(
    rows: list[Row], cuts: list[int], ordered: bool, tokens: ring.Range, told: int
) -> None:
    if ordered:
        rows = sorted(rows, key=lambda row: (row.conversation_id or b"", row.message_id or b""))
    bounds = [0, *(min(cut, len(rows)) for cut in cuts), len(rows)]
    batches = [to_batch(rows[start:end]) for start, end in pairwise(bounds)]
    assert of_file(batches, WEEK, tokens, told).row() == naive(rows, WEEK, tokens, told)


@given(st.lists(strategies.rows, min_size=1, max_size=6), st.data())
def test_a_slice_of_a_batch_is_judged_as_the_rows_it_shows(rows: list[Row], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows)))
    end = data.draw(st.integers(start, len(rows)))
    shown = to_batch(rows).slice(start, end - start)
    assert of_batch(shown, WEEK, ring.WHOLE) == of_batch(to_batch(rows[start:end]), WEEK, ring.WHOLE)


@given(strategies.ordered_ids)
def test_an_id_of_ours_with_one_bit_turned_is_told(good: bytes) -> None:
    turned = [(int.from_bytes(good, "big") ^ 1 << bit).to_bytes(16, "big") for bit in range(128)]
    counts = of_batch(to_batch([Row(bytes(16), one) for one in turned]), WEEK, ring.WHOLE).counts
    assert counts["message_id: not an id of ours"] == sum(not ids.is_ordered_id(one) for one in turned) > 0


@given(strategies.conversation_ids)
def test_a_shard_ends_with_its_last_token(conversation: bytes) -> None:
    batch, token = to_batch([Row(conversation, ids.compose(0, 0, 0))]), ring.token(conversation)
    assert of_batch(batch, 0, ring.Range(token - 1, token)).counts[facts.OTHER_SHARD] == 0
    assert of_batch(batch, 0, ring.Range(token, ring.LAST)).counts[facts.OTHER_SHARD] == 1
    assert of_batch(batch, 0, ring.Range(ring.FIRST, token - 1)).counts[facts.OTHER_SHARD] == 1


def test_an_id_of_any_year_has_a_week() -> None:
    last = bytes.fromhex("ffffffffffff6fff8000000000000000")
    assert ids.is_ordered_id(last)
    counts = of_batch(to_batch([Row(bytes(16), last)]), WEEK, ring.WHOLE).counts
    assert counts[facts.OTHER_WEEK] == 1


@pytest.mark.parametrize(
    ("server_us", "is_off"),
    [
        (CLOCK_SKEW_US, 0),
        (CLOCK_SKEW_US + 1, 1),
        (-CLOCK_SKEW_US, 0),
        (-CLOCK_SKEW_US - 1, 1),
        (2**63 - 1, 1),
        (-(2**63), 1),
    ],
)
def test_a_time_is_within_a_day_of_the_id(server_us: int, is_off: int) -> None:
    batch = to_batch([Row(bytes(16), ids.compose(0, 0, 0), 1, 1)])
    at = CANONICAL.get_field_index("server_ts")
    when = pa.array([server_us], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    assert of_batch(batch.set_column(at, CANONICAL.field(at), when), 0, ring.WHOLE).counts[facts.OTHER_TIME] == is_off


def test_lists_and_reactions_that_are_null_hold_nothing() -> None:
    batch = to_batch([Row(bytes(16), ids.compose(0, 0, 0), deleted=True)] * 2)
    at = CANONICAL.get_field_index("reactions")
    batch = batch.set_column(at, CANONICAL.field(at), pa.array([None, [None]], CANONICAL.field(at).type))
    counts = of_batch(batch, 0, ring.WHOLE).counts
    assert counts[facts.DELETED_BUT_FULL] == 1
    assert counts["reactions.user_id: nulls"] == counts["reactions.event_id: nulls"] == 1


def test_a_text_that_is_no_text_is_measured_all_the_same() -> None:
    _, offsets, data = pa.array([b"\xff\xfe" * 300], pa.binary()).buffers()
    assert offsets
    assert data
    text = pa.StringArray.from_buffers(1, offsets, data)
    at = CANONICAL.get_field_index("media_ref")
    batch = to_batch([Row(bytes(16), ids.compose(0, 0, 0))]).set_column(at, CANONICAL.field(at), text)
    assert of_batch(batch, 0, ring.WHOLE).largest["media_ref: largest size"] == 600


def test_a_key_is_held_against_the_last_of_the_batch_before() -> None:
    first, second = (Row(bytes(16), ids.compose(number, 0, 0)) for number in (1, 2))
    none = to_batch([])
    for rows, expected in (((first, second), (0, 0)), ((second, first), (1, 0)), ((second, second), (0, 1))):
        batches = [none, to_batch([rows[0]]), none, to_batch([rows[1]]), none]
        counts = of_file(batches, 0, ring.WHOLE, 2).counts
        assert (counts[facts.OUT_OF_ORDER], counts[facts.REPEATED]) == expected


def test_a_file_without_rows_has_every_fact() -> None:
    row = Row(bytes(16), ids.compose(0, 0, 0))
    assert of_file([], 0, ring.WHOLE, 0).row().keys() == of_file([to_batch([row])], 0, ring.WHOLE, 1).row().keys()


@pytest.mark.parametrize("conversations", [1, 50])
def test_rows_of_another_shard_are_counted_one_by_one(conversations: int) -> None:
    rows = [
        replace(Row(ids.conversation_uuid("c", str(number % conversations)), ids.compose(number, 0, 0)))
        for number in range(200)
    ]
    counts = [
        of_file([to_batch(rows)], 0, ring.shard_range(0, 1, shard, 4), 200).counts[facts.OTHER_SHARD]
        for shard in range(4)
    ]
    assert sum(200 - count for count in counts) == 200
    assert conversations == 1 or all(0 < count < 200 for count in counts)


def test_facts_hold_numbers_alone() -> None:
    found = of_file([to_batch([Row(b"\xca\xfe" * 8, b"\xca\xfe" * 8, body=b"\xca\xfe")])], 0, ring.WHOLE, 1).row()
    assert {type(value) for value in found.values()} == {int}
