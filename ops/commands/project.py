"""`firn test`, `firn check`: the same commands for a person and for a build."""

import os
import time
from typing import Annotated, Any

import typer

from ops import report
from ops.commands.options import Json, command

UNIT = ("tests/unit", "--disable-socket", "--allow-unix-socket", "-q")
# Much of a test is waiting. The tests of a module share a region, so they stay together.
AT_ONCE = ("-n", "2", "--dist", "loadfile")
CHECKS = {
    "format": ("ruff", "format", "--check", "."),
    "lint": ("ruff", "check", "."),
    "types": ("mypy",),
    "architecture": ("pytest", "-q", "--disable-socket", "tests/unit/test_architecture.py"),
}
project_app = typer.Typer(rich_markup_mode=None)


@command(
    project_app,
    "test",
    "test",
    "test unit",
    "test tests/unit/core -k weeks",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def run_tests(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="`unit` (no services, no sockets), or arguments of pytest.")
    ] = None,
    json_: Json = False,
) -> None:
    """Run the tests.

    All of them, services included and two modules at a time, unless something is named. The exit code is pytest's.
    """
    from ops import runs  # noqa: PLC0415

    named = list(arguments or ())
    words = [*UNIT, *named[1:]] if named[:1] == ["unit"] else named or [*AT_ONCE]
    started = time.monotonic()
    code = runs.run_tool(["pytest", *words], quiet=json_)
    document = {"arguments": words, "exit_code": code, "seconds": round(time.monotonic() - started, 1)}
    report.screen(json_).show(document)
    raise typer.Exit(code)


@command(project_app, "check", "check", "check --json")
def run_checks(json_: Json = False) -> None:
    """Check format, lint, types and architecture.

    All are run; exit code 1 when one of them fails.
    """
    from ops import runs  # noqa: PLC0415

    screen, done = report.screen(json_), []
    environ = os.environ | {"FORCE_COLOR": "1"} if screen.out.is_terminal else os.environ
    for name, argv in CHECKS.items():
        screen.say(f"{name}: {' '.join(argv)}")
        started = time.monotonic()
        code = runs.run_tool(argv, environ, quiet=json_)
        done.append({"check": name, "ok": code == 0, "seconds": round(time.monotonic() - started, 1)})
    screen.show({"ok": all(one["ok"] for one in done), "checks": done}, _table(done))
    if not all(one["ok"] for one in done):
        raise typer.Exit(1)


def _table(done: list[dict[str, Any]]) -> Any:
    rows = [(one["check"], "ok" if one["ok"] else "FAILED", report.span(one["seconds"])) for one in done]
    return report.table(("check", "outcome", ">time"), rows)
