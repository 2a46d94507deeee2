"""`firn import`: bulk import of old history."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from core.imports import KINDS
from ops import report
from ops.commands.options import Json, Now, command, load, moment

imports_app = typer.Typer(rich_markup_mode=None)


@command(
    imports_app,
    "import",
    "import history.parquet --region us",
    "import 2019.ndjson 2020.ndjson --region us --source forum --json",
    "import chat.parquet --region us --source lean-archive --map conversation=stream+topic --map id=source_id",
)
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Parquet, or NDJSON: one JSON object a line.")],
    source: Annotated[
        str, typer.Option(metavar="NAME", help="The archive's name, from which ids are derived: one for each archive.")
    ] = "import",
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OURS=THEIRS",
            help=f"A column that has another name there; again for more. Ours: {', '.join(KINDS)}. "
            "conversation=a+b joins columns.",
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option(metavar="R", help="Where it belongs. May be left out where one region is configured.")
    ] = None,
    now: Now = None,
    json_: Json = False,
) -> None:
    """Import old history.

    Weeks that are hot or warm go through Kafka; older ones wait as sorted files for `firn fold`.

    Safe to repeat and to interrupt: the same command goes on, and once done changes nothing. Rows that cannot be
    kept go to quarantine with their reason; the columns and all the rules: docs/import.md.
    """
    done = _run(files, source, map_ or [], region, now, json_)
    report.screen(json_).show(done, *_lines(done))


def _run(
    files: list[Path], source: str, maps: list[str], region: str | None, now: datetime | None, json_: bool
) -> dict[str, Any]:
    from ops import runs  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load([region] if region else None)
    arguments = ["--now", moment(now).isoformat(), "--source", source]
    arguments += [word for spec in maps for word in ("--map", spec)]
    arguments += [word for name in [region] if name for word in ("--region", name)]
    steps = runs.Steps()
    with report.progress(screen, "importing") as progress:

        def hear(line: str) -> None:
            place = steps.hear(line)
            if place and progress.bar:
                progress.at(*place)
                progress.tell(line)
            else:
                progress.say(line)

        return runs.run_job(config, "imports", [*arguments, "--", *map(str, files)], hear)


def _lines(done: dict[str, Any]) -> Iterator[RenderableType]:
    for file in done["files"]:
        if file["ignored"]:
            yield f"not used of {file['name']}: {', '.join(file['ignored'])}"
    yield from (f"{path} has the bytes of another file: read once" for path in done["same"])
    rows = [("read", report.count(done["read"]), "")]
    rows += [("placed", report.count(done["placed"][to]), where) for to, where in _WHERE.items()]
    rows.append(("repeated", report.count(done["repeated"]), "the same row again"))
    rows += [("quarantined", report.count(number), why) for why, number in done["quarantined"].items()]
    yield report.table(("rows", ">number", ""), rows)
    if done["listed"]:
        yield ""
        listed = [(one["file"], str(one["line"]), one["reason"]) for one in done["listed"]]
        yield report.table(("file", ">line", "reason"), listed, f"the first {len(listed)} in quarantine")
    yield ""
    weeks, runs = report.plural(done["units"], "unit"), report.plural(done["runs"], "run")
    waiting = "; ./firn fold takes the runs in" if done["runs"] else ""
    yield f"import {done['import']}: {weeks}, {runs}{waiting}"


_WHERE = {"kafka": "through Kafka: hot and warm weeks", "runs": "in runs: cold and frozen weeks"}
