"""The simulation of the mover: every law holds over many seeds, every known-bad variant is caught, and a seed is the
same history byte for byte.

A figure of a long run stands in docs/performance.md; `python -m bench.histories` makes one.
"""

import inspect
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.histories import told
from bench.simulation import history
from bench.simulation.controls import CONTROLS
from bench.simulation.history import Outcome
from bench.simulation.seams import SEAMS, Seam, installed
from bench.simulation.shrinking import law_of, shrunk
from bench.simulation.statements import UnknownStatementError, parsed
from bench.simulation.world import Plan
from bench.simulation.wrong_readers import RIGHT_ORDER

ROOT = Path(__file__).resolve().parents[3]
SEEDS, AT_ONCE = 140, 20
SEARCHED = 1000
# A seed that catches each, and that holds without it. Another change of the jobs may shift what a seed does: then
# `python -m bench.histories --control NAME --until-caught` finds the next one.
CAUGHT_BY = {
    "drop before verify": 3,
    "proof that reads nothing": 3,
    "delete what is selected": 2,
    "lane cleared by range": 1,
    "commit without epoch": 524,
    "commit without its sources": 23,
    "freeze without a fence": 366,
    "cleanup on unknown": 9,
    "pointer set backwards": 25,
    "seal without the gate": 11,
    "gate without route": 11,
    "wall-clock timestamps": 2,
    "offsets before rows": 0,
    "drop after a quorum read": 3,
    "grace skipped": 67,
    "lease unchecked": 8,
    "cold before hot": 8,
    "sink before lane": 172,
    "dedupe keeps the first": 1,
    "overlay before dedupe": 1,
    "old copy of the ledger": 2,
}
FAULTS = {
    *("pause", "kill", "lost request", "lost reply", "straggler", "half a batch", "missed replica"),
    *("lost executor", "rot", "sent twice", "overtaken"),
}


def outcome(plan: Plan, seams: Sequence[Seam] = ()) -> Outcome:
    with installed((*SEAMS, *seams)):
        return history.run(plan)


@pytest.fixture(scope="module")
def happened() -> set[str]:
    """What went wrong in the histories so far, by kind."""
    return set()


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_every_law_holds(first: int, happened: set[str]) -> None:
    outcomes = [outcome(Plan(seed)) for seed in range(first, first + AT_ONCE)]
    assert {found.plan.seed: found.violation for found in outcomes if found.violation} == {}
    happened.update(kind for found in outcomes for kind in found.happened.values())


def test_everything_that_may_go_wrong_did(happened: set[str]) -> None:
    """Of the histories above; alone, this has none to look at."""
    if not happened:
        pytest.skip("no histories ran before")
    assert happened >= FAULTS


def test_every_control_has_its_seed() -> None:
    assert CAUGHT_BY.keys() == CONTROLS.keys()
    assert all(seed < SEARCHED for seed in CAUGHT_BY.values())


@pytest.mark.parametrize("name", CAUGHT_BY)
def test_a_known_bad_variant_is_caught(name: str) -> None:
    plan = Plan(CAUGHT_BY[name])
    assert outcome(plan, CONTROLS[name].seams).violation, CONTROLS[name].what
    assert not outcome(plan).violation


def test_the_right_order_is_let_be() -> None:
    """The reader that two of the controls are tried on is wrong in its order alone."""
    assert [outcome(Plan(seed), RIGHT_ORDER).violation for seed in range(10)] == [""] * 10


def test_a_seed_gives_the_same_history_each_time() -> None:
    with installed():
        first, again = (told(history.run(Plan(5, is_told=True))) for _ in range(2))
        other = told(history.run(Plan(6, is_told=True)))
    assert first == again
    assert len(first.splitlines()) > 100
    assert first != other


def test_a_seed_gives_the_same_history_in_every_process() -> None:
    """However Python orders its sets there."""
    command = [sys.executable, "-m", "bench.histories", "--seed", "5"]
    texts = [
        subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert "every law holds" in texts[0]


def test_a_failing_history_is_made_short_and_replays() -> None:
    with installed((*SEAMS, *CONTROLS["commit without epoch"].seams)):
        failing = history.run(Plan(CAUGHT_BY["commit without epoch"]))
        short = shrunk(failing, history.run)
        again = history.run(short.plan)
        text = told(short)
    assert len(short.happened) < len(failing.happened)
    assert law_of(short) == law_of(failing)
    assert (again.violation, again.happened) == (short.violation, short.happened)
    assert text.splitlines()[-1].endswith(f"*** {short.violation}")
    assert not outcome(short.plan).violation


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: f"{seam.module}.{seam.name}")
def test_a_seam_is_where_it_says(seam: Seam) -> None:
    """And what stands there takes as many arguments as what it replaces must be given."""
    there = getattr(seam.owner, seam.attribute)
    if inspect.isfunction(there) and inspect.isfunction(seam.instead):
        required = [one for one in inspect.signature(there).parameters.values() if one.default is one.empty]
        inspect.signature(seam.instead).bind(*required)


def test_a_seam_that_leads_nowhere_is_found() -> None:
    with pytest.raises(AttributeError), installed([Seam("core.ring", "tokken", None)]):
        pass


def test_a_statement_that_the_cluster_does_not_know_is_found() -> None:
    with pytest.raises(UnknownStatementError):
        parsed("UPDATE us_hot.lane SET event = ? WHERE week = ?")
