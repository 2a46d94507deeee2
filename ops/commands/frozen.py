"""`firn restore`: frozen weeks, brought back for a while."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from core import archive
from core import weeks as weeks_
from core.archive import Speed
from ops import report
from ops.commands.job import run_job
from ops.commands.options import Json, Now, Regions, command, week

frozen_app = typer.Typer(rich_markup_mode=None)


@command(
    frozen_app,
    "restore",
    "restore 2024-W08 --dry-run",
    "restore 2024-W08 --speed bulk",
    "restore 2024-W08 --region us --speed standard --days 3 --json",
)
def restore(
    wanted: Annotated[int, typer.Argument(parser=week, metavar="WEEK", help="The week, e.g. 2024-W08.")],
    speed: Annotated[
        Speed,
        typer.Option(help="How fast: minutes, hours or a night in GLACIER. The slower, the cheaper."),
    ] = Speed.BULK,
    days: Annotated[
        int | None,
        typer.Option(
            min=1, max=archive.MAX_DAYS, help="How long the copies stay. Default: frozen.restored_days (firn.toml)."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    now: Now = None,
    region: Regions = None,
    json_: Json = False,
) -> None:
    """Bring the frozen objects of a week back for a while.

    Says price and wait, and asks for them at once; with --dry-run it only says so, and how far an earlier call is.
    Safe to repeat: what is under way or there already is counted as such and not paid for again. A faster speed
    overtakes a slower one; more days put the end off.
    """
    more = ["--speed", speed.value, *(["--dry-run"] if dry_run else [])]
    more += ["--days", str(days)] if days is not None else []
    done = run_job("restore", f"asking for {weeks_.label(wanted)}", json_, now, region, [wanted], more)
    report.screen(json_).show(
        done, *(line for name, one in done["regions"].items() for line in _lines(name, one, dry_run))
    )


def _lines(name: str, one: Mapping[str, Any], dry_run: bool) -> Iterator[str]:
    if not one["objects"]:
        where = f"it lies in {' and '.join(one['lies_in'])}" if one["lies_in"] else "no such week"
        yield f"{name}: nothing is frozen, {where}"
        return
    counts = {
        "to be asked for" if dry_run else "asked for": one["asked"],
        "under way already": one["under_way"],
        "restored": one["restored"],
        "readable at once, with nothing to restore": one["readable_at_once"],
    }
    held = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    yield f"{name}: {report.plural(one['objects'], 'object')}, {report.size(one['size_bytes'])}: {held}"
    if one["readable_at_once"] == one["objects"]:
        return
    price = f"{archive.money(one['dollars'])}, and {archive.money(one['copies_dollars'])} while the copies stay"
    yield f"{name}: {'would cost' if dry_run else 'costs'} {price}"
    times = {"all there by": one["ready_at"], "the first copy goes at": one["restored_until"]}
    if known := [f"{what} {report.instant(datetime.fromisoformat(when))}" for what, when in times.items() if when]:
        yield f"{name}: {', '.join(known)}"
