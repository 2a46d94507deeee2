"""What lags, what is counted where, and how far a job is: over plain values."""

from dataclasses import replace
from datetime import timedelta

import pytest

from core import moves, settings, weeks
from core.errors import BlockedError, DamagedError, FirnError, RefusedError
from core.gate import PartitionState
from core.moves import State, Unit, born_cold
from core.tiers import Tier
from ops import holdings, runs, status
from ops.holdings import Amount, Weight

WEEK = weeks.parse("2026-W08")
POLICY = settings.Tiers()
OPEN = Unit("us", WEEK, 0)
WARM = replace(OPEN, state=State.DROPPED)
NOW = weeks.end(WEEK) + timedelta(days=10)


def region(*weights: Weight) -> status.Region:
    return status.Region("us", NOW, 3, POLICY, weights, BlockedError("no Kafka", "start it"))


def test_a_week_lags_from_the_day_it_is_due_with_all_it_holds() -> None:
    young = replace(OPEN, week=WEEK + 1)
    found = status.lags(region(Weight(OPEN, Amount(5, 50)), Weight(young, Amount(7, 70)), Weight(WARM, Amount(9, 90))))
    hot, warm, cold = found
    assert (hot.units, hot.amount, hot.since) == (1, Amount(5, 50), weeks.end(WEEK) + timedelta(days=7))
    assert (warm.units, warm.since) == (0, None)
    assert cold.units == 0


def test_a_warm_week_lags_in_the_move_that_follows_its_last() -> None:
    later = replace(region(Weight(WARM, Amount(9, 90))), now=weeks.end(WEEK) + timedelta(days=30))
    hot, warm, _ = status.lags(later)
    assert hot.units == 0
    assert (warm.move, warm.units, warm.amount) == (moves.WARM_COLD, 1, Amount(9, 90))


def test_a_switched_week_no_longer_lags_although_its_writers_have_not_all_obeyed() -> None:
    switched = replace(OPEN, state=State.SWITCHED)
    assert status.due_since(switched, NOW, POLICY)
    assert [lag.units for lag in status.lags(region(Weight(switched, Amount(5, 50))))] == [0, 0, 0]


def test_one_unknown_makes_the_sum_unknown() -> None:
    other = replace(OPEN, slice=1)
    hot = status.lags(region(Weight(OPEN, Amount(5, 50)), Weight(other, None)))[0]
    assert (hot.units, hot.amount) == (2, None)
    assert holdings.total([]) == Amount()


def test_units_are_counted_where_their_truth_lies() -> None:
    cold = born_cold("us", WEEK, 0)
    found = status.counts(region(Weight(OPEN, None), Weight(WARM, None), Weight(cold, None)))
    assert found[Tier.HOT] == {State.OPEN: 1}
    assert found[Tier.WARM] == {State.DROPPED: 1}
    assert found[Tier.COLD] == {State.OPEN: 1}


def test_slices_of_a_week_are_one_line_per_tier() -> None:
    weights = [
        Weight(replace(OPEN, slice=1, state=State.SEALED), Amount(1, 10, is_estimate=True)),
        Weight(OPEN, Amount(2, 20)),
        Weight(replace(WARM, slice=2), Amount(4, 40)),
    ]
    hot, warm = sorted(holdings.by_week(weights), key=lambda held: held.tier)
    assert (hot.tier, hot.states, hot.amount) == (Tier.HOT, (State.OPEN, State.SEALED), Amount(3, 30, 0, True))
    assert (warm.tier, warm.amount) == (Tier.WARM, Amount(4, 40))
    assert "~3" in holdings.cells(hot.amount)


def test_the_log_counts_what_is_not_yet_written_and_says_why_a_gate_would_be_shut() -> None:
    read = PartitionState("messages.us.direct", 0, 0, 10, 10, 3)
    behind = PartitionState("messages.us.direct", 1, 0, 10, 4, 3)
    never = PartitionState("messages.us.group", 0, 0, 10, None, None)
    letters = [PartitionState("dead-letters.us", 0, 2, 5, None, None)]
    found = status.log_of([read, behind], letters, 3)
    assert (found.partitions, found.behind, found.dead_letters) == (2, 6, 3)
    assert found.shut == ("messages.us.direct/1: read up to offset 4 of 10",)
    assert status.log_of([read, never], letters, 3).behind is None


def test_a_job_is_as_far_as_its_units_and_their_tasks() -> None:
    steps = runs.Steps()
    assert steps.hear("us: 2 units are held by another mover") is None
    assert steps.hear("us/2026-W08/0: sealed (hot → warm)") == (1, 4)
    assert steps.hear("us/2026-W09/0: sealed (hot → warm)") == (2, 8)
    assert steps.hear("[Stage 0:=====>      (2 + 2) / 4]") == (3, 8)
    assert steps.hear("us/2026-W08/0: copied (hot → warm)") == (3, 8)
    assert steps.hear("us/2026-W08/0: switched (hot → warm)") == (5, 8)


def test_a_fold_is_a_third_of_the_way_when_spark_is_done() -> None:
    steps = runs.Steps("fold")
    lines = [
        "us/0: 2 pointers brought up to the Delta log",
        "[Stage 0:=====>      (2 + 2) / 4]",
        "[Stage 0:==========> (4 + 0) / 4]",
        "us/2026-W05/0: 4 files of 1,234 rows written",
        "us/2026-W06/0: 0 files of 0 rows written",
        "us/2026-W05/0: folded, 12 events taken out of the lane",
        "us/2026-W06/0: folded, 0 events taken out of the lane",
    ]
    heard = [steps.hear(line) for line in lines]
    assert heard == [None, (2, 12), (4, 12), (2, 3), (4, 6), (5, 6), (6, 6)]


def test_a_job_s_error_comes_back_as_that_error() -> None:
    assert runs.result_of("move", 0, ["noise", '{"moved": 1}']) == {"moved": 1}
    with pytest.raises(DamagedError, match="they differ") as caught:
        runs.result_of("move", 4, ['{"error": "DamagedError", "what": "they differ", "do": "look"}'])
    assert caught.value.do == "look"
    with pytest.raises(BlockedError):  # a finer kind that only the job knows
        runs.result_of("move", 3, ['{"error": "MissingTableError", "what": "x", "do": "y"}'])
    with pytest.raises(FirnError) as died:
        runs.result_of("move", -9, [])
    assert died.value.exit_code == 137
    with pytest.raises(RefusedError):
        runs.result_of("drop", 2, ['{"error": "RefusedError", "what": "x", "do": "y"}'])
