"""A week's tier follows from the age of its last instant."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given

from core import weeks
from core.settings import Tiers
from core.tiers import Tier, leaves_at, target
from tests import strategies

POLICY = Tiers()
ORDER = list(Tier)
INSTANT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("age_days", "tier"),
    [(-7, Tier.HOT), (0, Tier.HOT), (7, Tier.WARM), (30, Tier.COLD), (365, Tier.FROZEN), (4000, Tier.FROZEN)],
)
def test_ages(age_days: int, tier: Tier) -> None:
    assert target(2913, weeks.end(2913) + timedelta(days=age_days), POLICY) is tier


@given(strategies.week_numbers)
def test_a_week_is_in_its_tier_until_it_is_due_to_leave(week: int) -> None:
    for tier, following in pairwise(ORDER):
        leaves = leaves_at(week, tier, POLICY)
        assert leaves is not None
        assert target(week, leaves - INSTANT, POLICY) is tier
        assert target(week, leaves, POLICY) is following
    assert leaves_at(week, Tier.FROZEN, POLICY) is None


@given(strategies.week_numbers, strategies.instants, strategies.instants)
def test_weeks_only_go_down(week: int, a: datetime, b: datetime) -> None:
    earlier, later = sorted((a, b))
    assert ORDER.index(target(week, earlier, POLICY)) <= ORDER.index(target(week, later, POLICY))
    assert ORDER.index(target(week, later, POLICY)) >= ORDER.index(target(week + 1, later, POLICY))


def test_two_tiers_are_tables() -> None:
    assert [tier.is_cql for tier in Tier] == [True, True, False, False]
