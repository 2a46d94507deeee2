"""The quality gate: judges the cold files of a unit, and writes the verdict without which nothing of it is dropped.

`python -m quality.run` judges every unit whose move waits for its drop and either came from cold or went there; with
`--week` all cold files of that week. A unit whose very files passed these very rules is passed over. Files are read
back from the store whole; a verdict names rules, and holds nothing of a row.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from core import moves, settings, weeks
from core.errors import BlockedError, DamagedError, FirnError, RefusedError, gravest
from core.ledger import Pointer, Verdict, fingerprint
from core.moves import State, Unit
from core.tiers import Tier
from lakehouse.coldfile import read_cold_file
from lakehouse.paths import table_root
from lakehouse.publish import cold_files
from lakehouse.site import Site, opened
from quality import facts
from quality.suites import Judge, messages_rules
from stores.objects import NotFoundError

Say = Callable[[str], None]
# Beside the rules of the suite: what must be so before rows can be looked at.
WHOLE = "file is whole"
COMPLETE = "every shard has its file"
_NAMED = 8


@dataclass(frozen=True)
class Gate:
    """One run in one region. `failed` collects the units that broke rules, `aside` why others could not be judged."""

    site: Site
    judge: Judge
    now: datetime
    say: Say
    failed: list[str] = field(default_factory=list)
    aside: list[FirnError] = field(default_factory=list)


def run(
    config: settings.Settings, now: datetime, regions: Sequence[str], only: Sequence[int] | None, say: Say
) -> dict[str, Any]:
    """Returns what passed, per region; `only` names weeks, else all that waits for a drop.

    A unit or region that fails does not keep the others; at the end DamagedError names each and the rules it broke.
    """
    report, failed, faults = {}, list[str](), list[FirnError]()
    judge = Judge(messages_rules())
    for region in regions:
        try:
            with opened(config, region, now) as site:
                gate = Gate(site, judge, now, say)
                report[region] = judge_region(gate, only)
                failed += gate.failed
                faults += gate.aside
        except FirnError as fault:
            faults.append(fault)
    if failed:
        faults.append(_stopped(failed, now))
    if faults:
        raise gravest(faults)
    return {"passed": sum(len(region["passed"]) for region in report.values()), "regions": report}


def judge_region(gate: Gate, only: Sequence[int] | None) -> dict[str, Any]:
    """`standing` counts the units that had passed before."""
    passed, standing = [], 0
    for unit in units(gate.site, only):
        try:
            verdict = judge_unit(gate, unit)
        except FirnError as fault:
            gate.say(f"{unit.name}: not judged: {fault.what}")
            gate.aside.append(fault)
            continue
        if verdict is None:
            standing += 1
        elif verdict.passed:
            passed.append(unit.name)
        else:
            gate.failed.append(f"{unit.name} ({'; '.join(verdict.failed)})")
    return {"passed": passed, "standing": standing}


def judge_unit(gate: Gate, unit: Unit) -> Verdict | None:
    """The verdict, written; None where the same one stands already."""
    pointers = cold_files(gate.site, unit)
    if stands(gate, unit, pointers):
        return None
    verdict = judged(gate, unit, pointers)
    if not verdict.passed and gate.site.ledger.unit(unit.week, unit.slice) != unit:
        # Its files may have gone because all is well.
        raise BlockedError(f"unit {unit.name} was moved on by another process", "run the same command again")
    gate.site.ledger.put_verdict(verdict)
    gate.say(f"{unit.name}: {'; '.join(verdict.failed) or 'passed'}")
    return verdict


def units(site: Site, only: Sequence[int] | None) -> list[Unit]:
    """Those that wait for a drop that cold files take part in; of named weeks all that have such files."""
    known = site.ledger.units()
    if unknown := set(only or ()) - {unit.week for unit in known}:
        raise RefusedError(
            f"{site.region} knows no week {weeks.label(min(unknown))}", "see the weeks it knows: ./firn status"
        )
    if only is None:
        return [unit for unit in known if waits(unit)]
    return [unit for unit in known if unit.week in only and unit.shards and Tier.COLD in moves.readers(unit)]


def waits(unit: Unit) -> bool:
    return unit.state is State.SWITCHED and Tier.COLD in (unit.move.source, unit.move.sink)


def stands(gate: Gate, unit: Unit, pointers: Sequence[Pointer]) -> bool:
    """Whether these files have passed these rules already."""
    verdict = gate.site.ledger.verdict(unit.week, unit.slice)
    if verdict is None or not verdict.passed:
        return False
    return (verdict.files, verdict.suite) == (fingerprint(pointers), gate.judge.suite)


def judged(gate: Gate, unit: Unit, pointers: Sequence[Pointer]) -> Verdict:
    """The verdict on exactly these files."""
    found = {pointer.shard: _facts(gate, unit, pointer) for pointer in pointers}
    whole = {shard: each for shard, each in found.items() if each}
    broken = list(gate.judge.broken(list(whole.values())))
    if broken and len(whole) > 1:
        _say_where(gate, unit, whole)
    if len(whole) < len(found):
        broken.insert(0, WHOLE)
    if len(found) != unit.shards and not unit.generation:  # a supplement has the shards that it has
        broken.insert(0, COMPLETE)
    suite, now = gate.judge.suite, gate.now
    return Verdict(unit.week, unit.slice, fingerprint(pointers), suite, not broken, tuple(broken), now)


def _facts(gate: Gate, unit: Unit, pointer: Pointer) -> facts.Facts | None:
    """None for a file that is not there, or not as it was written."""
    batches = read_cold_file(gate.site.objects, f"{table_root(unit.slice)}/{pointer.path}", pointer.sha256)
    tokens = pointer.range(gate.site.config.layout.slices)
    try:
        return facts.of_file(batches, unit.week, tokens, pointer.digest.rows)
    except (DamagedError, NotFoundError) as fault:
        gate.say(f"{unit.name} shard {pointer.shard}: {fault.what}")
        return None


def _say_where(gate: Gate, unit: Unit, found: dict[int, facts.Facts]) -> None:
    for shard, each in found.items():
        if broken := gate.judge.broken([each]):
            gate.say(f"{unit.name} shard {shard}: {'; '.join(broken)}")


def _stopped(failed: Sequence[str], now: datetime) -> DamagedError:
    more = f", and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return DamagedError(
        f"the quality gate stops the drop of {', '.join(failed[:_NAMED])}{more}",
        "nothing of them was dropped: mend what wrote such rows, or bring back the files as they were written, then "
        f"run: ./firn judge --now {now:%Y-%m-%dT%H:%M:%SZ}",
    )


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m quality.run", description="Judge cold files before a drop.")
    options.add_argument("--now", required=True, metavar="INSTANT", help="the time to act at: 2026-03-02T00:00:00Z")
    options.add_argument("--region", action="append", metavar="R", help="only this region (again for more)")
    options.add_argument("--week", action="append", metavar="W", help="all cold files of this week, such as 2026-W08")
    return options


def work(args: argparse.Namespace) -> dict[str, Any]:
    config = settings.load()
    regions = [config.require_region(region) for region in args.region] if args.region else config.regions
    only = [weeks.parse(week) for week in args.week] if args.week else None
    return run(config, _instant(args.now), regions, only, lambda line: print(line, file=sys.stderr, flush=True))


def _instant(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = datetime.min
    if when.tzinfo is None:
        raise RefusedError(f"{text!r} is no instant with a time zone", "give --now as 2026-03-02T00:00:00Z")
    return when.astimezone(UTC)


def main(argv: list[str]) -> int:
    """As of any job: the exit code says how it ended, and the last line is JSON."""
    args = parser().parse_args(argv)
    try:
        result = work(args)
    except FirnError as fault:
        print(f"{type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
        print(json.dumps(fault.as_data()), flush=True)
        return fault.exit_code
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
