"""Where a single write goes, by one copy of the ledger."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids, ring, weeks
from core.moves import MOVES, Move, State, Target, Unit, writers
from core.routing import routes_of
from tests import strategies

WEEK = 2913
CONVERSATION = ids.conversation_uuid("test", "1")


def message_of(week: int) -> bytes:
    return ids.compose(int((weeks.start(week) - ids.UNIX_EPOCH).total_seconds() * 1_000_000) + 5, 0, 0)


@pytest.mark.parametrize("move", MOVES, ids=str)
@pytest.mark.parametrize("state", State)
def test_a_known_unit_decides(move: Move, state: State) -> None:
    unit = replace(Unit("us", WEEK, 0), move=move, state=state)
    routes = routes_of(3, WEEK - 1, 1, [unit])
    assert routes.target(CONVERSATION, message_of(WEEK)) is writers(unit)


@pytest.mark.parametrize(
    ("first_week", "week", "target"),
    [
        (WEEK, WEEK - 1, Target.LANE),
        (WEEK, WEEK, None),
        (WEEK, WEEK + 9, None),
        (None, WEEK, None),
        (0, 0, None),
    ],
)
def test_an_unknown_week_is_old_or_not_there_yet(first_week: int | None, week: int, target: Target | None) -> None:
    assert routes_of(3, first_week, 1, []).target(CONVERSATION, message_of(week)) is target


@given(strategies.conversation_ids, st.sampled_from([1, 4, 64]), strategies.ordered_ids)
def test_the_unit_is_that_of_week_and_slice(conversation: bytes, slices: int, message: bytes) -> None:
    week = weeks.of_id(message)
    units = [Unit("us", other, slice_) for other in (week - 1, week, week + 1) for slice_ in range(slices)]
    unit = routes_of(0, 0, slices, units).unit(conversation, message)
    assert unit is not None
    assert unit.week == week
    assert ring.token(conversation) in ring.cut(unit.slice, slices)
