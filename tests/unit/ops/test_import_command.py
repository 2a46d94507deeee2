"""`firn import`: what it hands to the job, and what people see of its report."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from jobs.imports.meter import Meter
from ops import runs
from ops.cli import main

REPORT: dict[str, Any] = {
    "import": "0123456789abcdef",
    "region": "us",
    "source": "forum",
    "read": 12_345,
    "placed": {"kafka": 45, "runs": 12_000},
    "repeated": 298,
    "quarantined": {"it is not JSON": 2},
    "listed": [{"file": "a.ndjson", "line": 7, "reason": "it is not JSON"}],
    "units": 3,
    "runs": 2,
    "seconds": {"sorting": 1.5, "placing": 2.5},
    "files": [{"name": "a.ndjson", "form": "ndjson", "ignored": ["subject"]}],
    "same": ["copy/a.ndjson"],
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Sequence[str]]:
    """The arguments that the job was given."""
    given: list[Sequence[str]] = []

    def run_job(_: Settings, job: str, arguments: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
        given.append([job, *arguments])
        say("read 10 of 20 rows (5 rows/s, 2 s left)")
        return REPORT

    (tmp_path / "firn.toml").write_text('regions = ["us", "eu"]\n')
    monkeypatch.setenv("FIRN_SETTINGS", str(tmp_path / "firn.toml"))
    monkeypatch.setattr(runs, "run_job", run_job)
    return given


def test_options_are_handed_on(told: list[Sequence[str]]) -> None:
    words = [
        "--source",
        "forum",
        "--map",
        "id=a",
        "--map",
        "sender=b",
        "--region",
        "us",
        "--now",
        "2026-03-02T00:00:00Z",
    ]
    assert main(["import", "a.ndjson", "b.parquet", *words]) == 0
    handed_on = "imports --now 2026-03-02T00:00:00+00:00 --source forum --map id=a --map sender=b --region us"
    assert told == [[*handed_on.split(), "--", "a.ndjson", "b.parquet"]]


def test_people_see_where_every_row_went(told: list[Sequence[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "a.ndjson", "--region", "us"]) == 0
    shown = capsys.readouterr()
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    for line in (
        "not used of a.ndjson: subject",
        "copy/a.ndjson has the bytes of another file: read once",
        "read 12,345",
        "placed 45 through Kafka: hot and warm weeks",
        "placed 12,000 in runs: cold and frozen weeks",
        "repeated 298 the same row again",
        "quarantined 2 it is not JSON",
        "a.ndjson 7 it is not JSON",
        "import 0123456789abcdef: 3 units, 2 runs; ./firn fold takes the runs in",
    ):
        assert line in lines
    assert shown.err == "read 10 of 20 rows (5 rows/s, 2 s left)\n"


def test_programs_get_the_report(told: list[Sequence[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "a.ndjson", "--region", "us", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == REPORT


def test_a_region_that_is_not_there_is_refused(told: list[Sequence[str]]) -> None:
    assert main(["import", "a.ndjson", "--region", "mars"]) == 2
    assert told == []


def test_the_bar_reads_what_the_meter_says() -> None:
    """Reading is the first half, placing the second."""
    said: list[str] = []
    for verb, done in (("read", 0), ("read", 400), ("placed", 0), ("placed", 1200)):
        Meter(verb, 0, said.append).at(done, 1200, is_last=True)
    Meter("read", 0, said.append).at(2000, 8000, is_estimate=True, is_last=True)
    steps = runs.Steps()
    assert [steps.hear(line) for line in said] == [(0, 2400), (400, 2400), (1200, 2400), (2400, 2400), (2000, 16000)]
    assert steps.hear("import 0123 was done before: nothing changes") is None
