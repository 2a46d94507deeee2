"""Brings the frozen objects of a week back for a while: says what it takes, then asks the object store for all of them.

Nothing waits here: the copies are ready hours later, and `--now` of a later run tells whether they are. Safe to repeat.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from typing import Any

from core import settings, weeks
from core.archive import Speed, counted, money, sized
from core.errors import RefusedError
from core.tiers import Tier
from jobs import shell
from lakehouse.restore import Report, Want, bring_back, estimate, frozen_files
from lakehouse.site import Site, opened


def run(
    config: settings.Settings,
    now: datetime,
    week: int,
    regions: tuple[str, ...],
    speed: Speed,
    days: int | None,
    dry_run: bool,
    say: shell.Say,
) -> dict[str, Any]:
    """The estimate of every region stands before anything is asked anywhere. `days` defaults to the settings'."""
    want = Want(speed, config.frozen.restored_days if days is None else days, now)
    with ExitStack() as stack:
        sites = [stack.enter_context(opened(config, region, now)) for region in regions]
        files = {site.region: frozen_files(site, week) for site in sites}
        if not any(files.values()):
            raise _nothing_frozen(sites, week)
        reports = {site.region: estimate(site.objects, files[site.region], want) for site in sites}
        for region, report in reports.items():
            say(f"{region}: {_sentence(report, week, want)}")
        if not dry_run:
            reports = {site.region: bring_back(site.objects, files[site.region], want) for site in sites}
        return {
            "week": weeks.label(week),
            "speed": speed,
            "days": want.days,
            "dry_run": dry_run,
            "dollars": sum(report.dollars for report in reports.values()),
            "regions": {site.region: _as_data(reports[site.region], _tiers(site, week)) for site in sites},
        }


def _sentence(report: Report, week: int, want: Want) -> str:
    if not report.objects:
        return f"nothing of {weeks.label(week)} is frozen"
    of_all = f"{counted(report.objects)} of {weeks.label(week)}, {sized(report.size_bytes)}"
    if report.readable_at_once == report.objects:
        return f"{of_all}: readable at once, nothing has to be restored"
    held = [(report.asked, "to ask for"), (report.under_way, "under way"), (report.restored, "restored")]
    counts = ", ".join(f"{number:,} {state}" for number, state in held if number)
    price = f"{money(report.dollars)} at {want.speed} speed, {money(report.copies_dollars)} for the copies"
    when = f"; all there by {report.ready_at:%Y-%m-%dT%H:%MZ}" if report.ready_at else ""
    return f"{of_all}: {counts}; {price}{when}"


def _nothing_frozen(sites: Sequence[Site], week: int) -> RefusedError:
    label = weeks.label(week)
    where = {site.region: _tiers(site, week) for site in sites}
    told = [f"in {region} it lies in {' and '.join(tiers)}" for region, tiers in where.items() if tiers]
    told += [f"{region} knows no such week" for region, tiers in where.items() if not tiers]
    return RefusedError(
        f"nothing of {label} is frozen: {'; '.join(told)}",
        "read it as it is" if any(where.values()) else "see the weeks that are known: ./firn status --all",
    )


def _tiers(site: Site, week: int) -> list[Tier]:
    found: Iterable[Tier] = {unit.tier for unit in site.ledger.units() if unit.week == week}
    return sorted(found, key=list(Tier).index)


def _as_data(report: Report, tiers: Sequence[Tier]) -> dict[str, Any]:
    facts = {name: _plain(value) for name, value in asdict(report).items()}
    return {"lies_in": list(tiers), **facts}


def _plain(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def parser() -> argparse.ArgumentParser:
    made = shell.options("python -m jobs.restore", "Bring the frozen objects of a week back for a while.")
    made.add_argument("--week", required=True, type=shell.week, metavar="W", help="the week, e.g. 2024-W08")
    made.add_argument(
        "--speed",
        default=Speed.BULK,
        type=Speed,
        choices=list(Speed),
        help="how fast: minutes, hours, or a night; the slowest is the cheapest",
    )
    made.add_argument(
        "--days", type=int, metavar="N", help="how long the copies stay; frozen.restored_days if left out"
    )
    made.add_argument("--dry-run", action="store_true", help="only say what it would take")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)

    def work() -> dict[str, Any]:
        config = settings.load()
        regions = shell.regions(config, args.region)
        return run(config, args.now, args.week, regions, args.speed, args.days, args.dry_run, shell.say)

    return shell.finish(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
