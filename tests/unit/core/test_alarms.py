"""A unit is stuck when it is under way for too long, and one at rest never is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.alarms import stuck
from core.moves import COLD_WARM, State, Unit
from core.settings import Alarms, Tiers
from tests import strategies

NOW = datetime(2026, 3, 2, tzinfo=UTC)
UNIT = Unit("us", 2913, 0)
HOUR = timedelta(hours=1)


def waited(unit: Unit, asked_at: datetime | None = None) -> timedelta | None:
    found = stuck(unit, asked_at, NOW, Tiers(grace_days=1), Alarms(stuck_hours=24))
    return NOW - found.since if found else None


@pytest.mark.parametrize("state", [State.SEALED, State.COPIED, State.VERIFIED])
def test_what_is_under_way_counts_from_its_seal(state: State) -> None:
    assert waited(replace(UNIT, state=state, sealed_at=NOW - 24 * HOUR)) is None
    assert waited(replace(UNIT, state=state, sealed_at=NOW - 25 * HOUR)) == 25 * HOUR


@pytest.mark.parametrize(("settled", "hours"), [(False, 24), (True, 48)])
def test_what_is_switched_has_its_grace_once_it_is_settled(settled: bool, hours: int) -> None:
    unit = replace(UNIT, state=State.SWITCHED, settled=settled, sealed_at=NOW - 99 * HOUR)
    assert waited(replace(unit, switched_at=NOW - hours * HOUR)) is None
    assert waited(replace(unit, switched_at=NOW - (hours + 1) * HOUR)) == 25 * HOUR


def test_a_thaw_that_is_not_sealed_counts_from_when_it_was_asked_for() -> None:
    unit = replace(UNIT, move=COLD_WARM)
    assert waited(unit) is None
    assert waited(unit, NOW - 30 * HOUR) == 30 * HOUR


@given(strategies.units, st.none() | strategies.instants, strategies.instants)
def test_nothing_at_rest_is_stuck(unit: Unit, asked_at: datetime | None, now: datetime) -> None:
    found = stuck(unit, asked_at, now, Tiers(), Alarms())
    if unit.state is State.DROPPED or (unit.state is State.OPEN and not unit.move.is_thaw):
        assert found is None
    assert found is None or found.since < now
