"""Takes what has gathered for cold and frozen units, in the lane and in runs, into their files.

    take leases ─ repair pointers ─ fix N ─ rewrite (Spark) ─ commit, pointers ─ wait for readers ─ clear the lane
                                     └ of a week that never had a table           └ T + the longest read, once for all

A frozen unit's lane becomes a supplement: a file in cold with those rows alone, which readers lay over what is frozen
and which is frozen in its turn. A run that was killed anywhere is finished by the next one: merging twice is merging
once, and nothing leaves the lane before the file that holds it can be read.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any

from pyspark.sql import SparkSession

from core import moves, ring, settings, weeks
from core.ledger import Run
from core.moves import COLD_FROZEN, State, Unit
from jobs import attempt, shell
from jobs.attempt import Attempt, each_region
from lakehouse.folds import Folded, Task, fold
from lakehouse.guards import require_no_rule
from lakehouse.publish import cold_files, live_files_of, publish_rewrite, repair_pointers, table_lease
from lakehouse.session import succeeded
from lakehouse.site import Site
from schemas.events import encode
from stores.leases import holding


@dataclass(frozen=True)
class Plan:
    """A unit as the ledger has it, and its N. The ledger names N only when there are files for it."""

    unit: Unit
    shards: int

    @property
    def name(self) -> str:
        return self.unit.name

    @property
    def units(self) -> tuple[Unit, ...]:
        return (self.unit,)

    @property
    def cut(self) -> Unit:
        return replace(self.unit, shards=self.shards)

    @property
    def after(self) -> Unit:
        """What it will be when its fold is done: a frozen unit is open in cold again, with a supplement."""
        is_frozen = (self.unit.move, self.unit.state) == (COLD_FROZEN, State.DROPPED)
        return self.cut.supplemented() if is_frozen else self.cut


@dataclass(frozen=True)
class Slice:
    """Plans that share a table."""

    plans: tuple[Plan, ...]

    @property
    def name(self) -> str:
        unit = self.plans[0].unit
        return f"{unit.region}/{unit.slice}"

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(plan.unit for plan in self.plans)


@dataclass(frozen=True)
class Done:
    """A unit whose files hold all of it, and what may leave the lane and the list of runs for that."""

    unit: Unit
    runs: tuple[Run, ...]
    folded: tuple[Folded, ...]

    @property
    def files(self) -> int:
        return sum(one.part is not None for one in self.folded)

    @property
    def events(self) -> int:
        return sum(len(one.events) for one in self.folded)


def run(
    spark: SparkSession | None,
    config: settings.Settings,
    now: datetime,
    regions: tuple[str, ...],
    only: Sequence[int] | None,
    say: shell.Say,
) -> dict[str, Any]:
    """Returns what was folded, per region; `only` names weeks, else all that have something to fold."""
    report = each_region(spark, config, now, regions, say, lambda ours: fold_region(ours, only))
    return {"folded": sum(len(region["folded"]) for region in report.values()), "regions": report}


def fold_region(run: Attempt, only: Sequence[int] | None) -> dict[str, Any]:
    waiting, later = due_units(run, only)
    if waiting:
        require_no_rule(run.site)
    units, busy = run.take(waiting, lambda unit: moves.why_not_fold(unit) is None)
    plans = run.able(units, lambda unit: Plan(unit, unit.shards or _first_shards(run.site, unit)))
    plans = repaired(run, plans)
    tasks = dict(run.able(plans, lambda plan: (plan.unit.key, tasks_of(run, plan))))
    by_key = {plan.unit.key: plan for plan in plans if plan.unit.key in tasks}
    outcomes = run.spread(fold, [(by_key[key].unit, task) for key in by_key for task in tasks[key]])

    def published(unit: Unit) -> Done:
        return _published(run, by_key[unit.key], tasks[unit.key], succeeded(outcomes[unit.key]))

    done = {one.unit: one for one in run.able([plan.unit for plan in by_key.values()], published)}
    _wait_for_readers(run.site, done.values())
    finished = run.able(done, lambda unit: _cleared(run, done[unit]))
    return {
        "folded": [f"{weeks.label(one.unit.week)}/{one.unit.slice}" for one in finished],
        "files": sum(one.files for one in finished),
        "events": sum(one.events for one in finished),
        "held_elsewhere": busy,
        "later": later,
    }


def due_units(run: Attempt, only: Sequence[int] | None) -> tuple[list[Unit], dict[str, str]]:
    """Units with something in the lane or in runs that may be folded now; and by name why others must wait."""
    units = run.site.ledger.units()
    shell.require_known(run.site.region, units, only)
    chosen = [unit for unit in units if only is None or unit.week in only]
    lower = [unit for unit in chosen if not unit.tier.is_cql]
    below = [unit for unit, work in run.able(lower, lambda unit: (unit, has_work(run.site, unit))) if work]
    reasons = {unit: moves.why_not_fold(unit) for unit in below}
    return [unit for unit in below if not reasons[unit]], {unit.name: why for unit, why in reasons.items() if why}


def has_work(site: Site, unit: Unit) -> bool:
    """Also where a fold was killed after its commit: what it took in is in the lane still."""
    if any(not run.folded for run in site.ledger.runs(unit.week, unit.slice)):
        return True
    return not site.lane.is_empty(unit.week, ring.cut(unit.slice, site.config.layout.slices))


def repaired(run: Attempt, plans: Sequence[Plan]) -> list[Plan]:
    """With their pointers brought up to the Delta log, slice by slice; without those of slices where that failed."""
    by_slice = [[plan for plan in plans if plan.unit.slice == slice_] for slice_ in {plan.unit.slice for plan in plans}]
    return list(chain.from_iterable(run.able(map(Slice, map(tuple, by_slice)), lambda mine: _repaired(run, mine))))


def _repaired(run: Attempt, mine: Slice) -> Sequence[Plan]:
    with holding(run.keeper, table_lease(mine.plans[0].unit), run.site.config.clocks.gate_seconds):
        if wrong := repair_pointers(run.site, [plan.cut for plan in mine.plans]):
            run.say(f"{mine.name}: {wrong} pointers brought up to the Delta log")
    return mine.plans


def _first_shards(site: Site, unit: Unit) -> int:
    """N of a week that never had a table, from the bytes that wait for it; or as a killed first fold has cut it."""
    if cut := len(live_files_of(site, unit)):
        return cut
    tokens = ring.cut(unit.slice, site.config.layout.slices)
    waiting = sum(one.size_bytes for one in site.ledger.runs(unit.week, unit.slice) if not one.folded)
    waiting += sum(len(encode(event)) for event in site.lane.scan(unit.week, tokens))
    return moves.shards_for(waiting, site.config.layout.shard_bytes)


def tasks_of(run: Attempt, plan: Plan) -> list[Task]:
    old = {pointer.shard: pointer for pointer in cold_files(run.site, plan.cut)}
    runs = tuple(one for one in run.site.ledger.runs(plan.unit.week, plan.unit.slice) if not one.folded)
    return [Task(plan.after, shard, old.get(shard), runs, run.name) for shard in range(plan.shards)]


def _published(run: Attempt, plan: Plan, tasks: Sequence[Task], folded: Sequence[Folded]) -> Done:
    """Its number is taken before the commit; N, and that there is a supplement, are told after the pointers."""
    unit, parts = plan.unit, [one.part for one in folded if one.part]
    if parts:
        unit = run.change(unit, unit.changed(commits=unit.commits + 1))
        old = {task.shard: task.old for task in tasks if task.old}
        with holding(run.keeper, table_lease(unit), run.site.config.clocks.gate_seconds):
            run.check(unit)
            publish_rewrite(run.site, replace(unit, shards=plan.shards), parts, old, run.name, run.now)
    if cold_files(run.site, plan.cut):
        after = replace(plan, unit=unit).after
        unit = unit if after == unit else run.change(unit, replace(after, revision=unit.revision + 1))
    run.say(f"{unit.name}: {len(parts)} files of {sum(part.digest.rows for part in parts)} rows written")
    return Done(unit, tasks[0].runs, tuple(folded))


def _wait_for_readers(site: Site, done: Iterable[Done]) -> None:
    """Those that began before the pointers moved still look for it in the lane."""
    if any(one.events for one in done):
        time.sleep(site.config.clocks.ledger_age_seconds + site.config.clocks.longest_read_seconds)


def _cleared(run: Attempt, done: Done) -> Done:
    run.check(done.unit)
    for one in done.folded:
        run.site.lane.clear(done.unit.week, one.events)
    for taken in done.runs:
        run.site.ledger.fold_run(taken)
    run.say(f"{done.unit.name}: folded, {done.events} events taken out of the lane")
    return done


def parser() -> Any:
    options = shell.options("python -m jobs.fold", "Take late changes and imported rows into cold files.")
    shell.week_option(options)
    return options


def main(argv: list[str]) -> int:
    return attempt.main(
        argv,
        parser(),
        "firn fold",
        lambda spark, config, regions, args: run(spark, config, args.now, regions, args.week, shell.say),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
