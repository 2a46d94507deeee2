"""Drops the source of every switched week whose grace is over, and only after its sink was read back once more.

A separate job with a right of its own, a dry run unless told otherwise. A week's tables go whole, so all slices of the
week must be free to go: switched, settled, proven part by part, past their grace, and the sink, read from all replicas,
must hold everything that the source holds. Cold files, the source of what was frozen, go unit by unit (`withdrawal`).
Nothing of a unit goes before the quality gate has passed its cold files.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from core import ledger, moves, settings, weeks
from core.errors import BlockedError, DamagedError
from core.ledger import Part, TableState, WeekTable
from core.moves import State, Unit
from core.tiers import Tier
from jobs import attempt, shell, withdrawal
from jobs.attempt import Attempt, each_region
from jobs.verdicts import why_not_judged
from lakehouse import ends
from lakehouse.guards import require_no_rule
from lakehouse.publish import parts_of, require_logged, require_pointers
from lakehouse.session import Failure, succeeded
from lakehouse.site import Site
from stores import messages
from stores.leases import Keeper, holding


@dataclass(frozen=True)
class Week:
    """The tables of one week in one tier, with the units that must all be ready to lose them."""

    table: WeekTable
    units: tuple[Unit, ...]

    @property
    def name(self) -> str:
        return f"{self.table.region}/{weeks.label(self.table.week)}/{self.table.tier}"


def run(
    spark: SparkSession | None,
    config: settings.Settings,
    now: datetime,
    regions: tuple[str, ...],
    only: Sequence[int] | None,
    apply: bool,
    say: shell.Say,
) -> dict[str, Any]:
    """Returns what was dropped (or would be) and why the rest stays."""
    report = each_region(spark, config, now, regions, say, lambda ours: drop_region(ours, only, apply))
    return {"applied": apply, "dropped": sum(len(region["dropped"]) for region in report.values()), "regions": report}


def drop_region(run: Attempt, only: Sequence[int] | None, apply: bool) -> dict[str, Any]:
    site = run.site
    reasons = {week: why_not(site, week, run.now) for week in candidates(site, only)}
    free = [week for week, why in reasons.items() if not why]
    free = prove(run, free)
    cold = {unit: withdrawal.why_not(run, unit) for unit in withdrawal.candidates(run, only)}
    if any(not unit.move.sink.is_cql for unit in [*cold, *(unit for week in free for unit in _leaving(week))]):
        require_no_rule(site)
    frozen = withdrawal.prove(run, [unit for unit, why in cold.items() if not why])
    if apply and (free or frozen):
        _wait_for_readers(site)
        free = run.able(free, lambda week: drop(site, run.keeper, week))
        frozen = run.able(frozen, lambda unit: withdrawal.drop(run, unit))
    dropped = [*(week.name for week in free), *map(withdrawal.name_of, frozen)]
    for name in dropped:
        run.say(f"{name}: {'dropped' if apply else 'would be dropped'}")
    kept = {week.name: why[0] for week, why in reasons.items() if why}
    return {"dropped": dropped, "kept": kept | {withdrawal.name_of(unit): why for unit, why in cold.items() if why}}


def candidates(site: Site, only: Sequence[int] | None) -> list[Week]:
    """Week tables that stand while a unit of theirs has been switched away, oldest first."""
    units = site.ledger.units()
    shell.require_known(site.region, units, only)
    tables = [table for table in site.ledger.tables() if table.state is not TableState.DROPPED]
    found = [Week(table, tuple(unit for unit in units if unit.week == table.week)) for table in tables]
    chosen = [week for week in found if _is_leaving(week) and (only is None or week.table.week in only)]
    return sorted(chosen, key=lambda week: week.table.week)


def why_not(site: Site, week: Week, now: datetime) -> list[str]:
    if week.table.state is TableState.DROPPING:
        return []  # it was proven before the first table of it went
    slices = {unit.slice for unit in week.units}
    if len(slices) != site.config.layout.slices:
        return [f"{week.name}: the ledger lacks slices of this week"]
    mine = [unit for unit in week.units if not moves.has_left(unit, week.table.tier)]
    staying = [f"{unit.name} still lies in {unit.tier}" for unit in mine if unit.move.source is not week.table.tier]
    reasons = [moves.why_not_drop(unit, now, site.config.tiers) or _quality(site, unit) for unit in mine]
    return staying + [reason for reason in reasons if reason]


def _quality(site: Site, unit: Unit) -> str | None:
    """Of a warm sink there is nothing to judge."""
    return why_not_judged(site, unit) if unit.move.sink is Tier.COLD else None


def prove(run: Attempt, free: Sequence[Week]) -> list[Week]:
    """Those whose every part was verified and whose every sink still covers its source; one Spark job for all."""
    parts = dict(run.able(free, lambda week: (week, _unproven_parts(run.site, week))))
    found = run.spread(ends.covered, [(unit, (unit, part)) for work in parts.values() for unit, part in work])
    return run.able(parts, lambda week: _covered(week, [found[unit.key] for unit in week.units if unit.key in found]))


def _covered(week: Week, found: Sequence[Sequence[ends.Finding | Failure]]) -> Week:
    findings = [finding for of_unit in found for finding in succeeded(of_unit)]
    if uncovered := sum(not finding.proven for finding in findings):
        raise DamagedError(
            f"{week.name}: the sink lacks rows of {uncovered} of {len(findings)} shards",
            "nothing was dropped; keep the source, then compare the ends of these shards",
        )
    return week


def _unproven_parts(site: Site, week: Week) -> list[tuple[Unit, Part]]:
    """None once the first of its tables went: it was proven before that."""
    if week.table.state is TableState.DROPPING:
        return []
    return [item for unit in _leaving(week) for item in _verified_parts(site, unit)]


def _verified_parts(site: Site, unit: Unit) -> list[tuple[Unit, Part]]:
    parts = parts_of(site, unit)
    if len(parts) != unit.shards or not all(part.verified for part in parts):
        raise DamagedError(
            f"{unit.name} is switched but not all of its parts are verified", "nothing was dropped; move it again"
        )
    require_pointers(site, unit, parts)
    require_logged(site, unit)
    return [(unit, part) for part in parts]


def drop(site: Site, keeper: Keeper, week: Week) -> Week:
    """Irreversible from `dropping` on; a run that was killed in between goes on there."""
    ddl = f"ddl/{site.region}"
    with holding(keeper, ddl, site.config.clocks.gate_seconds):
        dropping = replace(week.table, state=TableState.DROPPING)
        _put(site, week.table, dropping)
        _require_unclaimed(site, week)
        keeper.check(ddl)
        messages.drop_tables(site.database(week.table.tier), site.region, week.table.tier, week.table.week)
        for unit in week.units:
            _mark_dropped(site, keeper, week.table, unit)
        _put(site, dropping, replace(dropping, state=TableState.DROPPED))
    return week


def _require_unclaimed(site: Site, week: Week) -> None:
    """A thaw may have come to use the tables since they were found free: it looks for them under this very lease."""
    claimed = [unit for unit in site.ledger.units() if unit.week == week.table.week and _claims(unit, week.table)]
    if claimed and week.table.state is TableState.LIVE:
        _put(site, replace(week.table, state=TableState.DROPPING), week.table)
        raise BlockedError(f"{claimed[0].name} is on its way to {week.table.tier}", "let the thaw end")


def _claims(unit: Unit, table: WeekTable) -> bool:
    is_gone = unit.move.source is table.tier and unit.state in (State.SWITCHED, State.DROPPED)
    return not is_gone and not moves.has_left(unit, table.tier)


def _leaving(week: Week) -> list[Unit]:
    return [unit for unit in week.units if unit.move.source is week.table.tier and unit.state is State.SWITCHED]


def _mark_dropped(site: Site, keeper: Keeper, table: WeekTable, unit: Unit) -> None:
    """Leaves a unit alone that a killed run had marked already and that has begun its next move since."""
    name = ledger.lease_name(unit)
    with holding(keeper, name, site.config.clocks.gate_seconds) as lease:
        fresh = site.ledger.unit(unit.week, unit.slice)
        if fresh is None or fresh.state is not State.SWITCHED or fresh.move.source is not table.tier:
            return
        if not site.ledger.change(fresh, fresh.to(State.DROPPED, lease.epoch)):
            raise BlockedError(f"unit {unit.name} was changed by another process", "run the same command again")


def _wait_for_readers(site: Site) -> None:
    """A grace is also real time: T for copies of the ledger, then the longest read."""
    time.sleep(site.config.clocks.ledger_age_seconds + site.config.clocks.longest_read_seconds)


def _is_leaving(week: Week) -> bool:
    """Also tables that a thaw had made and that was given up: none of the units lies there, or above."""
    is_left = bool(week.units) and not any(_claims(unit, week.table) for unit in week.units)
    return bool(_leaving(week)) or is_left or week.table.state is TableState.DROPPING


def _put(site: Site, old: WeekTable, new: WeekTable) -> None:
    if old != new and not site.ledger.put_table(old, new):
        raise BlockedError(
            f"week table {weeks.label(new.week)}/{new.tier} was changed by another process",
            "run the same command again",
        )


def parser() -> Any:
    options = shell.options("python -m jobs.drop", "Drop the source tables of weeks that were moved and proven.")
    shell.week_option(options)
    options.add_argument("--apply", action="store_true", help="drop; without it only say what would be dropped")
    return options


def main(argv: list[str]) -> int:
    return attempt.main(
        argv,
        parser(),
        "firn drop",
        lambda spark, config, regions, args: run(spark, config, args.now, regions, args.week, args.apply, shell.say),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
