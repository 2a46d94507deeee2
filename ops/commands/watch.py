"""`firn metrics` and `firn phantoms`: what watches a region, and what looks for things that should not be."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import FirnError
from ops import report
from ops.commands.options import Json, Now, Regions, command, load, moment

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
