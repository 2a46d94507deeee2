"""A unit is judged as it is: what was dropped while its judge stood still breaks no rule."""

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import BlockedError
from core.moves import COLD_FROZEN, State, Unit
from quality.run import COMPLETE, Gate, judge_unit
from stores.memory_ledger import MemoryLedger

NOW = datetime(2026, 11, 1, tzinfo=UTC)
UNIT = Unit("us", 2913, 0, COLD_FROZEN, State.SWITCHED, epoch=1, shards=1)


@pytest.fixture
def gate() -> Gate:
    """Of a unit without a single file; the rules themselves are tried elsewhere."""
    ledger = MemoryLedger("us")
    ledger.create(UNIT)
    site: Any = SimpleNamespace(ledger=ledger)
    judge: Any = SimpleNamespace(suite="some", broken=lambda _: [])
    return Gate(site, judge, NOW, lambda _: None)


def test_a_unit_that_lacks_a_file_has_failed(gate: Gate) -> None:
    verdict = judge_unit(gate, UNIT)
    assert verdict == gate.site.ledger.verdict(UNIT.week, UNIT.slice)
    assert verdict
    assert verdict.failed == (COMPLETE,)


def test_a_unit_that_was_moved_on_meanwhile_has_no_verdict(gate: Gate) -> None:
    gate.site.ledger.change(UNIT, replace(UNIT, state=State.DROPPED, revision=UNIT.revision + 1))
    with pytest.raises(BlockedError, match="moved on"):
        judge_unit(gate, UNIT)
    assert gate.site.ledger.verdict(UNIT.week, UNIT.slice) is None
