"""Drops the source of every switched week whose grace is over, and only after its sink was read back once more.

A separate job with a right of its own, a dry run unless told otherwise. A week's tables go whole, so all slices of the
week must be free to go: switched, settled, proven part by part, past their grace, and the sink, read from all replicas,
must hold everything that the source holds.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from pyspark.sql import SparkSession

from core import ledger, moves, settings, weeks
from core.errors import BlockedError, DamagedError
from core.ledger import Part, TableState, WeekTable
from core.moves import State, Unit
from jobs import shell
from lakehouse import ends
from lakehouse.publish import require_pointers
from lakehouse.session import spark_session, spread, succeeded
from lakehouse.site import Site, opened
from stores import messages
from stores.leases import Keeper, holding, keeping


@dataclass(frozen=True)
class Week:
    """The tables of one week in one tier, with the units that must all be ready to lose them."""

    table: WeekTable
    units: tuple[Unit, ...]

    @property
    def name(self) -> str:
        return f"{self.table.region}/{weeks.label(self.table.week)}/{self.table.tier}"


def run(
    spark: SparkSession,
    config: settings.Settings,
    now: datetime,
    regions: tuple[str, ...],
    only: Sequence[int] | None,
    apply: bool,
    say: shell.Say,
) -> dict[str, Any]:
    """Returns what was dropped (or would be) and why the rest stays."""
    report = {}
    for region in regions:
        with opened(config, region) as site, keeping(site.ledger, uuid4().hex, config.clocks.lease_seconds) as keeper:
            report[region] = drop_region(spark, site, keeper, now, only, apply, say)
    return {"applied": apply, "dropped": sum(len(region["dropped"]) for region in report.values()), "regions": report}


def drop_region(
    spark: SparkSession,
    site: Site,
    keeper: Keeper,
    now: datetime,
    only: Sequence[int] | None,
    apply: bool,
    say: shell.Say,
) -> dict[str, Any]:
    reasons = {week: why_not(site, week, now) for week in candidates(site, only)}
    free = [week for week, why in reasons.items() if not why]
    prove(spark, site, free)
    if apply and free:
        _wait_for_readers(site)
        for week in free:
            drop(site, keeper, week)
    for week in free:
        say(f"{week.name}: {'dropped' if apply else 'would be dropped'}")
    return {
        "dropped": [week.name for week in free],
        "kept": {week.name: why[0] for week, why in reasons.items() if why},
    }


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
    staying = [
        f"{unit.name} still lies in {unit.move.source}"
        for unit in week.units
        if unit.move.source is not week.table.tier
    ]
    return staying + [reason for unit in week.units if (reason := moves.why_not_drop(unit, now, site.config.tiers))]


def prove(spark: SparkSession, site: Site, free: Sequence[Week]) -> None:
    """DamagedError unless every part was verified and every sink still covers its source; one Spark job for all."""
    unproven = [week for week in free if week.table.state is TableState.LIVE]
    work = [item for week in unproven for unit in week.units for item in _verified_parts(site, unit)]
    findings = succeeded(spread(spark, site.config, site.region, ends.covered, work))
    if uncovered := [finding.part for finding in findings if not finding.proven]:
        names = ", ".join(sorted({weeks.label(part.week) for part in uncovered}))
        raise DamagedError(
            f"{site.region}: the sink lacks rows of {len(uncovered)} of {len(findings)} shards ({names})",
            "nothing was dropped; keep the source, then compare the ends of these shards",
        )


def _verified_parts(site: Site, unit: Unit) -> list[tuple[Unit, Part]]:
    parts = site.ledger.parts(unit)
    if len(parts) != unit.shards or not all(part.verified for part in parts):
        raise DamagedError(
            f"{unit.name} is switched but not all of its parts are verified", "nothing was dropped; move it again"
        )
    require_pointers(site, unit, parts)
    return [(unit, part) for part in parts]


def drop(site: Site, keeper: Keeper, week: Week) -> None:
    """Irreversible from `dropping` on; a run that was killed in between goes on there."""
    ddl = f"ddl/{site.region}"
    with holding(keeper, ddl, site.config.clocks.gate_seconds):
        dropping = replace(week.table, state=TableState.DROPPING)
        _put(site, week.table, dropping)
        keeper.check(ddl)
        messages.drop_tables(site.database(week.table.tier), site.region, week.table.tier, week.table.week)
        for unit in week.units:
            _mark_dropped(site, keeper, week.table, unit)
        _put(site, dropping, replace(dropping, state=TableState.DROPPED))


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
    switched = any(unit.move.source is week.table.tier and unit.state is State.SWITCHED for unit in week.units)
    return switched or week.table.state is TableState.DROPPING


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
    args = parser().parse_args(argv)

    def work() -> dict[str, Any]:
        config = settings.load()
        regions = shell.regions(config, args.region)
        with spark_session(config, "firn drop") as spark:
            return run(spark, config, args.now, regions, args.week, args.apply, shell.say)

    return shell.finish(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
