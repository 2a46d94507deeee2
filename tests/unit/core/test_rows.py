"""Canonical rows survive Arrow; tables of them are sorted and merged as the rows themselves would be."""

from collections.abc import Iterable

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from core import digest, rows
from core.overlay import Row, laid_over, merge_all, row_of
from schemas.events import Event
from schemas.tables import CANONICAL
from tests import strategies

some_rows = st.lists(strategies.rows, max_size=12)


@given(some_rows, st.integers(1, 5))
def test_rows_come_back(found: list[Row], batch_rows: int) -> None:
    batches = list(rows.to_batches(found, batch_rows))
    assert all(batch.schema.equals(CANONICAL, check_metadata=True) for batch in batches)
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    assert [row for batch in batches for row in rows.from_batch(batch)] == found


@given(some_rows, st.integers(1, 5))
def test_sorting_keeps_every_row(found: list[Row], batch_rows: int) -> None:
    ordered = [row for batch in rows.in_key_order(rows.to_batches(found, batch_rows)) for row in rows.from_batch(batch)]
    assert [row.key for row in ordered] == sorted(row.key for row in found)
    assert digest.of_rows(ordered) == digest.of_rows(found)


def test_no_rows_are_no_batches() -> None:
    assert list(rows.to_batches([])) == []
    assert sum(batch.num_rows for batch in rows.in_key_order([])) == 0


CONVERSATIONS = [bytes([number]) * 16 for number in range(3)]
crowded = strategies.crowded_events(CONVERSATIONS)


def rows_of(events: list[Event]) -> list[Row]:
    return [row_of(event) for event in events]


def tables(found: list[Row], size: int) -> list[pa.Table]:
    """Row groups of a file that holds `found`."""
    held = merge_all(found)
    ordered = [held[key] for key in sorted(held)]
    return [pa.Table.from_batches([batch]) for batch in rows.to_batches(ordered, size)]


def listed(found: Iterable[pa.Table]) -> list[Row]:
    return [row for table in found for row in rows.from_batch(table)]


@given(strategies.shuffled_in_chunks(crowded))
def test_one_row_per_key_is_what_merging_gives(history: tuple[list[Event], list[list[Event]]]) -> None:
    """In any order and any split, replays included."""
    events, chunks = history
    wanted = merge_all(rows_of(events))
    found = rows.one_per_key(rows.to_batch(rows_of(chunk)) for chunk in chunks)
    assert listed([found]) == [wanted[key] for key in sorted(wanted)]
    assert rows.one_per_key(found.to_batches()).equals(found)


def merged_groups(groups: list[pa.Table], change: pa.Table) -> list[tuple[pa.Table, bool]]:
    """As a rewrite does it, and whether each was touched."""
    ends = [(keys[0], keys[-1]) for keys in map(rows.keys_of, groups)]
    shares = rows.shares(ends, rows.keys_of(change))
    taken = [change.slice(share.start, len(share)) for share in shares]
    return [
        (rows.merged(group, mine) if mine.num_rows else group, mine.num_rows > 0)
        for group, mine in zip(groups, taken, strict=True)
    ]


@given(crowded.filter(bool), crowded, st.integers(1, 4))
def test_merging_into_row_groups_is_laying_over(old: list[Event], new: list[Event], size: int) -> None:
    groups, change = tables(rows_of(old), size), rows.one_per_key([rows.to_batch(rows_of(new))])
    merged = merged_groups(groups, change)
    wanted = {row.key: row for row in laid_over(listed(groups), merge_all(rows_of(new)))}
    assert listed(group for group, _ in merged) == [wanted[key] for key in sorted(wanted)]
    keys = {key for group, is_touched in merged if not is_touched for key in rows.keys_of(group)}
    assert not keys & set(rows.keys_of(change))


@given(crowded.filter(bool), crowded, st.integers(1, 4))
def test_merging_twice_is_merging_once(old: list[Event], new: list[Event], size: int) -> None:
    change = rows.one_per_key([rows.to_batch(rows_of(new))])
    once = [group for group, _ in merged_groups(tables(rows_of(old), size), change)]
    assert listed(group for group, _ in merged_groups(once, change)) == listed(once)


@given(crowded.filter(bool), st.lists(crowded, max_size=3), st.integers(1, 4))
def test_any_split_of_a_change_gives_the_same(old: list[Event], news: list[list[Event]], size: int) -> None:
    one_by_one = tables(rows_of(old), size)
    for new in news:
        change = rows.one_per_key([rows.to_batch(rows_of(new))])
        one_by_one = [group for group, _ in merged_groups(one_by_one, change)]
    everything = rows.one_per_key([rows.to_batch(rows_of(new)) for new in news])
    at_once = merged_groups(tables(rows_of(old), size), everything)
    assert listed(group for group, _ in at_once) == listed(one_by_one)


@given(crowded, crowded)
def test_rows_among_others_are_found_by_key(events: list[Event], others: list[Event]) -> None:
    held, other = (rows.one_per_key([rows.to_batch(rows_of(some))]) for some in (events, others))
    wanted = [row for row in listed([held]) if row.key in {one.key for one in rows_of(others)}]
    assert listed([rows.among(held, other)]) == wanted
    left = listed([rows.apart_from(held, other)])
    assert [row for row in listed([held]) if row not in wanted] == left


_keys = st.builds(
    lambda conversation, message: bytes([conversation]) * 16 + bytes([message]) * 16,
    st.integers(0, 3),
    st.sampled_from([0, 1, 2, 3, 255]),
)


@given(st.sets(_keys, min_size=1), st.integers(1, 4), st.sets(_keys))
def test_a_key_goes_where_the_rule_says(held: set[bytes], size: int, late: set[bytes]) -> None:
    ordered = sorted(held)
    groups = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    keys = sorted(late)
    shares = rows.shares([(group[0], group[-1]) for group in groups], keys)
    assert [at for share in shares for at in share] == list(range(len(keys)))
    for number, share in enumerate(shares):
        assert all(number == home(groups, keys[at]) for at in share)


def home(groups: list[list[bytes]], key: bytes) -> int:
    """By looking at each row group in turn."""
    for number, group in enumerate(groups):
        if key <= group[-1]:
            is_between = number > 0 and key < group[0]
            return number - 1 if is_between and groups[number - 1][-1][:16] == key[:16] else number
    return len(groups) - 1


def test_no_row_group_takes_nothing() -> None:
    assert rows.shares([], []) == []
