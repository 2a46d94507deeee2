"""What may be done to a stuck unit by hand; and no way through moves, thaws and overrides loses sight of a write."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import weeks
from core.errors import RefusedError
from core.moves import (
    COLD_FROZEN,
    COLD_WARM,
    FROZEN_COLD,
    HOT_WARM,
    MOVES,
    THAWS,
    WARM_COLD,
    WARM_HOT,
    Move,
    State,
    Target,
    Unit,
    readers,
    reroutes,
    seal_reroutes,
    why_not_fold,
    why_not_thaw,
    writers,
)
from core.overrides import checked_reason, outcome, overridden, reroutes_back
from core.tiers import Tier
from tests import strategies

WEEK = 2913
END = weeks.end(WEEK)
UNIT = Unit("us", WEEK, 0, epoch=3, revision=8, shards=4, sealed_at=END, generation=1)
ALL = (*MOVES, *THAWS)


@pytest.mark.parametrize("move", ALL, ids=str)
@pytest.mark.parametrize("state", [State.COPIED, State.VERIFIED])
def test_what_was_copied_is_sealed_under_a_new_epoch(move: Move, state: State) -> None:
    unit = replace(UNIT, move=move, state=state)
    back = overridden(unit, state, 4, False)
    assert back == replace(unit, state=State.SEALED, epoch=4, revision=9)
    assert not reroutes_back(unit), "writers stay in the lane"


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_what_is_sealed_opens_again_with_its_n(move: Move) -> None:
    unit = replace(UNIT, move=move, state=State.SEALED)
    assert overridden(unit, State.SEALED, 4, False) == replace(
        unit, state=State.OPEN, epoch=4, revision=9, sealed_at=None
    )
    assert reroutes_back(unit) is (move is not COLD_FROZEN)


@pytest.mark.parametrize("state", [State.OPEN, State.SEALED])
@pytest.mark.parametrize(
    ("move", "has_supplement", "wanted"),
    [
        (WARM_HOT, False, replace(UNIT, move=WARM_COLD, shards=0)),
        (COLD_WARM, False, replace(UNIT, move=COLD_FROZEN)),
        (FROZEN_COLD, True, replace(UNIT, move=COLD_FROZEN)),
        (FROZEN_COLD, False, replace(UNIT, move=COLD_FROZEN, state=State.DROPPED, settled=True, generation=0)),
    ],
)
def test_a_thaw_is_given_up(state: State, move: Move, has_supplement: bool, wanted: Unit) -> None:
    unit = replace(UNIT, move=move, state=state, hold_until=END)
    assert overridden(unit, state, 4, has_supplement) == replace(wanted, epoch=4, revision=9, sealed_at=None)


@pytest.mark.parametrize(
    ("move", "state"),
    [*product(ALL, (State.SWITCHED, State.DROPPED)), *((move, State.OPEN) for move in MOVES)],
)
def test_nothing_leads_back_from_there(move: Move, state: State) -> None:
    unit = replace(UNIT, move=move, state=state)
    assert outcome(unit) is None
    with pytest.raises(RefusedError, match="no override leads back") as refusal:
        overridden(unit, state, 4, False)
    assert ("./firn thaw" in refusal.value.do) is (state is not State.OPEN)


@given(strategies.units, st.sampled_from(State))
def test_a_stale_operator_is_refused(unit: Unit, found_in: State) -> None:
    if unit.state is not found_in:
        with pytest.raises(RefusedError, match="it went on since you looked"):
            overridden(unit, found_in, unit.epoch + 1, False)


@given(strategies.units, st.booleans())
def test_an_override_never_goes_forward_and_never_leaves_the_tier(unit: Unit, has_supplement: bool) -> None:
    if outcome(unit) is None or (unit.move == FROZEN_COLD) is (unit.generation == 0):
        return
    back = overridden(unit, unit.state, unit.epoch + 1, has_supplement)
    order = list(State)
    assert back.tier is unit.tier
    assert back.revision == unit.revision + 1
    assert back.epoch == unit.epoch + 1
    assert order.index(back.state) < order.index(unit.state) or unit.move.is_thaw


@pytest.mark.parametrize("reason", ["the consumer of us stood still", "OPS-4711: gate", "  trimmed  "])
def test_a_reason_is_taken(reason: str) -> None:
    assert checked_reason(reason) == reason.strip()


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "  ",
        "x" * 201,
        "two\nlines",
        "ask a@b",
        "user 123456789",
        "0f0e0d0c-0b0a-8908-8706-050403020100",
        "tab\there",
    ],
)
def test_a_reason_that_says_nothing_or_names_somebody_is_refused(reason: str) -> None:
    with pytest.raises(RefusedError):
        checked_reason(reason)


# A model of the whole: where every write lies, and which rows of the ledger a writer may still go by.

Place = Target | Tier
STEPS = ("write", "seal", "copy", "verify", "switch", "settle", "drop", "next", "fold", "thaw", "override", "override")


def place(tier: Tier) -> Place:
    return Target(tier) if tier.is_cql else tier


@dataclass
class World:
    """`believed`: the rows that some writer may go by, since the last gate that was passed."""

    unit: Unit = Unit("us", WEEK, 0, shards=1)
    held: dict[Place, set[int]] = field(default_factory=dict)
    believed: list[Unit] = field(default_factory=list)
    written: int = 0

    def __post_init__(self) -> None:
        self.believed = [self.unit]

    def at(self, where: Place) -> set[int]:
        return self.held.setdefault(where, set())

    def become(self, unit: Unit, is_gated: bool = False) -> None:
        self.unit = unit
        self.believed = [unit] if is_gated else [*self.believed, unit]

    def do(self, step: str, number: int) -> None:
        """One step where it is allowed; else nothing."""
        getattr(self, f"_{step}")(number)

    def _write(self, number: int) -> None:
        self.written += 1
        self.at(writers(self.believed[number % len(self.believed)])).add(self.written)

    def _seal(self, _: int) -> None:
        if self.unit.state is State.OPEN:
            sealed = self.unit.to(State.SEALED, self.unit.epoch)
            self.become(replace(sealed, shards=1), is_gated=seal_reroutes(self.unit.move))

    def _copy(self, _: int) -> None:
        if self.unit.state is State.SEALED:
            self.at(place(self.unit.move.sink)).update(self._source())
            self.become(self.unit.to(State.COPIED, self.unit.epoch))

    def _source(self) -> set[int]:
        return set().union(*(self.at(place(tier)) for tier in readers(self.unit)))

    def _verify(self, _: int) -> None:
        if self.unit.state is State.COPIED:
            lane = self.at(Target.LANE)
            is_same = self._source() | lane == self.at(place(self.unit.move.sink)) | lane
            self.become(self.unit.to(State.VERIFIED if is_same else State.SEALED, self.unit.epoch))

    def _switch(self, _: int) -> None:
        if self.unit.state is State.VERIFIED:
            self.become(replace(self.unit.to(State.SWITCHED, self.unit.epoch), settled=False))

    def _settle(self, _: int) -> None:
        if self.unit.state is State.SWITCHED and not self.unit.settled:
            self.become(self.unit.changed(settled=True), is_gated=reroutes(self.unit.move))
            if self.unit.move.sink.is_cql:
                self._take_in(place(self.unit.move.sink))

    def _take_in(self, sink: Place) -> None:
        self.at(sink).update(self.at(Target.LANE))
        self.at(Target.LANE).clear()

    def _drop(self, _: int) -> None:
        if self.unit.state is State.SWITCHED and self.unit.settled:
            self.at(place(self.unit.move.source)).clear()
            self.become(self.unit.to(State.DROPPED, self.unit.epoch))

    def _next(self, _: int) -> None:
        if self.unit.state is State.DROPPED and self.unit.move.sink is not Tier.FROZEN:
            self.become(self.unit.next_move())

    def _fold(self, _: int) -> None:
        if why_not_fold(self.unit) is None:
            is_frozen = (self.unit.move, self.unit.state) == (COLD_FROZEN, State.DROPPED)
            self._take_in(Tier.COLD)
            if is_frozen:
                self.become(self.unit.supplemented())

    def _thaw(self, _: int) -> None:
        if why_not_thaw(self.unit) is None:
            self.become(self.unit.thawed(END + timedelta(days=9)))

    def _override(self, _: int) -> None:
        if outcome(self.unit):
            self.become(overridden(self.unit, self.unit.state, self.unit.epoch + 1, bool(self.at(Tier.COLD))))

    def seen(self) -> set[int]:
        return self.at(Target.LANE) | self._source()


MOVED = ("seal", "copy", "verify", "switch", "settle", "drop", "next")
# Far states are begun from, and most ways go mostly straight on with anything in between.
BEGINNINGS = [(), ("write", *MOVED), ("write", *MOVED) * 2, ("write", *MOVED) * 3]
BEGINNINGS.append((*BEGINNINGS[3], "write", "fold"))
ONWARD = ("write", "seal", "write", "copy", "verify", "write", "switch", "write", "settle", "write", "drop", "next")
WAYS = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7)), max_size=40)


def straight(given: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return [one for number, other in enumerate(given) for one in ((ONWARD[number % len(ONWARD)], number), other)]


@settings(max_examples=1000)
@given(st.sampled_from(BEGINNINGS), st.one_of(WAYS, WAYS.map(straight)))
def test_no_way_loses_sight_of_a_write(beginning: tuple[str, ...], way: list[tuple[str, int]]) -> None:
    """Readers of every row that the ledger ever has see all that was written by any row that a writer went by."""
    world = ran(*beginning)
    for step, number in way:
        world.do(step, number)
        assert world.seen() == set(range(1, world.written + 1)), (step, world.unit)


def ran(*steps: str) -> World:
    world = World()
    for number, step in enumerate(steps):
        world.do(step, number)
    return world


def test_the_model_goes_all_the_way_down_and_up_again() -> None:
    world = ran("write", *MOVED, "write", *MOVED, "write", *MOVED[:-1])
    assert (world.unit.tier, len(world.at(Tier.FROZEN)), len(world.at(Target.LANE))) == (Tier.FROZEN, 2, 1)
    for tier in (Tier.COLD, Tier.WARM, Tier.HOT):
        for step in ("thaw", *MOVED):
            world.do(step, 0)
        assert (world.unit.tier, world.unit.state) == (tier, State.OPEN)
        assert world.seen() == {1, 2, 3}
    assert world.held[Target.HOT] == {1, 2, 3}
    assert world.unit.move == HOT_WARM


def test_the_model_sees_an_override_that_goes_back_over_a_switch() -> None:
    """What `core.overrides` refuses: done all the same, a write is out of sight."""
    world = ran("seal", "copy", "verify", "switch", "settle", "write")
    world.become(replace(world.unit, state=State.SEALED))
    assert world.seen() == set()


def test_the_model_sees_a_seal_that_no_gate_guards() -> None:
    world = ran()
    world.become(replace(world.unit.to(State.SEALED, 0), shards=1), is_gated=False)
    world.do("copy", 0)
    world.do("verify", 0)
    world.do("switch", 0)
    world.become(world.unit.changed(settled=True))
    world.do("drop", 0)
    world.do("write", 0)
    assert world.seen() == set()
