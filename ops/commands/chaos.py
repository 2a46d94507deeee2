"""`firn chaos`: what happens when processes die or sleep at the worst moments."""

from typing import Annotated

import typer

from core import settings
from core.errors import RefusedError
from ops import report
from ops.commands.options import Json, command

chaos_app = typer.Typer(rich_markup_mode=None)


@command(
    chaos_app,
    "chaos",
    "chaos --list",
    "chaos --quick",
    'chaos --phase "cold to frozen" --phase "drop of cold"',
    "chaos --json",
)
def chaos(
    list_: Annotated[bool, typer.Option("--list", help="Only list the steps that cannot be taken back.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only the first step of each kind in each phase.")] = False,
    phase: Annotated[
        list[str] | None, typer.Option(metavar="P", help="Only this phase; again for more. Default: all of them.")
    ] = None,
    json_: Json = False,
) -> None:
    """Kill and freeze the movers around every step that cannot be taken back.

    In a region of its own on the running stack: each process is killed before a step, killed after it, or frozen
    before it until another has finished its work. After each phase every message must be there, once, with its content.

    The region goes again at the end; after damage it is kept. Exit code 4 when anything is missing.
    """
    from ops.chaos import run, trials  # noqa: PLC0415

    phases = list(run.phases_named(phase or []))
    if unknown := set(phase or []) - {one.name for one in phases}:
        names = ", ".join(one.name for one in trials.PHASES)
        raise RefusedError(f"{min(unknown)!r} is no phase", f"name some of: {names}")
    screen, config = report.screen(json_), settings.load()
    with report.progress(screen, "killing and freezing") as progress:
        if list_:
            steps = run.listed(config, phases, progress.say)
            rows = [(name, f"{at}", step) for name, found in steps.items() for at, step in enumerate(found, 1)]
            screen.show({"steps": steps}, report.table(("phase", ">", "step"), rows))
            return
        done = run.run(config, phases, quick, progress.say)
    screen.show(done, f"{done['trials']} trials, {done['rows']:,} rows in {done['weeks']} weeks: all of them are there")
