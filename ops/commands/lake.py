"""`firn fold`, `firn judge` and `firn maintain`: what keeps the files at rest up to date, and few."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from core.archive import money
from ops import report
from ops.commands.job import run_job
from ops.commands.options import Json, Now, Regions, Weeks, command

lake_app = typer.Typer(rich_markup_mode=None)

# As people say it; the keys are those of the job's report.
KINDS = {"replaced": "replaced files", "folded_runs": "folded runs", "orphans": "orphans", "log": "table log"}
KEPT = {
    "too_young": "too young to go",
    "being_written": "of a process that is at work",
    "of_no_known_unit": "of no unit that the ledger knows: look at who wrote them",
}


@command(lake_app, "fold", "fold", "fold --region us --week 2026-W05", "fold --now 2026-03-02T00:00:00Z --json")
def fold(now: Now = None, region: Regions = None, week: Weeks = None, json_: Json = False) -> None:
    """Take late changes and imported rows into cold files.

    What a frozen week has gathered becomes a supplement in cold, which is frozen in its turn.
    Safe to repeat and to interrupt: what was folded twice is there once. Replaced files stay until `firn maintain`.
    """
    done = run_job("fold", "folding", json_, now, region, week)
    lines = [f"{name}: {unit}" for name, one in done["regions"].items() for unit in one["folded"]]
    lines += [f"later: {why}" for one in done["regions"].values() for why in one["later"].values()]
    files, events, held = (
        sum(one[fact] for one in done["regions"].values()) for fact in ("files", "events", "held_elsewhere")
    )
    lines.append(
        f"{report.plural(done['folded'], 'unit')} folded: {report.plural(files, 'file')} written, "
        f"{report.plural(events, 'event')} taken out of the lane"
    )
    lines += [f"{report.plural(held, 'unit')} held by another process"] if held else []
    report.screen(json_).show(done, *lines)


@command(lake_app, "judge", "judge", "judge --region us --week 2026-W05 --json")
def judge(now: Now = None, region: Regions = None, week: Weeks = None, json_: Json = False) -> None:
    """Judge cold files before anything of them is dropped.

    By default those of weeks that wait for a drop and have no verdict yet. Exit code 4 names the rules that they break.
    """
    done = run_job("judge", "judging cold files", json_, now, region, week)
    standing = sum(one["standing"] for one in done["regions"].values())
    passed = [f"{name} passed" for one in done["regions"].values() for name in one["passed"]]
    report.screen(json_).show(done, *passed, f"{report.plural(done['passed'], 'unit')} passed now, {standing:,} before")


@command(lake_app, "maintain", "maintain", "maintain --apply", "maintain --region us --now 2026-03-02T00:00:00Z --json")
def maintain(
    now: Now = None,
    region: Regions = None,
    apply: Annotated[bool, typer.Option("--apply", help="Purge; without it only say what would go.")] = False,
    json_: Json = False,
) -> None:
    """Purge what nothing names any more. A dry run unless --apply.

    Files that a fold replaced or a freeze withdrew, folded runs, what killed jobs have left; and table logs are cut
    behind a checkpoint. What a log, a pointer, a move or the ledger names stays, and so does what is young.
    """
    done = run_job("maintain", "looking through the bucket", json_, now, region, None, ["--apply"] if apply else [])
    shown = [line for name, one in done["regions"].items() for line in _lines(name, one, apply)]
    total = f"{report.plural(done['objects'], 'object')}, {report.size(done['size_bytes'])}"
    hint = ["to purge: the same command with --apply"] if done["objects"] and not apply else []
    report.screen(json_).show(done, *shown, f"{total} {'purged' if apply else 'would be purged'}", *hint)


def _lines(name: str, one: Mapping[str, Any], apply: bool) -> Iterator[RenderableType]:
    going = {what: one["goes"][kind] for kind, what in KINDS.items() if one["goes"][kind]["objects"]}
    if going:
        facts = {what: (report.count(it["objects"]), report.size(it["size_bytes"])) for what, it in going.items()}
        rows = [(what, *facts[what], it["why"]) for what, it in going.items()]
        yield report.table(("", ">objects", ">bytes", "why"), rows, name)
    else:
        yield f"{name}: nothing to purge"
    for what, it in going.items():
        yield from (f"  {key}" for key in it["names"])
        if more := it["objects"] - len(it["names"]):
            yield f"  and {more:,} more {what}"
    yield from (f"{name}: {line}" for line in _remarks(one, apply))


def _remarks(one: Mapping[str, Any], apply: bool) -> Iterator[str]:
    kept = {what: one["kept"][why] for why, what in KEPT.items() if one["kept"][why]}
    yield from (f"{report.plural(number, 'object')} stay: {what}" for what, number in kept.items())
    if one["units_astray"]:
        verb = "brought up to the Delta log" if apply else "are behind the Delta log: --apply brings them up to it"
        yield f"pointers of {report.plural(one['units_astray'], 'unit')} {verb}"
    if one["held_elsewhere"]:
        yield f"{report.plural(one['held_elsewhere'], 'unit')} held by another process"
    yield from (f"checkpoint {'made' if apply else 'due'}: {root}" for root in one["checkpoints"])
    if one["early_dollars"]:
        yield f"{money(one['early_dollars'])} is billed for frozen objects that go before their class allows"
