"""What a job says of the units that it could not bring on."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import BlockedError, DamagedError, FirnError
from core.ledger import TableState, WeekTable
from core.moves import WARM_COLD, State, Unit
from core.tiers import Tier
from core.weeks import start
from jobs.attempt import Attempt
from jobs.drop import Week
from jobs.fold import Plan, Slice
from stores.memory_ledger import MemoryLedger

WEEK = 2913
UNIT = Unit("us", WEEK, 0, WARM_COLD, State.SWITCHED, epoch=1)
OTHER = replace(UNIT, slice=1)
TABLE = WeekTable("us", WEEK, Tier.WARM, 1, TableState.LIVE)
THINGS = {
    "a unit": UNIT,
    "a week": Week(TABLE, (OTHER, UNIT)),
    "a plan": Plan(UNIT, 1),
    "plans of one table": Slice((Plan(OTHER, 1), Plan(UNIT, 1))),
}


def tried(ledger: MemoryLedger, thing: Any, fault: FirnError) -> list[FirnError]:
    site: Any = SimpleNamespace(ledger=ledger)
    keeper: Any = None
    run = Attempt(site, keeper, None, start(WEEK), "test", lambda _: None)

    def step(_: Any) -> None:
        raise fault

    assert run.able([thing], step) == []
    return run.aside


@pytest.fixture
def ledger() -> MemoryLedger:
    made = MemoryLedger("us")
    for unit in (UNIT, OTHER):
        assert made.create(unit)
    return made


@pytest.mark.parametrize("thing", THINGS.values(), ids=THINGS)
def test_what_looks_like_damage_because_another_went_on_is_none(ledger: MemoryLedger, thing: Any) -> None:
    """As to a dropper that stood still while another dropped the week and a fold changed its files."""
    assert ledger.change(UNIT, UNIT.to(State.DROPPED, 2))
    (found,) = tried(ledger, thing, DamagedError("pointers and proven files differ", "look"))
    assert isinstance(found, BlockedError)
    assert found.what == "pointers and proven files differ; but us/2025-W45/0 was moved on meanwhile"


@pytest.mark.parametrize("thing", THINGS.values(), ids=THINGS)
def test_damage_is_damage_while_nobody_went_on(ledger: MemoryLedger, thing: Any) -> None:
    fault = DamagedError("pointers and proven files differ", "look")
    assert tried(ledger, thing, fault) == [fault]


@pytest.mark.parametrize("thing", THINGS.values(), ids=THINGS)
def test_other_faults_are_told_as_they_are(ledger: MemoryLedger, thing: Any) -> None:
    assert ledger.change(UNIT, UNIT.to(State.DROPPED, 2))
    fault = BlockedError("no Cassandra answers", "start it")
    assert tried(ledger, thing, fault) == [fault]
