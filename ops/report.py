"""What the command line shows: one JSON document or tables on stdout; progress, a bar or plain lines, on stderr."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from rich import progress as bars
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

UNKNOWN = "unknown"
FIRST_LINE_SECONDS = 2.0
LINE_SECONDS = 10.0
_PIPE_COLUMNS = 200  # a table in a pipe is as wide as it needs to be
_KIB = 1024.0


@dataclass(frozen=True)
class Screen:
    as_json: bool
    out: Console
    err: Console

    def show(self, document: Any, *shown: RenderableType) -> None:
        """`document` with --json, else what a person reads."""
        if self.as_json:
            print(json.dumps(document, ensure_ascii=False, default=_plain), file=self.out.file, flush=True)
            return
        for one in shown:
            if isinstance(one, str):
                self.out.print(Text(one), soft_wrap=True)
            else:
                self.out.print(one)

    def say(self, line: str) -> None:
        self.err.print(Text(line), soft_wrap=True)


@dataclass
class Progress:
    """`bar` only on a terminal; `at` is then its place, and elsewhere a line now and then."""

    screen: Screen
    title: str
    bar: bars.Progress | None = None
    next_line_at: float = 0.0

    def say(self, line: str) -> None:
        """A line that stays."""
        self.screen.say(line)

    def tell(self, line: str) -> None:
        """A line that goes with the bar, in place of the title."""
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], description=line)

    def at(self, done: float, total: float) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done, total=total)
        elif time.monotonic() >= self.next_line_at:
            self.next_line_at = time.monotonic() + LINE_SECONDS
            self.say(f"{self.title}: {done / max(total, 1):.0%}")


def screen(as_json: bool) -> Screen:
    return Screen(as_json, _console(sys.stdout), _console(sys.stderr))


def _console(file: TextIO) -> Console:
    known = file.isatty() or "COLUMNS" in os.environ
    return Console(file=file, highlight=False, width=None if known else _PIPE_COLUMNS)


@contextmanager
def progress(screen: Screen, title: str) -> Iterator[Progress]:
    """On a terminal a bar that goes when the work is done, with its time; it stays a sweep until `at` is called."""
    if not screen.err.is_terminal:
        yield Progress(screen, title, None, time.monotonic() + FIRST_LINE_SECONDS)
        return
    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=screen.err, transient=True) as bar:
        bar.add_task(title, total=None)
        yield Progress(screen, title, bar)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """A heading that begins with `>` has its column set to the right. Where the screen is too narrow the last column is
    wrapped, and nothing is cut off while that suffices."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title or None, title_justify="left")
    made.title_style = "bold"
    for place, heading in enumerate(headings, 1):
        justify: Any = "right" if heading.startswith(">") else "left"
        no_wrap = place < len(headings)
        made.add_column(heading.removeprefix(">"), justify=justify, no_wrap=no_wrap, header_style="dim")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def title(text: str) -> Text:
    return Text(text, style="bold")


def count(number: int | None, is_estimate: bool = False) -> str:
    return UNKNOWN if number is None else f"{'~' if is_estimate else ''}{number:,}"


def size(size_bytes: int | None, is_estimate: bool = False) -> str:
    if size_bytes is None:
        return UNKNOWN
    mark, value = "~" if is_estimate else "", float(size_bytes)
    if value < _KIB:
        return f"{mark}{size_bytes} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= _KIB
        if value < _KIB:
            return f"{mark}{value:,.1f} {unit}"
    return f"{mark}{value / _KIB:,.1f} PiB"


def instant(when: datetime | None) -> str:
    return "" if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def second(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def span(length: timedelta | float) -> str:
    """The two largest of days, hours, minutes, seconds."""
    seconds = int(length.total_seconds() if isinstance(length, timedelta) else length)
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
