"""Runs a job for a command: the options that all jobs share, its lines as progress, its report as data."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ops import report
from ops.commands.options import load, moment


def run_job(
    name: str,
    title: str,
    json_: bool,
    now: datetime | None,
    regions: Sequence[str] | None,
    named: Sequence[int] | None = None,
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """`named` are weeks, `more` further words of its command line. Ends as the job does, with the error it had."""
    from ops import runs  # noqa: PLC0415

    screen, (config, chosen) = report.screen(json_), load(list(regions or ()))
    arguments = ["--now", moment(now).isoformat(), *more]
    arguments += [word for region in chosen for word in ("--region", region)]
    arguments += [word for week in named or () for word in ("--week", str(week))]
    steps = runs.Steps(name)
    with report.progress(screen, title) as progress:

        def hear(line: str) -> None:
            place = steps.hear(line)
            if not runs.is_stage(line):
                progress.say(line)
            if place and (progress.bar or runs.is_stage(line)):
                progress.at(*place)

        return runs.run_job(config, name, arguments, hear)
