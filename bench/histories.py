"""Runs histories of the mover by their seeds, and judges each: `python -m bench.histories --seeds 1000`.

A history that breaks a law is made short and told; its seed and the commit give it again. The last line is JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.simulation import history
from bench.simulation.controls import CONTROLS
from bench.simulation.history import Outcome
from bench.simulation.seams import SEAMS, installed
from bench.simulation.shrinking import law_of, shrunk
from bench.simulation.world import Plan

PROGRESS_SECONDS = 30.0
TOLD_MAX = 5


def main(argv: Sequence[str]) -> int:
    args = _arguments(argv)
    control = CONTROLS[args.control] if args.control else None
    seams = (*SEAMS, *(control.seams if control else ()))
    with installed(seams):
        return _one(args.seed, args.short) if args.seed is not None else _many(args)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.histories", description="Simulate the mover.")
    parser.add_argument("--seeds", type=int, default=1000, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no history after so long")
    parser.add_argument("--seed", type=int, help="tell this one history, whatever becomes of it")
    parser.add_argument("--short", action="store_true", help="with --seed: make it short first, if it breaks a law")
    parser.add_argument("--control", choices=sorted(CONTROLS), help="with this known-bad variant of the product")
    parser.add_argument("--until-caught", action="store_true", help="end with the first history that breaks a law")
    return parser.parse_args(argv)


def _one(seed: int, is_short: bool) -> int:
    found = history.run(Plan(seed, is_told=True))
    if is_short and found.violation:
        found = shrunk(found, history.run)
    print(told(found))
    return 1 if found.violation else 0


def _many(args: argparse.Namespace) -> int:
    began, seeds = time.perf_counter(), range(args.first, args.first + args.seeds)
    commit = _commit()  # as it is loaded, whatever becomes of the work tree meanwhile
    laws: Counter[str] = Counter()
    failed: list[int] = []
    steps = done = 0
    for outcome in _progressing(seeds, began + args.minutes * 60.0):
        done, steps = done + 1, steps + outcome.steps
        if outcome.violation:
            failed.append(outcome.plan.seed)
            _report(outcome, len(failed), laws)
            laws[law_of(outcome)] += 1
            if args.until_caught:
                break
    seconds = time.perf_counter() - began
    facts = {"histories": done, "first": args.first, "control": args.control, "failed": len(failed)}
    speed = {"seconds": round(seconds, 1), "per_second": round(done / seconds, 2), "steps": steps}
    print(json.dumps(facts | {"seeds": failed[:100], "laws": laws} | speed | {"commit": commit}))
    return 1 if failed else 0


def _progressing(seeds: Sequence[int], until: float) -> Iterator[Outcome]:
    told_at = time.perf_counter()
    for number, seed in enumerate(seeds, 1):
        yield history.run(Plan(seed))
        if time.perf_counter() > until:
            return
        if time.perf_counter() - told_at > PROGRESS_SECONDS:
            told_at = time.perf_counter()
            print(f"{number} of {len(seeds)}, the last is seed {seed}", flush=True)


def _report(outcome: Outcome, number: int, laws: Counter[str]) -> None:
    """The first of each law is told in full."""
    if number > TOLD_MAX or laws[law_of(outcome)]:
        print(f"seed {outcome.plan.seed}: {outcome.violation}", flush=True)
        return
    print(told(shrunk(outcome, history.run)), flush=True)


def told(outcome: Outcome) -> str:
    """The same plan is told in the same words, byte for byte."""
    if not outcome.plan.is_told:
        outcome = history.run(replace(outcome.plan, is_told=True))
    head = f"seed {outcome.plan.seed}: {outcome.violation or 'every law holds'}"
    odd = [f"  {name}: {kind}" for name, kind in outcome.happened.items()]
    lines = [f"{seconds:9.3f} {who:<24} {what}" for seconds, who, what in outcome.story]
    return "\n".join([head, f"{len(odd)} odd things", *odd, *lines])


def _commit() -> str:
    """With a `+` where the work tree differs from it; empty where there is none."""
    here = Path(__file__).parent
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
