"""`firn explain`: where the weeks of one conversation are, and why."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.console import RenderableType

from core import weeks
from core.settings import Settings
from ops import report
from ops.commands.options import Json, Now, command, identifier, load, moment, week

if TYPE_CHECKING:
    from ops.explain import Explanation
    from ops.whereabouts import Place

AT_ONCE = 8  # a week is a dozen small reads, which wait more than they work
_COLUMN = 12
explain_app = typer.Typer(rich_markup_mode=None)


@command(
    explain_app,
    "explain",
    "explain 0f0e0d0c-0b0a-8908-8706-050403020100",
    "explain 0f0e0d0c-0b0a-8908-8706-050403020100 2026-W08",
    "explain 0f0e0d0c-0b0a-8908-8706-050403020100 2026-W08 --region us --now 2026-03-02T00:00:00Z --json",
)
def explain(
    conversation: Annotated[UUID, typer.Argument(parser=identifier, help="The conversation's UUID.")],
    wanted: Annotated[
        int | None, typer.Argument(parser=week, metavar="WEEK", help="One week, e.g. 2026-W08. Default: a line each.")
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="R", help="Its region. Default: the first that knows it.")
    ] = None,
    now: Now = None,
    json_: Json = False,
) -> None:
    """Explain where a conversation's weeks are, and why.

    Which tier each is in and belongs in, which step is next, what keeps it, who holds it, when it is tried again, and
    which table or file has the rows: with WEEK all of it, down to the bytes. Changes nothing and reads no message.

    With --now ages, graces and restored copies count by that time; leases always run in real time.
    """
    screen, (config, _) = report.screen(json_), load()
    with report.progress(screen, "asking the ledger") as progress:
        found_in, found = _explained(config, conversation.bytes, wanted, region, moment(now), progress)
    from ops.explain import as_data  # noqa: PLC0415

    if wanted is not None:
        screen.show(as_data(found[0]), *_story(found[0]))
        return
    document = {"region": found_in, "weeks": [as_data(one) for one in found]}
    lines = _columns([("week", "tier → by age", "state", "rows", "why"), *(_cells(one) for one in found)])
    more = f"all of one week: ./firn explain {conversation} {weeks.label(found[0].week)} --region {found_in}"
    screen.show(document, report.title(found_in), *lines, "", more)


def _explained(
    config: Settings,
    conversation_id: bytes,
    wanted: int | None,
    named: str | None,
    now: datetime,
    progress: report.Progress,
) -> "tuple[str, list[Explanation]]":
    """The week that is wanted, else all that the conversation has, newest first."""
    from lakehouse.site import site  # noqa: PLC0415
    from ops.explain import explained  # noqa: PLC0415
    from ops.regions import home_of  # noqa: PLC0415
    from ops.whereabouts import gather, known_of  # noqa: PLC0415
    from stores.cassandra import connected  # noqa: PLC0415

    with connected(config) as db, ThreadPoolExecutor(AT_ONCE) as pool:
        region, held = home_of(config, db, conversation_id, named)
        here = site(config, region, db, now)
        known, chosen = known_of(here, held), held if wanted is None else [wanted]
        found = []
        for facts in pool.map(lambda one: gather(here, conversation_id, one, now, known), chosen):
            real = datetime.now(UTC)  # whatever --now says: a lease is a promise about processes
            found.append(explained(facts, conversation_id, now, config.tiers, real, config.alarms))
            progress.at(len(found), len(chosen))
    return region, found


def _cells(one: "Explanation") -> tuple[str, ...]:
    tier = str(one.actual or "none")
    tier += f" → {one.target}" if tier != one.target else ""
    state = f"{one.state} ({one.move})" if one.state else ""
    rows = [_in_short(place) for place in one.places] + ([f"{one.lane_events} in the lane"] if one.lane_events else [])
    return weeks.label(one.week), tier, state, ", ".join(rows), _why(one)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The last column is as long as its sentences: nothing is cut where a line is too long for the screen."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for *cells, last in rows:
        yield "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True)) + last


def _why(one: "Explanation") -> str:
    from ops.explain import NOTHING, Step  # noqa: PLC0415

    return one.kept if one.step is Step.NONE else f"{one.step}: {one.kept or NOTHING}"


def _in_short(place: "Place") -> str:
    if place.fault:
        return "damaged"
    if place.size_bytes is None:
        return place.name.partition(".")[2]
    held = f"{report.plural(len(place.groups), 'row group')}, {report.size(place.length_bytes)}"
    frozen = f" {place.storage_class} ({place.restore_state})" if place.storage_class else ""
    return f"{place.tier}{frozen}: {held if place.groups else 'no row group'}"


def _story(one: "Explanation") -> Iterator[RenderableType]:
    from ops.explain import NAMED  # noqa: PLC0415

    shard = f", shard {one.shard} of {one.shards}" if one.shards else ", not cut into shards yet"
    yield report.title(f"{one.region}  {weeks.label(one.week)}  slice {one.slice}{shard}")
    if one.presence:
        yield _line("conversation", one.presence)
    yield _line("tier", _tier(one))
    if one.state:
        yield _line("state", _state(one))
    yield _line("step", one.blocking)
    yield from (_line("", sentence) for sentence in one.gate[NAMED:])
    yield _line("next try", _next_try(one))
    if one.mend:
        yield _line("to mend", one.mend)
    yield _line("holder", _holder(one))
    yield from (_line("rows" if not at else "", text) for at, text in enumerate(_rows(one)))
    events = f"{report.plural(one.lane_events, 'event')} of it; {one.fold}" if one.lane_events else "nothing of it"
    yield _line("lane", events)
    if one.runs:
        yield _line("runs", f"{report.plural(one.runs, 'run')} of the unit may hold rows of it; {one.fold}")
    if one.verdict:
        yield _line("quality", one.verdict)


def _line(name: str, text: str) -> str:
    return f"{name:<{_COLUMN}}  {text}"


def _tier(one: "Explanation") -> str:
    if one.actual is None:
        return f"none yet; its age puts it in {one.target}"
    if one.actual == one.target:
        return f"{one.actual}, where its age puts it"
    since = f", due since {report.instant(one.due_since)}" if one.due_since else ""
    return f"{one.actual}; its age puts it in {one.target}{since}"


def _state(one: "Explanation") -> str:
    supplement = f", generation {one.generation}" if one.generation else ""
    parts = f"; {report.plural(one.copied, 'part')} copied, {one.verified} verified" if one.copied else ""
    return f"{one.state} ({one.move}){supplement}{parts}"


def _next_try(one: "Explanation") -> str:
    tried = one.next_try
    if tried.when is None:
        return "none by itself"
    by_hand = f"; by hand: {tried.command}" if tried.command else ""
    if tried.when == one.held_until:
        return f"when the lease has run out at {report.second(tried.when)} UTC, unless it is renewed{by_hand}"
    return f"{report.instant(tried.when)}, by the DAG {tried.dag}{by_hand}"


def _holder(one: "Explanation") -> str:
    if one.held_until is None:
        return f"nobody; the last epoch is {one.epoch}"
    return f"{one.holder}, under epoch {one.epoch}, until {report.second(one.held_until)} UTC"


def _rows(one: "Explanation") -> Iterator[str]:
    if not one.places:
        yield f"not looked at: {one.away}" if one.away else "in no table and no file"
    for place in one.places:
        yield f"{place.tier}: {place.fault or _place(place)}"


def _place(place: "Place") -> str:
    if place.size_bytes is None:
        return f"table {place.name}"
    frozen = f", generation {place.generation}, {place.storage_class}, {place.restore}" if place.storage_class else ""
    named = f"{place.name} ({report.size(place.size_bytes)}{frozen})"
    if not place.groups:
        return f"{named}: its index says that no row group holds it"
    first, last = place.groups[0], place.groups[-1]
    numbers, get = (f"group {first}", "one GET") if first == last else (f"groups {first} to {last}", "one GET each")
    span = f"bytes {place.offset:,} to {place.offset + place.length_bytes - 1:,}"
    return f"{named}: row {numbers} ({span}, {report.plural(place.rows, 'row')}): {get}"
