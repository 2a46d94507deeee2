"""`firn metrics` and `firn phantoms`: what watches a region, and what looks for things that should not be."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from core.errors import DamagedError, FirnError
from ops import report
from ops.commands.options import Json, Now, Regions, command, load, moment

if TYPE_CHECKING:
    from ops import phantoms as phantoms_

watch_app = typer.Typer(rich_markup_mode=None)


@command(watch_app, "metrics", "metrics", "metrics --region us --out firn.prom", "metrics --json")
def metrics(
    out: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write them here, whole or not at all, for a collector.")
    ] = None,
    now: Now = None,
    region: Regions = None,
    json_: Json = False,
) -> None:
    """Print what alarms are made of, as Prometheus reads it.

    Lag per region and move, stuck units, the consumer's place in the log, dead letters. docs/alerts.yaml has the rules.
    With --out a timer can run it for the textfile collector. Exit code 3 when a region could not be looked at.
    """
    from ops import metrics, status  # noqa: PLC0415

    screen, (config, regions), at = report.screen(json_), load(region), moment(now)
    with report.progress(screen, "weighing the weeks") as progress:
        gathered = status.gather(config, at, regions, progress.at)
    found = metrics.metrics(gathered, at)
    if out is not None:
        metrics.write(out, metrics.rendered(found))
    shown = [f"{sum(len(one.samples) for one in found)} samples written to {out}"] if out else []
    screen.show({"metrics": [metrics.as_data(one) for one in found]}, *shown or metrics.rendered(found).splitlines())
    if faults := [one for one in gathered.values() if isinstance(one, FirnError)]:
        raise typer.Exit(max(fault.exit_code for fault in faults))


@command(watch_app, "phantoms", "phantoms", "phantoms --region us --json")
def phantoms(now: Now = None, region: Regions = None, json_: Json = False) -> None:
    """Find what is named and not there, and what is there and not named.

    Phantoms: objects of the lake and of frozen that a pointer, a log, the ledger or a move names, and that the bucket
    lacks or has in another size. Orphans: what `firn maintain` would purge. And lifecycle rules of the bucket that
    reach for what firn needs. Changes nothing. Exit code 4 where there is a phantom or such a rule.
    """
    from ops import phantoms  # noqa: PLC0415

    screen, (config, regions) = report.screen(json_), load(region)
    with report.progress(screen, "looking through the bucket"):
        found = phantoms.gather(config, moment(now), regions)
    shown = [line for one in found for line in _phantom_lines(one)]
    screen.show({"regions": {one.name: phantoms.as_data(one) for one in found}}, *shown)
    if not all(one.is_sound for one in found):
        raise typer.Exit(DamagedError.exit_code)


def _phantom_lines(one: "phantoms_.Region") -> Iterator[RenderableType]:
    yield report.title(one.name)
    yield f"phantoms   {len(one.phantoms):,}"
    yield from (f"           {each.sentence}" for each in one.phantoms)
    if one.phantoms:
        yield "           nothing was dropped for them; see the run-book, An object is named and not there"
    yield f"rules      {len(one.threats):,} of the bucket's lifecycle reach for what firn needs"
    yield from (f"           {each.sentence}: {report.plural(each.objects, 'object')} now" for each in one.threats)
    if isinstance(one.orphans, FirnError):
        yield f"orphans    unknown: {one.orphans}"
        return
    goes = [one.orphans["goes"][kind] for kind in ("orphans", "folded_runs", "replaced")]
    total, young = sum(kind["objects"] for kind in goes), one.orphans["kept"]["too_young"]
    yield f"orphans    {total:,} would go (./firn maintain), {young:,} are too young"
    if strange := one.orphans["kept"]["of_no_known_unit"]:
        yield f"strangers  {strange:,} of no unit that the ledger knows: never purged, look at who wrote them"
