"""`firn stack`, `firn airflow`, `firn settings`: what runs here, and with which settings."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import RefusedError
from ops import report
from ops.commands.options import Json, command, group, load

if TYPE_CHECKING:
    from ops.stack import Status

NOT_RUNNING = 3

stack_app = group(
    "stack", "The local stack: Cassandra, Kafka, Valkey, consumers.", "stack up", "stack status", no_args_is_help=True
)
airflow_app = group(
    "airflow",
    "The local Airflow; without a command it is started.",
    "airflow",
    "airflow status",
    "airflow down",
    invoke_without_command=True,
)
settings_app = typer.Typer(rich_markup_mode=None)


@command(stack_app, "up", "stack up", "stack up --full-speed", "stack up --no-consumers --json")
def up(
    consumers: Annotated[bool, typer.Option(help="Start a consumer per region.")] = True,
    full_speed: Annotated[
        bool, typer.Option("--full-speed", help="More memory and compiled code, for measurements.")
    ] = False,
    json_: Json = False,
) -> None:
    """Start what does not run yet, and make every region ready. Safe to repeat.

    Services that the settings name are not started. The first time, about 100 MB of jars are fetched.
    """
    from ops import regions, stack  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load()
    prepared = False

    def prepare(ready: Any) -> None:
        nonlocal prepared
        prepared = True
        progress.say("making the regions ready: " + ", ".join(ready.regions))
        regions.prepare_all(ready)

    with report.progress(screen, "starting the stack") as progress:
        ready = stack.up(config, progress.say, prepare, consumers, full_speed=full_speed)
        if not prepared:
            prepare(ready)  # it ran already, but perhaps without this region, or from an older version
        running = stack.status(ready)
    screen.show(_data(running), _table(running))


@command(stack_app, "down", "stack down")
def down(json_: Json = False) -> None:
    """Stop everything of the local stack. Data stay."""
    from ops import stack  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load()
    with report.progress(screen, "stopping the stack") as progress:
        stack.down(config, progress.say)
    screen.show({"running": False})


@command(stack_app, "status", "stack status", "stack status --json")
def status(json_: Json = False) -> None:
    """Show each process: state, port, memory. Exit code 3 when one of them does not run."""
    from ops import stack  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load()
    found = stack.status(config)
    screen.show(_data(found), _table(found))
    if any(one.state not in ("running", "configured") for one in found):
        raise typer.Exit(NOT_RUNNING)


@command(stack_app, "logs", "stack logs cassandra", "stack logs consumer-us --lines 200", "stack logs kafka --follow")
def logs(
    name: Annotated[str, typer.Argument(help="cassandra, kafka, valkey, supervisor, consumer-REGION.")],
    lines: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    json_: Json = False,
) -> None:
    """Show the end of one component's log."""
    from ops import stack  # noqa: PLC0415

    if follow and json_:
        raise RefusedError("--follow never ends, so it is no JSON document", "leave out one of --follow and --json")
    screen, (config, _) = report.screen(json_), load()
    found = stack.logs(config, name, lines)
    screen.show({"name": name, "lines": found}, *found)
    for line in stack.follow(config, name) if follow else ():
        screen.show(None, line)


@command(stack_app, "wipe", "stack wipe", "stack wipe --apply")
def wipe(
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without it only say what would go.")] = False,
    json_: Json = False,
) -> None:
    """Delete all local data. A dry run unless --apply.

    That of the stack and of Airflow, only when both are down. Fetched jars and secrets stay.
    """
    from ops import stack  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load()
    found = stack.wipe(config, apply)
    verb = "deleted" if apply else "would be deleted"
    lines = [f"{verb}: {path}" for path in found.paths] or ["there is nothing to delete"]
    hint = [] if apply or not found.paths else ["to delete it: ./firn stack wipe --apply"]
    document = {"applied": apply, "paths": [str(path) for path in found.paths], "size_bytes": found.size_bytes}
    screen.show(document, *lines, f"{report.size(found.size_bytes)} in all", *hint)


def _data(found: "tuple[Status, ...]") -> dict[str, Any]:
    return {"components": [vars(one) for one in found]}


def _table(found: "tuple[Status, ...]") -> Any:
    headings = ("component", "state", ">pid", ">port", ">memory", ">up for", ">restarts")
    return report.table(headings, [_cells(one) for one in found])


def _cells(one: "Status") -> tuple[str, ...]:
    if one.state == "configured":
        return one.name, "named in the settings", "", "", "", "", ""
    port = str(one.port) if one.port else ""
    if one.pid is None:
        return one.name, one.state, "", port, "", "", str(one.restarts or "")
    memory, age = report.size(one.rss_bytes), report.span(one.uptime_seconds)
    return one.name, one.state, str(one.pid), port, memory, age, str(one.restarts)


@airflow_app.callback()
def airflow(context: typer.Context, json_: Json = False) -> None:
    """The local Airflow; without a command it is started."""
    if context.invoked_subcommand is None:
        airflow_up(json_)


@command(airflow_app, "up", "airflow up")
def airflow_up(json_: Json = False) -> None:
    """Start Airflow and print its address. Safe to repeat."""
    from ops import airflow  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load()
    with report.progress(screen, "starting Airflow") as progress:
        address = airflow.up(config, progress.say)
    screen.show({"address": address, "components": airflow.status(config)}, address)


@command(airflow_app, "down", "airflow down")
def airflow_down(json_: Json = False) -> None:
    """Stop Airflow; a task in flight has 20 seconds to end. Its history stays."""
    from ops import airflow  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load()
    with report.progress(screen, "stopping Airflow") as progress:
        airflow.down(config, progress.say)
    screen.show({"components": airflow.status(config)})


@command(airflow_app, "status", "airflow status", "airflow status --json")
def airflow_status(json_: Json = False) -> None:
    """Show Airflow's four processes. Exit code 3 when one of them is not healthy."""
    from ops import airflow  # noqa: PLC0415

    screen, (config, _) = report.screen(json_), load()
    found = airflow.status(config)
    screen.show({"components": found}, report.table(("component", "state"), found.items()))
    if set(found.values()) != {"healthy"}:
        raise typer.Exit(NOT_RUNNING)


@command(settings_app, "settings", "settings", "settings --json")
def settings(json_: Json = False) -> None:
    """Show the settings in force, secrets as stars.

    firn.toml, then FIRN_… variables, then what the local stack remembers.
    """
    from core.settings import redacted  # noqa: PLC0415

    found = redacted(load()[0])
    rows = [
        (f"{name}.{key}" if key else name, _shown(item))
        for name, value in found.items()
        for key, item in (value.items() if isinstance(value, dict) else [("", value)])
    ]
    report.screen(json_).show(found, report.table(("setting", "value"), rows))


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
