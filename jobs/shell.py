"""How a job is started and how it ends: its options, its exit code, one JSON line last."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from core import settings, weeks
from core.errors import FirnError, RefusedError, no_space
from core.moves import Unit

Say = Callable[[str], None]


def options(prog: str, description: str) -> argparse.ArgumentParser:
    """The options that every job has: when, which regions, which settings."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "--now", required=True, type=instant, metavar="INSTANT", help="the time to act at, e.g. 2026-03-02T00:00:00Z"
    )
    parser.add_argument(
        "--region", action="append", metavar="R", help="only this region (again for more); all when left out"
    )
    return parser


def week_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--week",
        action="append",
        type=week,
        metavar="W",
        help="only this week, e.g. 2026-W08; all that are due when left out",
    )


def instant(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(f"{text!r} is not an ISO instant like 2026-03-02T00:00:00Z") from fault
    if when.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone: add Z")
    return when.astimezone(UTC)


def week(text: str) -> int:
    try:
        return weeks.parse(text)
    except RefusedError as fault:
        raise argparse.ArgumentTypeError(f"{fault.what}: {fault.do}") from fault


def regions(config: settings.Settings, named: list[str] | None) -> tuple[str, ...]:
    return tuple(config.require_region(region) for region in named) if named else config.regions


def require_known(region: str, units: Iterable[Unit], named: Iterable[int] | None) -> None:
    """RefusedError for a named week of which the ledger has no unit."""
    known = {unit.week for unit in units}
    if unknown := [week for week in named or () if week not in known]:
        raise RefusedError(f"{region} knows no week {weeks.label(unknown[0])}", "see the weeks it knows: ./firn status")


def say(line: str) -> None:
    """Progress goes to stderr, so that stdout is the result alone."""
    print(line, file=sys.stderr, flush=True)


def finish(work: Callable[[], Mapping[str, Any]]) -> int:
    """Runs `work`, prints what it returns as the last line, and turns an error into its exit code."""
    try:
        result = work()
    except FirnError as fault:
        return _failed(fault)
    except OSError as fault:
        if full := no_space(fault, "this machine"):
            return _failed(full)
        raise
    print(json.dumps(result), flush=True)
    return 0


def _failed(fault: FirnError) -> int:
    print(f"{type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
    print(json.dumps(fault.as_data()), flush=True)
    return fault.exit_code
