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
    "chaos --wire --at-most 8",
    'chaos --phase "cold to frozen" --phase "drop of cold"',
    "chaos --json",
)
def chaos(
    list_: Annotated[bool, typer.Option("--list", help="Only list the steps that cannot be taken back.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only the first step of each kind in each phase.")] = False,
    wire: Annotated[
        bool, typer.Option("--wire", help="Harm requests to the services instead: replies lost, resets, delays.")
    ] = False,
    at_most: Annotated[
        int, typer.Option(min=1, help="With --wire: so many lost replies per phase and service, evenly spread.")
    ] = 24,
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

    phases = run.phases_named(phase or [])
    if unknown := set(phase or []) - {one.name for one in phases}:
        names = ", ".join(one.name for one in trials.PHASES)
        raise RefusedError(f"{min(unknown)!r} is no phase", f"name some of: {names}")
    screen, config = report.screen(json_), settings.load()
    with report.progress(screen, "killing and freezing") as progress:
        found = run.listed(config, phases, progress.say)
        if list_:
            rows = [(one.name, f"{at}", step) for one in found for at, step in enumerate(found[one].steps, 1)]
            told = {one.name: {"steps": each.steps, "requests": each.requests} for one, each in found.items()}
            screen.show({"phases": told}, report.table(("phase", ">", "step"), rows))
            return
        planned: dict[trials.Phase, list[trials.Trial | trials.WireTrial]] = {}
        for one, each in found.items():
            steps = list(trials.trials(one, each.steps))
            broken = list(trials.wire_trials(one, each.requests, at_most))
            planned[one] = [*broken] if wire else [*(trials.one_per_kind(steps) if quick else steps)]
        done = run.run(config, planned, progress.say)
    screen.show(done, f"{done['trials']} trials, {done['rows']:,} rows in {done['weeks']} weeks: all of them are there")
