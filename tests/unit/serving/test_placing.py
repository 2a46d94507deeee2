"""Which events of a batch go where, and what the consumer need not write again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids, weeks
from core.moves import State, Target, Unit
from core.routing import routes_of
from schemas.events import Event
from serving import intake
from serving.intake import Seen, UnknownWeekError, _placed
from tests import strategies

WEEK = strategies.CROWDED_WEEK
histories = strategies.crowded_events((b"\0" * 16, b"\1" * 16))


@given(histories, st.sampled_from(State))
def test_every_event_goes_to_one_place(events: list[Event], state: State) -> None:
    routes = routes_of(1, WEEK, 1, [replace(Unit("us", WEEK, 0), state=state)])
    placed = _placed(events, routes)
    assert sorted(map(repr, (event for group in placed.values() for event in group))) == sorted(map(repr, events))
    for (target, week), group in placed.items():
        assert all(routes.target(event.conversation_id, event.message_id) is target for event in group)
        assert all(weeks.of_id(event.message_id) == week for event in group)
        assert [event for event in events if event in group] == group, "in their order"


@given(histories)
def test_an_old_week_goes_to_the_lane(events: list[Event]) -> None:
    placed = _placed(events, routes_of(1, WEEK + 1, 1, []))
    assert placed.keys() <= {(Target.LANE, WEEK)}


@given(histories.filter(bool))
def test_a_week_without_a_table_writes_nothing(events: list[Event]) -> None:
    """One such event holds up the batch: it is written whole once the ledger was read again, or not yet."""
    with pytest.raises(UnknownWeekError) as caught:
        _placed(events, routes_of(1, WEEK, 1, []))
    assert weeks.label(WEEK) in caught.value.what
    assert not any(event.conversation_id.hex() in str(caught.value) for event in events)


def test_what_was_seen_is_not_new() -> None:
    seen = Seen()
    assert seen.new([2, 1, 2]) == [2, 1]
    assert seen.new([1]) == [1], "asking is not noting: a write that fails must be tried again"
    seen.add([1])
    assert seen.new([1, 2]) == [2]


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_SEEN_MAX", 3)
    seen = Seen()
    seen.add(ids.compose(n, 0, 0) for n in range(5))
    assert [n for n in range(5) if seen.new([ids.compose(n, 0, 0)])] == [0, 1]
