"""Figures as people read them."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import report


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (3 * 1024**2, "3.0 MiB"),
        (1024**5, "1.0 PiB"),
    ],
)
def test_sizes(size_bytes: int, shown: str) -> None:
    assert report.size(size_bytes) == shown


def test_what_is_not_known_says_so_and_an_estimate_is_marked() -> None:
    assert report.size(None) == report.count(None) == "unknown"
    assert report.count(12345, is_estimate=True) == "~12,345"
    assert report.size(2048, is_estimate=True) == "~2.0 KiB"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3723, "1 h 2 min"), (86400 + 59, "1 d"), (90000, "1 d 1 h")],
)
def test_spans(seconds: int, shown: str) -> None:
    assert report.span(seconds) == report.span(timedelta(seconds=seconds)) == shown


@given(st.floats(0, 1e9))
def test_a_span_is_never_empty(seconds: float) -> None:
    assert report.span(seconds)


def test_stdout_holds_one_document_and_stderr_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    screen = report.screen(as_json=True)
    with report.progress(screen, "working") as progress:
        progress.say("[a line with brackets]")
    screen.show({"at": datetime(2026, 3, 2, tzinfo=UTC)}, "not this")
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"at": "2026-03-02T00:00:00Z"}
    assert shown.err == "[a line with brackets]\n"


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with report.progress(report.screen(as_json=False), "moving") as progress:
        progress.at(1, 8)
        progress.next_line_at = 0.0
        progress.at(2, 8)
        progress.at(3, 8)
    assert capsys.readouterr().err == "moving: 25%\n"


def test_a_narrow_screen_wraps_what_comes_last_and_cuts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("replaced files", "1,234", "out of its table for 1 day")]
    report.screen(as_json=False).show(None, report.table(("objects", ">bytes", "why"), rows))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "objects         bytes  why",
        "replaced files  1,234  out of its table",
        "                       for 1 day",
    ]


def test_a_table_is_aligned_and_whole_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    rows = [("2026-W08", "7", "x" * 120), ("2026-W09", "1,234", "[bold]")]
    report.screen(as_json=False).show(None, report.table(("week", ">messages", "note"), rows))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "week      messages  note",
        f"2026-W08         7  {'x' * 120}",
        "2026-W09     1,234  [bold]",
    ]
