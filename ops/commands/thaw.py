"""`firn thaw` and `firn audit`: a week brought back up one tier, and what was done by hand."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from core import weeks as weeks_
from core.tiers import Tier
from ops import report
from ops.commands.job import run_job
from ops.commands.options import By, Json, Now, Regions, actor, command, load, week

LINES_SHOWN = 40
thaw_app = typer.Typer(rich_markup_mode=None)


@command(
    thaw_app,
    "thaw",
    "thaw 2024-W08",
    "thaw 2024-W08 --region us --days 14 --reason 'OPS-4711: an audit reads it all' --apply",
    "thaw 2024-W08 --to cold --days 0 --reason 'read by now' --apply",
)
def thaw(
    wanted: Annotated[int, typer.Argument(parser=week, metavar="WEEK", help="The week, e.g. 2024-W08.")],
    to: Annotated[
        Tier | None, typer.Option(help="The tier to bring it to. Default: one above that of its coldest unit.")
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=0, help="How long it is held there. Default: tiers.hold_days (firn.toml).")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the audit; --apply needs it. It must name nobody.")] = "",
    by: By = None,
    apply: Annotated[bool, typer.Option("--apply", help="Thaw; without it only say what would be.")] = False,
    now: Now = None,
    region: Regions = None,
    json_: Json = False,
) -> None:
    """Bring a week back one tier. A dry run unless --apply.

    frozen to cold (restored first), cold to warm, warm to hot: copied, read back and switched as any move, and the old
    tier is dropped after the grace. It does not go down again before the hold has ended. Of a week that is there
    already, --days sets how long it is held; 0 lets it go. Safe to repeat and to interrupt.
    """
    more = [
        word for name, value in (("--to", to), ("--days", days)) if value is not None for word in (name, str(value))
    ]
    more += ["--by", actor(by), *(["--reason", reason] if reason else [])]
    more += ["--apply"] if apply else []
    done = run_job("thaw", f"thawing {weeks_.label(wanted)}", json_, now, region, [wanted], more)
    lines = [line for name, one in done["regions"].items() for line in _lines(name, one, apply)]
    hint = ["to thaw: the same command with --apply"] if done["thawed"] and not apply else []
    report.screen(json_).show(done, *lines, *hint)


def _lines(name: str, one: Mapping[str, Any], apply: bool) -> Iterator[str]:
    until = report.instant(datetime.fromisoformat(one["hold_until"]))
    verb = "brought" if apply else "would be brought"
    for unit in one["thawed"]:
        yield f"{unit}: {verb} to {one['to']}, and held there until {until}"
    yield from (f"{unit}: lies in {one['to']} or above already" for unit in one["there"])
    yield from (f"not now: {why}" for why in one["later"].values())
    if one["held_elsewhere"]:
        yield f"{name}: {report.plural(one['held_elsewhere'], 'unit')} held by another process"


@command(thaw_app, "audit", "audit", "audit --region us --json")
def audit(
    region: Regions = None,
    every: Annotated[bool, typer.Option("--all", help=f"All lines, not only the newest {LINES_SHOWN}.")] = False,
    json_: Json = False,
) -> None:
    """Show what was done by hand: overrides, thaws and holds, newest first.

    Each was noted before it was done. One that is not marked as done failed, or its process died in that moment: the
    unit's own state tells.
    """
    from ops.audit import as_data, gather, in_cells  # noqa: PLC0415

    config, regions = load(region)
    found = gather(config, regions)
    lines = found if every else found[:LINES_SHOWN]
    headings = ("at", "region", "what", "week", ">slice", "move", "from", "to", "done", "by", "reason")
    table = report.table(headings, [in_cells(one) for one in lines])
    more = [f"{len(found) - len(lines):,} older lines: ./firn audit --all"] if len(found) > len(lines) else []
    shown = [table, *more] if found else ["nothing was done by hand yet"]
    report.screen(json_).show({"audit": [as_data(one) for one in found]}, *shown)
