"""`firn demo`: a year of real traffic through all four tiers, and the proof that nothing was lost."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import UUID

import typer

from core import ids, weeks
from ops import report
from ops.commands.options import Json, command, load

if TYPE_CHECKING:
    from ops.evidence import Report

demo_app = typer.Typer(rich_markup_mode=None)


@command(demo_app, "demo", "demo", "demo --json")
def demo(json_: Json = False) -> None:
    """Take a year of real traffic through all four tiers.

    Brings the stack up, imports history, sends traffic, moves the clock on, then counts what every tier holds. Exit
    code 4 when that is not what was sent. A second run goes on where the first one stopped.
    """
    from ops import demo, holdings  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load()
    with report.progress(screen, "demo") as progress:
        ended = demo.run(config, progress.say)
    by_region = {region: holdings.by_week(holdings.of_counts(counts)) for region, counts in ended.counts.items()}
    as_data = {region: [holdings.as_data(one) for one in held] for region, held in by_region.items()}
    pictures = [shown for region, held in by_region.items() for shown in holdings.as_picture(held, region)]
    screen.show(_data(ended) | {"regions": as_data}, *pictures, *_lines(ended))


def _data(ended: "Report") -> dict[str, Any]:
    edit, thaw = ended.edit, ended.thaw
    return {
        "seconds": round(ended.seconds, 1),
        "sent": asdict(ended.sent) | {"total": str(ended.sent)},
        "found": asdict(ended.found) | {"total": str(ended.found)},
        "conversation": {"id": str(UUID(bytes=ended.conversation)), "region": ended.region, "read": len(ended.page)},
        "late_edit": {"week": weeks.label(edit.week), "edited_at": edit.edited_at, "tier": edit.tier},
        "frozen": {"week": weeks.label(thaw.week), "waited": thaw.waited, "read": thaw.messages},
    }


def _lines(ended: "Report") -> Iterator[str]:
    yield f"{ended.sent.rows:,} sent = {ended.found.rows:,} found   digest {ended.found}, equal to the sent one"
    yield ""
    yield f"one conversation read back, {report.plural(len(ended.page), 'message')} in one piece:"
    for tier, group in groupby(ended.page, key=lambda placed: placed[0]):
        rows = [row for _, row in group]
        newest, oldest = ids.instant(rows[0].message_id), ids.instant(rows[-1].message_id)
        yield f"  {tier:<6} {len(rows):>6,}   {report.second(newest)} back to {report.second(oldest)}"
    yield ""
    yield from _depths(ended)
    yield ""
    yield from _next(UUID(bytes=ended.conversation), ended.region)
    if ended.seconds >= 1:  # else nothing was left to do
        yield f"done in {report.span(ended.seconds)}"


def _depths(ended: "Report") -> Iterator[str]:
    edit, thaw = ended.edit, ended.thaw
    when = f"a message of {weeks.label(edit.week)} was edited on {edit.edited_at:%Y-%m-%d}, when its week was cold"
    yield f"a late edit:   {when}; now its file holds the edit"
    yield f"a frozen week: {weeks.label(thaw.week)} was {thaw.waited}"
    yield f"               and by then {report.plural(thaw.messages, 'message')} of one conversation could be read"


def _next(conversation: UUID, region: str) -> Iterator[str]:
    yield "try next"
    yield f"  ./firn read {conversation} --region {region}"
    yield "  ./firn plan --now 2026-03-12T00:00:00Z     what would move ten days later"
    yield "  ./firn airflow                             the DAG runs of this demo, in Airflow's own pages"
    yield "  ./firn move --now 2026-03-12T00:00:00Z     kill it in the middle, and run it again"
    yield "stop it with ./firn stack down; the data stay"
