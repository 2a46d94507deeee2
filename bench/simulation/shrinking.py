"""Makes a failing history short: leaves out odd things until each that is left is needed for the same violation."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.simulation.history import Outcome
from bench.simulation.world import Plan

TRIES_MAX = 400


def shrunk(failing: Outcome, run: Callable[[Plan], Outcome]) -> Outcome:
    """By delta debugging; the law that is broken stays the same."""
    law = law_of(failing)
    best, kept = failing, sorted(failing.happened)
    pieces, tries = 2, 0
    while kept and tries < TRIES_MAX:
        for left_out in _pieces(kept, pieces):
            tries += 1
            wanted = frozenset(kept) - frozenset(left_out)
            found = run(replace(failing.plan, only=wanted))
            if found.violation and law_of(found) == law:
                best, kept = found, sorted(found.happened)
                pieces = max(pieces - 1, 2)
                break
        else:
            if pieces >= len(kept):
                break
            pieces = min(len(kept), pieces * 2)
    return best


def law_of(outcome: Outcome) -> str:
    return outcome.violation.partition(":")[0]


def _pieces(names: Sequence[str], count: int) -> list[Sequence[str]]:
    size = max(1, -(-len(names) // count))
    return [names[at : at + size] for at in range(0, len(names), size)]
