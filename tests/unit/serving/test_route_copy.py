"""A writer's copy of the ledger: looked at often enough, obeyed T after it was learned, never back."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.moves import State, Unit
from serving.routing import RouteCopy
from stores.memory_ledger import MemoryLedger

T = 2.0
HALF = T / 2


@dataclass
class Clock:
    """Seconds that pass only when they are told to, or when somebody sleeps."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Watched(MemoryLedger):
    """Counts how often it is asked, and notes since when each number stands."""

    asked: int = 0
    units_read: int = 0

    def route(self) -> int:
        self.asked += 1
        return super().route()

    def units(self) -> list[Unit]:
        self.units_read += 1
        return super().units()


@dataclass
class Case:
    clock: Clock = field(default_factory=Clock)
    ledger: Watched = field(default_factory=lambda: Watched("us"))

    def __post_init__(self) -> None:
        self.ledger.begin(2900)
        self.ledger.create(Unit("us", 2913, 0))
        self.copy = RouteCopy(self.ledger, 1, T, self.clock, self.clock.sleep)

    def state(self) -> State:
        unit = self.copy.current().units[2913, 0]
        return unit.state

    def seal(self) -> int:
        """As the mover does it: the unit row first, then the number."""
        unit = self.ledger.unit(2913, 0)
        assert unit is not None
        self.ledger.change(unit, unit.to(State.SEALED, unit.epoch))
        return self.ledger.next_route()


@pytest.fixture
def case() -> Case:
    return Case()


def test_the_first_copy_is_obeyed_only_after_t(case: Case) -> None:
    assert case.state() is State.OPEN
    assert case.clock.slept == [T]
    assert case.copy.current().number == 0
    assert case.copy.current().first_week == 2900


def test_a_change_is_obeyed_t_after_it_was_learned_and_not_before(case: Case) -> None:
    case.copy.current()
    number = case.seal()
    case.clock.now += HALF
    assert case.copy.current().number == 0  # learned here
    case.clock.now += T - 0.01
    assert case.state() is State.OPEN
    case.clock.now += 0.01
    assert (case.copy.current().number, case.state()) == (number, State.SEALED)
    assert case.clock.slept == [T], "waiting for a change holds nobody up"


def test_the_ledger_is_asked_twice_per_t_and_units_only_when_the_number_is_new(case: Case) -> None:
    case.copy.current()
    asked, read = case.ledger.asked, case.ledger.units_read
    for _ in range(100):
        case.clock.now += HALF / 10
        case.copy.current()
    assert case.ledger.asked - asked == 10
    assert case.ledger.units_read == read


def test_after_a_surprise_everything_is_read_anew_and_t_is_waited(case: Case) -> None:
    case.copy.current()
    number = case.seal()
    assert case.copy.reload().number == number
    assert case.clock.slept == [T, T]
    assert case.state() is State.SEALED


def test_a_reload_reads_units_even_under_the_same_number(case: Case) -> None:
    """A week table is made before its number is announced."""
    case.copy.current()
    case.ledger.create(Unit("us", 2914, 0))
    assert (2914, 0) in case.copy.reload().units


pauses = st.lists(st.tuples(st.floats(0, 1.2 * T), st.booleans()), max_size=30)


@given(pauses)
def test_however_often_routes_change(steps: list[tuple[float, bool]]) -> None:
    """Numbers never go back; each is obeyed no sooner than T after it stood, and no later than T after it was seen."""
    case = Case()
    case.copy.current()
    stood, seen = {0: 0.0}, {0: 0.0}
    last = 0
    for pause, changes in steps:
        if changes:
            stood[case.seal()] = case.clock.now
        case.clock.now += pause
        asked = case.ledger.asked
        obeyed = case.copy.current().number
        if case.ledger.asked > asked:
            seen.setdefault(case.ledger._route, case.clock.now)
        assert obeyed >= last
        assert obeyed == 0 or case.clock.now - stood[obeyed] >= T
        assert obeyed >= max(number for number, at in seen.items() if case.clock.now - at >= T or number == 0)
        assert case.clock.slept == [T]
        last = obeyed
