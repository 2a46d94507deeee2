"""`firn status`, `plan`, `weeks`, `move`, `drop`, `replay`: where the weeks are, and what moves them on."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from core import weeks as weeks_
from core.errors import FirnError, RefusedError
from core.moves import State
from ops import report
from ops.commands.job import run_job
from ops.commands.options import By, Json, Now, Regions, Weeks, actor, command, instant, load, moment

if TYPE_CHECKING:
    from core.alarms import Stuck
    from ops import plan as plan_
    from ops import status as status_

WEEKS_SHOWN = 40
SHUT_SHOWN = 3
STUCK_SHOWN = 10
tiers_app = typer.Typer(rich_markup_mode=None)


@command(tiers_app, "status", "status", "status --region us --now 2026-03-02T00:00:00Z", "status --json")
def status(
    now: Now = None,
    region: Regions = None,
    every: Annotated[bool, typer.Option("--all", help=f"All weeks, not only the newest {WEEKS_SHOWN}.")] = False,
    json_: Json = False,
) -> None:
    """Show where the weeks are and what lags.

    Units per state, messages and bytes that are due for the next tier, stuck units, the consumer's place in the log,
    dead letters.

    Figures with ~ are estimates from a sample: what was not moved yet is not counted row by row.
    Exit code 3 when a region could not be looked at.
    """
    from ops import status  # noqa: PLC0415

    screen, (config, regions) = report.screen(json_), load(region)
    with report.progress(screen, "weighing the weeks") as progress:
        found = status.gather(config, moment(now), regions, progress.at)
    shown = [line for name, one in found.items() for line in _status_lines(name, one, every)]
    screen.show({"regions": {name: status.as_data(one) for name, one in found.items()}}, *shown)
    faults = [one for one in found.values() if isinstance(one, FirnError)]
    if faults:
        raise typer.Exit(max(fault.exit_code for fault in faults))


def _status_lines(name: str, one: "status_.Region | FirnError", every: bool) -> Iterator[RenderableType]:
    from ops import holdings, status  # noqa: PLC0415

    if isinstance(one, FirnError):
        yield from (report.title(name), f"{one}", "")
        return
    yield report.title(f"{name}  at {report.instant(one.now)}  (route {one.route})")
    yield from _log_lines(one.log)
    yield ""
    if not one.weights:
        yield from ("No weeks yet: ./firn weeks makes their tables.", "")
        return
    yield _states_table(status.counts(one))
    yield ""
    yield _lag_table(status.lags(one), one.now)
    yield ""
    if stuck := status.stuck_units(one):
        yield from (_stuck_line(it, one.now) for it in stuck[:STUCK_SHOWN])
        yield from (f"STUCK  and {len(stuck) - STUCK_SHOWN} more" for _ in stuck[STUCK_SHOWN : STUCK_SHOWN + 1])
        yield ""
    held = holdings.by_week(one.weights)
    yield holdings.as_table(held if every else held[-WEEKS_SHOWN:])
    if len(held) > WEEKS_SHOWN and not every:
        yield f"{len(held) - WEEKS_SHOWN:,} older lines: ./firn status --all"
    yield ""


def _states_table(counts: dict[Any, Any]) -> RenderableType:
    rows = [(tier, *(f"{counts[tier][state] or '·'}" for state in State)) for tier in counts]
    return report.table(("units", *(f">{state}" for state in State)), rows)


def _lag_table(lags: "Sequence[status_.Lag]", now: datetime) -> RenderableType:
    from ops import holdings  # noqa: PLC0415

    rows = []
    for lag in lags:
        if not lag.units:
            rows.append((str(lag.move), "·", "", "", "nothing is due"))
            continue
        messages, _, size = holdings.cells(lag.amount)
        since = f"{report.instant(lag.since)}, {report.span(now - lag.since)} ago" if lag.since else ""
        rows.append((str(lag.move), f"{lag.units:,}", messages, size, since))
    return report.table(("lag", ">units", ">messages", ">bytes", "oldest fell due"), rows)


def _stuck_line(one: "Stuck", now: datetime) -> str:
    unit = one.unit
    waited = f"{unit.state} ({unit.move}) since {report.instant(one.since)}, {report.span(now - one.since)}"
    return f"STUCK  {unit.name}: {waited}; see the run-book, A unit is stuck"


def _log_lines(log: "status_.Log | FirnError") -> Iterator[str]:
    if isinstance(log, FirnError):
        yield f"log           {log.what}"
        return
    behind = f"{report.plural(log.behind, 'message')} behind" if log.behind is not None else "has not committed yet"
    yield f"consumer      {behind}, {report.plural(log.partitions, 'partition')}"
    gate = "open" if not log.shut else f"shut by {report.plural(len(log.shut), 'partition')}"
    yield f"gate          {gate}"
    yield from (f"              {sentence}" for sentence in log.shut[:SHUT_SHOWN])
    if len(log.shut) > SHUT_SHOWN:
        yield f"              and {len(log.shut) - SHUT_SHOWN} more"
    hint = "  (./firn dead-letters shows them)" if log.dead_letters else ""
    yield f"dead letters  {log.dead_letters:,}{hint}"


@command(tiers_app, "plan", "plan", "plan --now 2026-03-02T00:00:00Z --region us", "plan --json")
def plan(now: Now = None, region: Regions = None, json_: Json = False) -> None:
    """Show what would move, and how much. Changes nothing.

    Also which tables of weeks that were moved may be dropped, and why the others may not.
    """
    from ops import plan  # noqa: PLC0415

    screen, (config, regions) = report.screen(json_), load(region)
    with report.progress(screen, "weighing what is due") as progress:
        found = plan.gather(config, moment(now), regions, progress.at)
    shown = [line for one in found for line in _plan_lines(one)]
    screen.show({"regions": {one.name: plan.as_data(one) for one in found}}, *shown)


def _plan_lines(one: "plan_.Region") -> Iterator[RenderableType]:
    from ops import holdings  # noqa: PLC0415

    yield report.title(f"{one.name}  at {report.instant(one.now)}")
    if one.moves:
        headings = ("week", ">slice", "move", "state", ">messages", ">bytes", ">shards", "due since")
        yield report.table(headings, [_step_cells(step) for step in one.moves if not step.kept])
        doable = [step for step in one.moves if not step.kept]
        messages, _, size = holdings.cells(holdings.total(step.amount for step in doable))
        yield f"{report.plural(len(doable), 'unit')} would move: {messages} messages, {size}"
        yield from (f"  {step.unit.name}: stays in cold: {step.kept}" for step in one.moves if step.kept)
    else:
        yield "nothing is due to move"
    if one.drops:
        yield ""
        yield report.table(
            ("source", "week", ">messages", ">bytes", "may it go?"), [_drop_cells(it) for it in one.drops]
        )
    yield ""


def _step_cells(step: "plan_.Step") -> tuple[str, ...]:
    from ops import holdings  # noqa: PLC0415

    unit = step.unit
    messages, _, size = holdings.cells(step.amount)
    place = (weeks_.label(unit.week), str(unit.slice), str(unit.move), str(unit.state))
    return *place, messages, size, str(step.shards or ""), report.instant(step.since)


def _drop_cells(one: "plan_.Drop") -> tuple[str, ...]:
    from ops import holdings  # noqa: PLC0415

    messages, _, size = holdings.cells(one.amount)
    why = "yes, once its sink is read again: ./firn drop --apply" if not one.why_not else f"no: {one.why_not[0]}"
    return one.tier, weeks_.label(one.week), messages, size, why


@command(tiers_app, "weeks", "weeks", "weeks --now 2026-03-02T00:00:00Z --region us")
def weeks(now: Now = None, region: Regions = None, json_: Json = False) -> None:
    """Make week tables ahead of time. Safe to repeat."""
    made = run_job("weeks", "making week tables", json_, now, region)
    _show(json_, made, f"{report.plural(made['tables'], 'week table')} made")


@command(
    tiers_app,
    "move",
    "move",
    "move --now 2026-03-02T00:00:00Z --region us --week 2026-W05",
    "move --region us --week 2026-W05 --from copied --reason 'OPS-4711: the copy was made by a broken build'",
    "move --region us --week 2026-W05 --from copied --reason 'OPS-4711: the copy was made by a broken build' --apply",
)
def move(
    now: Now = None,
    region: Regions = None,
    week: Weeks = None,
    found_in: Annotated[
        State | None, typer.Option("--from", help="Override: the state in which you see the stuck unit.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Override: why, in words that name nobody.")] = None,
    slice_: Annotated[int | None, typer.Option("--slice", help="Override: of a week with several slices.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Override: do it; without it only say what.")] = False,
    by: By = None,
    json_: Json = False,
) -> None:
    """Move every due unit one tier down.

    Each is copied, read back and switched; the source stays until `firn drop`.
    Safe to repeat and to interrupt: the next run goes on where this one ended.

    With --from it moves nothing, and takes one stuck unit back instead: copied and verified to sealed, under a new
    epoch, sealed to open, and a thaw to where it came from. The mover then proves all of it again. It is refused when
    the unit is in another state by now, held by a process, or switched. A dry run unless --apply; see `firn audit`.
    """
    if found_in is not None:
        _override(now, region, week, found_in, reason, slice_, apply, json_, actor(by))
        return
    if reason is not None or slice_ is not None or apply:
        raise RefusedError("--reason, --slice and --apply belong to an override", "name the state that you saw: --from")
    done = run_job("move", "moving", json_, now, region, week)
    held = sum(one["held_elsewhere"] for one in done["regions"].values())
    lines = [f"{name}: {unit}" for name, one in done["regions"].items() for unit in one["moved"]]
    tail = [f"{report.plural(held, 'unit')} held by another mover"] if held else []
    _show(json_, done, *lines, f"{report.plural(done['moved'], 'unit')} moved", *tail)


def _override(
    now: datetime | None,
    region: list[str] | None,
    week: list[int] | None,
    found_in: State,
    reason: str | None,
    slice_: int | None,
    apply: bool,
    json_: bool,
    by: str,
) -> None:
    if len(region or ()) != 1 or len(week or ()) != 1 or reason is None:
        raise RefusedError("an override is of one unit", "give one --region, one --week, and a --reason")
    more = ["--from", found_in.value, "--by", by, "--reason", reason, *(["--apply"] if apply else [])]
    more += ["--slice", str(slice_)] if slice_ is not None else []
    done = run_job("override", "taking a unit back", json_, now, region, week, more)
    where = f"{done['from']['state']} ({done['from']['move']}) to {done['to']['state']} ({done['to']['move']})"
    verb = "taken back" if apply else "would be taken back"
    hint = [] if apply else ["to do it: the same command with --apply"]
    _show(json_, done, f"{done['unit']}: {verb} from {where}", *hint)


@command(tiers_app, "drop", "drop", "drop --now 2026-03-02T00:00:00Z --week 2026-W05", "drop --apply")
def drop(
    now: Now = None,
    region: Regions = None,
    week: Weeks = None,
    apply: Annotated[bool, typer.Option("--apply", help="Drop; without it only say what would be dropped.")] = False,
    json_: Json = False,
) -> None:
    """Drop the sources of moved weeks. A dry run unless --apply.

    Only what was moved, is past its grace and is found whole in its sink once more.
    """
    done = run_job("drop", "proving the sinks", json_, now, region, week, ["--apply"] if apply else [])
    kept = [f"kept: {why}" for one in done["regions"].values() for why in one["kept"].values()]
    verb = "dropped" if apply else "would be dropped"
    hint = ["to drop: the same command with --apply"] if done["dropped"] and not apply else []
    gone = [f"{verb}: {name}" for one in done["regions"].values() for name in one["dropped"]]
    _show(json_, done, *gone, *kept, f"{report.plural(done['dropped'], 'week table')} {verb}", *hint)


def _show(json_: bool, document: Any, *lines: str) -> None:
    report.screen(json_).show(document, *lines)


@command(tiers_app, "replay", "replay --from 2026-01-05T00:00:00Z --to 2026-01-12T00:00:00Z")
def replay(
    start: Annotated[datetime, typer.Option("--from", parser=instant, metavar="INSTANT", help="The first instant.")],
    end: Annotated[
        datetime, typer.Option("--to", parser=instant, metavar="INSTANT", help="The first instant no longer sent.")
    ],
    json_: Json = False,
) -> None:
    """Send the sample's traffic to Kafka, as gateways would.

    What is sent twice is stored once: ids repeat.
    """
    from ops.replay import replay as send  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load()
    with report.progress(screen, "sending") as progress:
        sent = send(config, start, end, progress.say)
    rows = [(where, kind, report.count(number)) for (where, kind), number in sorted(sent.sent.items())]
    rows.append(("total", "", report.count(sent.total)))
    document = {
        "total": sent.total,
        "sent": [{"region": where, "kind": kind, "count": number} for (where, kind), number in sent.sent.items()],
    }
    screen.show(document, report.table(("region", "event", ">sent"), rows))
