"""What a thaw needs before a unit is sealed for it: readable objects, nothing in runs, tables to write into."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from core import ring, weeks
from core.errors import BlockedError
from core.ledger import Run, TableState, WeekTable
from core.moves import COLD_WARM, FROZEN_COLD, Unit, born_cold, frozen_generations
from core.overlay import Row
from core.rows import from_batch
from core.tiers import Tier
from jobs.weeks import make_again, make_tables
from lakehouse.restore import RestoreState, waiting
from lakehouse.runs import read_run
from lakehouse.site import Site
from stores.leases import Keeper, holding


def why_not_begin(site: Site, unit: Unit, now: datetime) -> str | None:
    """The sentence that keeps an open thaw from being sealed now; None for any other move, too."""
    if unit.move == FROZEN_COLD:
        return _not_restored(site, unit, now)
    if unit.move == COLD_WARM and late_runs(site, unit):
        return f"{unit.name}: imported rows wait for a fold: ./firn fold --week {weeks.label(unit.week)}"
    return None


def _not_restored(site: Site, unit: Unit, now: datetime) -> str | None:
    generations = frozen_generations(unit)
    files = [file for file in site.ledger.frozen(unit.week, unit.slice) if file.generation in generations]
    found = waiting(site.objects, files)
    if found.state is RestoreState.RESTORED:
        return None
    week, region = weeks.label(unit.week), unit.region
    how = f"./firn restore {week} --region {region} --now {now:%Y-%m-%dT%H:%M:%SZ}"
    if found.state is RestoreState.UNDER_WAY:
        there = f", there by {found.ready_at:%Y-%m-%dT%H:%MZ}" if found.ready_at else ""
        return f"{unit.name} is frozen, and on its way back{there}; thaw it then"
    return f"{unit.name} is frozen and not restored: {how}"


def late_runs(site: Site, unit: Unit) -> tuple[Run, ...]:
    """Those that wait for a fold that a unit on its way up will not see. A unit of any other move has none."""
    if unit.move.source is not Tier.COLD:
        return ()
    return tuple(run for run in site.ledger.runs(unit.week, unit.slice) if not run.folded)


def rows_of(site: Site, unit: Unit, runs: Sequence[Run]) -> Iterator[Row]:
    tokens = ring.cut(unit.slice, site.config.layout.slices)
    for run in runs:
        for batch in read_run(site.objects, run, tokens):
            yield from from_batch(batch)


def ready_tables(site: Site, keeper: Keeper, unit: Unit) -> None:
    """Makes the sink's tables again where they had been dropped, as the next generation; and for a thaw the first ones
    of a week that was born cold.

    Under the DDL lease, as the drop is: whichever comes first, the other sees it.
    """
    sink = unit.move.sink
    if not sink.is_cql or _table(site, unit, TableState.LIVE):
        return
    ddl = f"ddl/{site.region}"
    with holding(keeper, ddl, site.config.clocks.gate_seconds):
        if dropped := _table(site, unit, TableState.DROPPED):
            keeper.check(ddl)
            make_again(site, dropped)
        elif _table(site, unit, TableState.DROPPING):
            raise BlockedError(
                f"the {sink} tables of {weeks.label(unit.week)} are being dropped",
                f"let it end: ./firn drop --week {weeks.label(unit.week)} --apply; then the same command again",
            )
        elif unit.move.is_thaw and not _table(site, unit, TableState.LIVE):
            make_tables(site, keeper, unit.week, sink)
            # A week's tables are dropped when all of its slices are known to have left them.
            for slice_ in range(site.config.layout.slices):
                site.ledger.create(born_cold(site.region, unit.week, slice_))


def _table(site: Site, unit: Unit, state: TableState) -> WeekTable | None:
    wanted = (unit.week, unit.move.sink, state)
    return next((one for one in site.ledger.tables() if (one.week, one.tier, one.state) == wanted), None)
