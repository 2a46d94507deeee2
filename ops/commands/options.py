"""What every command shares: its examples, its options, the settings and the clock."""

import argparse
import getpass
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from core import ids, settings, weeks
from core.errors import RefusedError
from jobs import shell

F = TypeVar("F", bound=Callable[..., Any])
EXAMPLES = "Examples:"


def group(name: str, text: str, *examples: str, **more: Any) -> typer.Typer:
    return typer.Typer(name=name, help=text, epilog=epilog(examples), rich_markup_mode=None, **more)


def command(app: typer.Typer, name: str, *examples: str, **more: Any) -> Callable[[F], F]:
    """Each example is a line without the leading `./firn`; a test parses them all."""
    return app.command(name, epilog=epilog(examples), **more)


def epilog(examples: tuple[str, ...]) -> str:
    # \b keeps the lines as they are.
    return "\n".join(("\b", EXAMPLES, *(f"  ./firn {example}".rstrip() for example in examples)))


def instant(text: str) -> datetime:
    try:
        return shell.instant(text)
    except argparse.ArgumentTypeError as fault:
        raise typer.BadParameter(str(fault)) from fault


def week(text: str) -> int:
    try:
        return weeks.parse(text)
    except RefusedError as fault:
        raise typer.BadParameter(f"{fault.what}: {fault.do}") from fault


def identifier(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as fault:
        raise typer.BadParameter("this is not a UUID") from fault


def message_id(text: str) -> bytes:
    """In time order, from the form that `firn read` prints or from a CQL TIMEUUID."""
    found = identifier(text)
    ordered = ids.from_timeuuid(found) if found.version == 1 else found.bytes
    if not ids.is_ordered_id(ordered):
        raise typer.BadParameter("this is not the id of a message")
    return ordered


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Now = Annotated[
    datetime | None,
    typer.Option(
        "--now",
        parser=instant,
        metavar="INSTANT",
        help="The time to act at, e.g. 2026-03-02T00:00:00Z. Default: this moment.",
    ),
]
Regions = Annotated[
    list[str] | None,
    typer.Option("--region", metavar="R", help="Only this region; again for more. Default: all that are configured."),
]
Weeks = Annotated[
    list[int] | None,
    typer.Option(
        "--week", parser=week, metavar="W", help="Only this week, e.g. 2026-W08; again for more. Default: all due."
    ),
]


By = Annotated[str | None, typer.Option("--by", help="Who does it, for the audit. Default: your login.")]


def actor(by: str | None) -> str:
    return by or getpass.getuser()


def moment(now: datetime | None) -> datetime:
    """The one place where the clock is read: everything below is told the time."""
    return now or datetime.now(UTC).replace(microsecond=0)


def load(regions: list[str] | None = None) -> tuple[settings.Settings, tuple[str, ...]]:
    config = settings.load()
    return config, shell.regions(config, regions)
