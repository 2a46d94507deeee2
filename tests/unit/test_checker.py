"""The checker and the product say the same in code that they do not share, and the checker's rules can fail."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from core import digest, ids, ring, weeks
from core.overlay import merge_all, row_of
from schemas.events import Event, encode
from tests import checker
from tests.avro import decode
from tests.checker import Cells, Final, Rows, add, cells_of, finals
from tests.client import written_down
from tests.strategies import conversation_ids, events, ordered_ids


def kept(found: list[Event]) -> dict[checker.Key, Final]:
    rows: Rows = {}
    for event in found:
        add(rows, *cells_of(written_down(event)))
    return finals(rows)


@given(events)
def test_an_event_reads_as_it_was_written_down(event: Event) -> None:
    assert decode(encode(event)) == written_down(event)


@given(st.lists(events, max_size=6), conversation_ids, ordered_ids)
def test_both_merge_and_digest_alike(found: list[Event], conversation_id: bytes, message_id: bytes) -> None:
    of_one = [replace(event, conversation_id=conversation_id, message_id=message_id) for event in found]
    ours = digest.of_rows(merge_all(map(row_of, unambiguous(of_one))).values())
    assert checker.digest(kept(unambiguous(of_one)).values()) == str(ours)


def unambiguous(found: list[Event]) -> list[Event]:
    """One event of each id, as a client makes them."""
    return list({event.event_id: event for event in found}.values())


@given(ordered_ids, conversation_ids, st.sampled_from([1, 2, 8, 64]))
def test_both_place_a_row_alike(message_id: bytes, conversation_id: bytes, shards: int) -> None:
    assert checker.week_of(message_id) == weeks.of_id(message_id)
    assert checker.ordered(ids.to_timeuuid(message_id)) == message_id
    assert checker.shard_of(conversation_id, shards) == ring.shard_of(ring.token(conversation_id), 1, shards)


def test_lost_strange_and_different_rows_are_told_apart() -> None:
    a, b, c = ((bytes(16), bytes([number] * 16)) for number in range(3))
    row = Cells({"sender_id": 1}).final(a)
    other = row._replace(sender_id=2)
    assert checker.differences({a: row}, {a: row}) == []
    assert checker.differences({b: row, c: row}, {a: row, c: other}) == [
        "1 rows are lost",
        "1 rows were never sent",
        f"row {c[1].hex()} differs in sender_id",
    ]


def test_a_file_with_a_row_twice_out_of_order_or_of_elsewhere_is_told() -> None:
    low, high = ids.compose(10**15, 0, 0), ids.compose(10**15, 0, 1)
    week, cells = weeks.of_id(low), Cells()
    keys = [(bytes(16), low), (bytes(16), high)]
    assert list(checker.misplaced([(key, cells) for key in keys], week, 0, 1)) == []
    assert next(iter(checker.misplaced([(keys[0], cells)] * 2, week, 0, 1))).endswith("is there twice")
    assert next(iter(checker.misplaced([(key, cells) for key in reversed(keys)], week, 0, 1))).endswith("out of order")
    assert next(iter(checker.misplaced([(keys[0], cells)], week + 1, 0, 1))).endswith("belongs elsewhere")
