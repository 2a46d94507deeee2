"""The state machine of a move: every step as a table, and every way through it to its end."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import weeks
from core.errors import RefusedError
from core.moves import (
    COLD_FROZEN,
    HOT_WARM,
    MOVES,
    WARM_COLD,
    Move,
    State,
    Target,
    Unit,
    born_cold,
    frozen_generations,
    is_due,
    readers,
    reroutes,
    shards_for,
    why_not_drop,
    why_not_fold,
    writers,
)
from core.settings import Tiers
from core.tiers import Tier
from tests import strategies

WEEK = 2913
END = weeks.end(WEEK)
POLICY = Tiers()
UNIT = Unit("us", WEEK, 0)
LEGAL = {
    (State.OPEN, State.SEALED),
    (State.SEALED, State.COPIED),
    (State.SEALED, State.SEALED),
    (State.COPIED, State.VERIFIED),
    (State.COPIED, State.SEALED),
    (State.VERIFIED, State.SWITCHED),
    (State.VERIFIED, State.SEALED),
    (State.SWITCHED, State.DROPPED),
}
UNDER_WAY = (State.SEALED, State.COPIED, State.VERIFIED)


def days(count: float) -> datetime:
    return END + timedelta(days=count)


@pytest.mark.parametrize(("state", "following"), sorted(LEGAL))
def test_a_legal_step(state: State, following: State) -> None:
    unit = replace(UNIT, state=state, epoch=3, revision=8)
    assert unit.to(following, 4) == replace(unit, state=following, epoch=4, revision=9)
    assert unit.to(following, 3).epoch == 3


@pytest.mark.parametrize(("state", "following"), sorted(set(product(State, State)) - LEGAL))
def test_an_illegal_step_is_refused(state: State, following: State) -> None:
    with pytest.raises(RefusedError, match="does not follow"):
        replace(UNIT, state=state).to(following, 1)


@pytest.mark.parametrize(("state", "following"), sorted(LEGAL))
def test_an_older_epoch_is_refused(state: State, following: State) -> None:
    with pytest.raises(RefusedError, match="epoch 3, not 2"):
        replace(UNIT, state=state, epoch=3).to(following, 2)


def test_only_a_freeze_gives_up_its_seal() -> None:
    for move in MOVES:
        sealed = replace(UNIT, move=move, state=State.SEALED)
        if move == COLD_FROZEN:
            assert sealed.to(State.OPEN, 0).state is State.OPEN
        else:
            with pytest.raises(RefusedError, match="does not follow"):
                sealed.to(State.OPEN, 0)


def test_other_facts_keep_the_state() -> None:
    assert UNIT.changed(route=5, shards=2) == replace(UNIT, revision=1, route=5, shards=2)


H, W, C, F = Tier.HOT, Tier.WARM, Tier.COLD, Tier.FROZEN


@pytest.mark.parametrize(
    ("move", "state", "writes", "reads", "tier"),
    [
        (HOT_WARM, State.OPEN, Target.HOT, (H,), H),
        *[(HOT_WARM, state, Target.LANE, (H,), H) for state in UNDER_WAY],
        (HOT_WARM, State.SWITCHED, Target.WARM, (H, W), W),
        (HOT_WARM, State.DROPPED, Target.WARM, (W,), W),
        (WARM_COLD, State.OPEN, Target.WARM, (W,), W),
        *[(WARM_COLD, state, Target.LANE, (W,), W) for state in UNDER_WAY],
        (WARM_COLD, State.SWITCHED, Target.LANE, (W, C), C),
        (WARM_COLD, State.DROPPED, Target.LANE, (C,), C),
        (COLD_FROZEN, State.OPEN, Target.LANE, (C,), C),
        *[(COLD_FROZEN, state, Target.LANE, (C,), C) for state in UNDER_WAY],
        (COLD_FROZEN, State.SWITCHED, Target.LANE, (C,), C),
        (COLD_FROZEN, State.DROPPED, Target.LANE, (F,), F),
    ],
)
def test_who_writes_and_reads_where(
    move: Move, state: State, writes: Target, reads: tuple[Tier, ...], tier: Tier
) -> None:
    unit = replace(UNIT, move=move, state=state)
    assert writers(unit) is writes
    assert readers(unit) == reads
    assert unit.tier is tier


@pytest.mark.parametrize("state", [State.OPEN, *UNDER_WAY, State.SWITCHED])
def test_a_supplement_is_read_before_what_is_frozen(state: State) -> None:
    unit = replace(UNIT, move=COLD_FROZEN, state=state, generation=2)
    assert (writers(unit), readers(unit), unit.tier) == (Target.LANE, (C, F), F)
    assert list(frozen_generations(unit)) == [0, 1]


def test_a_frozen_unit_is_supplemented_and_frozen_again() -> None:
    done = Unit("us", WEEK, 0, COLD_FROZEN, State.DROPPED, 5, 9, 4, 3, 1, True, END, END)
    assert list(frozen_generations(done)) == [0]
    again = done.supplemented()
    assert again == Unit("us", WEEK, 0, COLD_FROZEN, State.OPEN, 5, 10, 4, 3, 1, generation=1)
    assert list(frozen_generations(again)) == [0]
    assert list(frozen_generations(replace(again, state=State.DROPPED))) == [0, 1]
    for unit in (again, replace(done, move=WARM_COLD), replace(done, state=State.SWITCHED)):
        with pytest.raises(RefusedError, match="not frozen"):
            unit.supplemented()


def test_what_is_not_frozen_has_no_frozen_files() -> None:
    for move, state in product(MOVES, State):
        is_frozen = (move, state) == (COLD_FROZEN, State.DROPPED)
        assert list(frozen_generations(replace(UNIT, move=move, state=state))) == [0] * is_frozen


@pytest.mark.parametrize(
    ("move", "state", "why"),
    [
        *[(HOT_WARM, state, "not lie in cold") for state in State],
        *[(WARM_COLD, state, "not lie in cold") for state in (State.OPEN, *UNDER_WAY)],
        (WARM_COLD, State.SWITCHED, "is switched"),
        (WARM_COLD, State.DROPPED, None),
        (COLD_FROZEN, State.OPEN, None),
        *[(COLD_FROZEN, state, f"is {state}") for state in (*UNDER_WAY, State.SWITCHED)],
        (COLD_FROZEN, State.DROPPED, None),
    ],
)
def test_a_fold_waits_for_a_move(move: Move, state: State, why: str | None) -> None:
    found = why_not_fold(replace(UNIT, move=move, state=state))
    assert found is None if why is None else found is not None and why in found


def test_only_a_table_s_writers_are_rerouted() -> None:
    """What `reroutes` says is what `writers` does, over all steps of a move."""
    for move in MOVES:
        targets = {writers(replace(UNIT, move=move, state=state)) for state in State}
        assert reroutes(move) is (len(targets) > 1)


def following(unit: Unit) -> Iterator[Unit]:
    yield from (unit.to(state, unit.epoch + 1) for before, state in sorted(LEGAL) if before is unit.state)
    if unit.state is State.DROPPED and unit.move != MOVES[-1]:
        yield unit.next_move()


def walk() -> list[tuple[Unit, Unit]]:
    """Every step that can be reached, by (move, state)."""
    edges, waiting, seen = [], [UNIT], {(UNIT.move, UNIT.state)}
    while waiting:
        unit = waiting.pop()
        for after in following(unit):
            edges.append((unit, after))
            if (after.move, after.state) not in seen:
                seen.add((after.move, after.state))
                waiting.append(after)
    return edges


def test_every_state_of_every_move_is_reached() -> None:
    reached = {(unit.move, unit.state) for edge in walk() for unit in edge}
    assert reached == set(product(MOVES, State))


def looks(unit: Unit) -> set[Target]:
    """The lane is always read."""
    return {Target.LANE, *(Target(tier) for tier in readers(unit) if tier.is_cql)}


@pytest.mark.parametrize(("before", "after"), walk(), ids=lambda unit: f"{unit.move.source}-{unit.state}")
def test_no_step_loses_sight_of_a_write(before: Unit, after: Unit) -> None:
    """Whoever writes by the row before is seen by whoever reads by the row after, and the other way round."""
    assert {writers(before), writers(after)} <= looks(after)
    assert writers(before) in looks(before)
    if after.state is not State.SWITCHED:  # writers obey the switch T later than readers
        assert writers(after) in looks(before)


@pytest.mark.parametrize(("before", "after"), walk(), ids=lambda unit: f"{unit.move.source}-{unit.state}")
def test_no_step_goes_back(before: Unit, after: Unit) -> None:
    order = list(Tier)
    assert after.revision == before.revision + 1
    assert after.epoch >= before.epoch
    assert order.index(after.tier) >= order.index(before.tier)
    assert readers(after)[-1] == after.tier


def test_moves_join_end_to_end() -> None:
    assert [(first.sink, second.source) for first, second in pairwise(MOVES)] == [(W, W), (C, C)]


def test_the_next_move_begins_anew() -> None:
    done = Unit("us", WEEK, 0, HOT_WARM, State.DROPPED, 5, 9, 4, 3, 1, True, END, END)
    assert done.next_move() == Unit("us", WEEK, 0, WARM_COLD, State.OPEN, 5, 10, 0, 3, 1)
    cold = replace(done, move=WARM_COLD).next_move()
    assert (cold.move, cold.shards) == (COLD_FROZEN, 4), "N of a cold unit stays: its pointers are by N"


def test_an_old_week_is_born_cold() -> None:
    unit = born_cold("us", WEEK, 3)
    assert (unit.state, unit.tier, writers(unit), readers(unit)) == (State.OPEN, C, Target.LANE, (C,))


@pytest.mark.parametrize(
    ("move", "state", "settled", "age_days", "due"),
    [
        (HOT_WARM, State.OPEN, False, 6.99, False),
        (HOT_WARM, State.OPEN, False, 7, True),
        (HOT_WARM, State.OPEN, False, 400, True),
        *[(HOT_WARM, state, False, -1, True) for state in UNDER_WAY],
        (HOT_WARM, State.SWITCHED, False, -1, True),
        (HOT_WARM, State.SWITCHED, True, 400, False),
        (HOT_WARM, State.DROPPED, True, 29.99, False),
        (HOT_WARM, State.DROPPED, True, 30, True),
        (WARM_COLD, State.OPEN, False, 29.99, False),
        (WARM_COLD, State.OPEN, False, 30, True),
        (WARM_COLD, State.DROPPED, True, 364.99, False),
        (WARM_COLD, State.DROPPED, True, 365, True),
        (COLD_FROZEN, State.OPEN, False, 365, True),
        (COLD_FROZEN, State.DROPPED, True, 4000, False),
    ],
)
def test_when_a_unit_is_due(move: Move, state: State, settled: bool, age_days: float, due: bool) -> None:
    assert is_due(replace(UNIT, move=move, state=state, settled=settled), days(age_days), POLICY) is due


@given(strategies.units, st.datetimes().map(lambda when: when.replace(tzinfo=END.tzinfo)), st.timedeltas(timedelta(0)))
def test_what_is_due_stays_due(unit: Unit, now: datetime, later: timedelta) -> None:
    try:
        then = now + later
    except OverflowError:
        return
    assert not is_due(unit, now, POLICY) or is_due(unit, then, POLICY)


@pytest.mark.parametrize(
    ("state", "settled", "switched_at", "now", "why"),
    [
        *[(state, True, END, days(400), f"is {state}, not switched") for state in (State.OPEN, *UNDER_WAY)],
        (State.SWITCHED, False, END, days(400), "have not all obeyed"),
        (State.SWITCHED, True, None, days(400), "have not all obeyed"),
        (State.SWITCHED, True, END, days(0.99), "is in grace until"),
        (State.SWITCHED, True, END, days(1), None),
        (State.DROPPED, False, None, END, None),
    ],
)
def test_what_forbids_a_drop(
    state: State, settled: bool, switched_at: datetime | None, now: datetime, why: str | None
) -> None:
    found = why_not_drop(replace(UNIT, state=state, settled=settled, switched_at=switched_at), now, POLICY)
    assert found is None if why is None else found is not None and why in found and UNIT.name in found


@given(st.integers(0, 2**60), st.integers(1, 2**30))
def test_n_is_the_smallest_power_of_two_that_is_enough(size_bytes: int, shard_bytes: int) -> None:
    shards = shards_for(size_bytes, shard_bytes)
    assert shards.bit_count() == 1
    assert size_bytes <= shards * shard_bytes
    assert shards == 1 or size_bytes > shards // 2 * shard_bytes
