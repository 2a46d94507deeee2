"""What a page is made of: reads that stopped in different places, laid together only as far as all of them reach."""

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids
from core.overlay import Row, merge_all, row_of
from lakehouse.reader import Stretch, stretch_of
from schemas.events import Event
from tests.strategies import crowded_events

C = b"\0" * 16
M = [ids.compose(n, 0, 0) for n in range(5)]


class Places(NamedTuple):
    """One conversation's week, its events in the source, the lane and the sink, some in more than one of them."""

    source: list[Event]
    lane: list[Event]
    sink: list[Event]

    @property
    def truth(self) -> list[Row]:
        return newest_first([row_of(event) for place in self for event in place])


def newest_first(rows: list[Row]) -> list[Row]:
    return sorted(merge_all(rows).values(), key=lambda row: row.message_id, reverse=True)


def scattered(events: list[Event]) -> st.SearchStrategy[Places]:
    masks = st.lists(st.integers(1, 7), min_size=len(events), max_size=len(events))
    return masks.map(lambda found: Places(*(_kept(events, found, bit) for bit in (1, 2, 4))))


def _kept(events: list[Event], masks: list[int], bit: int) -> list[Event]:
    return [event for event, mask in zip(events, masks, strict=True) if mask & bit]


places = crowded_events((C,)).flatmap(scattered)


def read(events: list[Event], before: bytes | None, limit: int) -> Stretch:
    """As a tier reads: so many of its rows below `before`; all of the rest says None."""
    rows = [row for row in newest_first([row_of(e) for e in events]) if before is None or row.message_id < before]
    cut = rows[:limit]
    return Stretch(tuple(cut), cut[-1].message_id if len(cut) >= limit else None)


def page(found: Places, before: bytes | None, limits: tuple[int, int]) -> Stretch:
    stretches = [read(found.source, before, limits[0]), read(found.sink, before, limits[1])]
    return stretch_of(stretches, [row_of(event) for event in found.lane], before)


limits = st.tuples(st.integers(1, 4), st.integers(1, 4))


@given(places, limits, st.none() | st.integers(0, 40))
def test_a_stretch_is_complete_above_where_it_ends(found: Places, each: tuple[int, int], at: int | None) -> None:
    truth = found.truth
    before = truth[at % len(truth)].message_id if truth and at is not None else None
    stretch = page(found, before, each)
    wanted = [row for row in truth if before is None or row.message_id < before]
    wanted = [row for row in wanted if stretch.from_id is None or row.message_id >= stretch.from_id]
    assert list(stretch.rows) == wanted
    assert stretch.from_id is None or before is None or stretch.from_id < before, "the next page goes on below"


@given(places, limits)
def test_pages_together_are_the_week(found: Places, each: tuple[int, int]) -> None:
    rows: list[Row] = []
    before = None
    for _ in range(len(found.truth) + 1):
        stretch = page(found, before, each)
        rows += stretch.rows
        before = stretch.from_id
        if before is None:
            break
    assert before is None, "it comes to an end"
    assert rows == found.truth


@given(places, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_a_page_turns_into_the_next_while_the_week_moves(found: Places, a: int, b: int, c: int) -> None:
    """Between two pages everything went to the sink: no row twice, none skipped."""
    everything = [event for place in found for event in place]
    moved = Places([], [], everything)
    first = page(found, None, (a, b))
    rows, before = list(first.rows), first.from_id
    while before is not None:
        stretch = page(moved, before, (c, c))
        rows += stretch.rows
        before = stretch.from_id
    assert rows == found.truth


@pytest.mark.parametrize(
    ("ends", "from_id"),
    [((None, None), None), ((M[1], None), M[1]), ((None, M[2]), M[2]), ((M[1], M[3]), M[3])],
)
def test_the_read_that_stopped_first_decides(ends: tuple[bytes | None, bytes | None], from_id: bytes | None) -> None:
    row = Row(C, M[4], sender_id=1)
    early = replace(row, message_id=M[0])
    stretch = stretch_of([Stretch((row, early), ends[0]), Stretch((row,), ends[1])], [], None)
    assert stretch.from_id == from_id
    assert list(stretch.rows) == ([row, early] if from_id is None else [row])


def test_nothing_read_is_an_end() -> None:
    assert stretch_of([Stretch((), None)], [], None) == Stretch((), None)
