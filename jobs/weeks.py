"""Makes week tables ahead of time: hot ones two weeks ahead, warm ones when their week begins.

A table is announced to writers only after it is there: row in the ledger, tables, units, then a new route number.
Weeks older than the first run's hot window never get a table; what still happens in them goes to the lane.
"""

import sys
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from core import settings, weeks
from core.errors import BlockedError
from core.ledger import TableState, WeekTable
from core.moves import Unit
from core.tiers import Tier
from jobs import shell
from lakehouse.site import Site, opened
from stores import messages
from stores.leases import Keeper, holding, keeping

GENERATION = 1


def run(config: settings.Settings, now: datetime, regions: tuple[str, ...], say: shell.Say) -> dict[str, Any]:
    made = {}
    for region in regions:
        with (
            opened(config, region) as site,
            keeping(site.ledger, uuid4().hex, config.clocks.lease_seconds) as keeper,
            holding(keeper, f"ddl/{region}", config.clocks.gate_seconds),
        ):
            made[region] = _make(site, keeper, now, say)
    return {"tables": sum(len(names) for names in made.values()), "regions": made}


def _make(site: Site, keeper: Keeper, now: datetime, say: shell.Say) -> list[str]:
    current = weeks.of_instant(now)
    site.ledger.begin(weeks.of_instant(now - timedelta(days=site.config.tiers.hot_days)))
    first = site.ledger.first_week()
    assert first is not None
    known = {unit.week for unit in site.ledger.units()}
    oldest = max([first, *known]) if known else first
    wanted = [(week, Tier.HOT) for week in range(oldest, current + site.config.layout.tables_ahead_weeks + 1)]
    wanted += [(week, Tier.WARM) for week in range(first, current + 1)]
    made = [f"{weeks.label(week)}/{tier}" for week, tier in wanted if make_tables(site, keeper, week, tier)]
    if _make_units(site, [week for week, tier in wanted if tier is Tier.HOT]):
        site.ledger.next_route()
    say(f"{site.region}: {len(made)} week tables made")
    return made


def make_tables(site: Site, keeper: Keeper, week: int, tier: Tier) -> bool:
    """False when they were there, or had been and were dropped."""
    known = {(table.week, table.tier): table for table in site.ledger.tables()}.get((week, tier))
    if known:
        return False
    keeper.check(f"ddl/{site.region}")
    messages.create_tables(site.database(tier), site.region, tier, week, GENERATION)
    return site.ledger.put_table(None, WeekTable(site.region, week, tier, GENERATION, TableState.LIVE))


def make_again(site: Site, dropped: WeekTable) -> None:
    """Tables that were dropped, empty and under other ids. Runs under the DDL lease, and only for a thaw: nothing else
    has a use for them."""
    again = replace(dropped, generation=dropped.generation + 1, state=TableState.LIVE)
    messages.create_tables(site.database(again.tier), site.region, again.tier, again.week, again.generation)
    if not site.ledger.put_table(dropped, again):
        raise BlockedError(
            f"week table {weeks.label(again.week)}/{again.tier} was changed by another process",
            "run the same command again",
        )


def _make_units(site: Site, table_weeks: list[int]) -> bool:
    slices = range(site.config.layout.slices)
    made = [site.ledger.create(Unit(site.region, week, slice_)) for week in table_weeks for slice_ in slices]
    return any(made)


def parser() -> Any:
    return shell.options("python -m jobs.weeks", "Make week tables ahead of time.")


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)

    def work() -> dict[str, Any]:
        config = settings.load()
        return run(config, args.now, shell.regions(config, args.region), shell.say)

    return shell.finish(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
