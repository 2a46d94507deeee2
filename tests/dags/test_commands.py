"""The command each DAG ends up with is one that the job itself accepts."""

import importlib
import itertools
import shlex
import sys
from argparse import Namespace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowFailException

from core import weeks
from dags._wiring import REPOSITORY, arguments

END = datetime(2026, 8, 31, tzinfo=UTC)
RUN_TYPES = ("scheduled", "backfill", "manual", "asset_triggered")
REGIONS = (None, "us")
WEEKS = (None, "2026-W35")


def _context(run_type: str = "scheduled", **params: object) -> dict[str, Any]:
    return {"data_interval_end": END, "params": params, "dag_run": SimpleNamespace(run_type=run_type)}


def _task(bag: DagBag, dag_id: str, task_id: str) -> Any:
    return bag.dags[dag_id].get_task(task_id)


def _spark_options(bag: DagBag, dag_id: str, task_id: str, context: dict[str, Any]) -> list[str]:
    """Rendered as Airflow does it when the task starts."""
    task = _task(bag, dag_id, task_id).prepare_for_execution()
    task.render_template_fields(context)
    return list(task.application_args)


def _command(bag: DagBag, dag_id: str, task_id: str, **params: object) -> list[str]:
    return shlex.split(_task(bag, dag_id, task_id).python_callable(**_context("scheduled", **params)))


def _parsed(module: str, options: list[str]) -> Namespace:
    parser = importlib.import_module(module).parser()
    parsed = parser.parse_args(options)
    assert isinstance(parsed, Namespace)
    return parsed


def _values(chosen: Any) -> list[str]:
    return [str(value) for value in chosen or ()]


@pytest.mark.parametrize("region", REGIONS)
def test_weeks(bag: DagBag, region: str | None) -> None:
    command = _command(bag, "weeks", "weeks", region=region)
    assert command[:3] == [sys.executable, "-m", "jobs.weeks"]
    assert command[3:5] == ["--now", "2026-08-31T00:00:00Z"]
    assert _values(_parsed("jobs.weeks", command[3:]).region) == ([region] if region else [])


@pytest.mark.parametrize(("region", "week"), list(itertools.product(REGIONS, WEEKS)))
def test_tier(bag: DagBag, region: str | None, week: str | None) -> None:
    options = _spark_options(bag, "tier", "move", _context(region=region, week=week))
    assert options[:2] == ["--now", "2026-08-31T00:00:00Z"]
    parsed = _parsed("jobs.move", options)
    assert _values(parsed.region) == ([region] if region else [])
    assert list(parsed.week or ()) == ([weeks.parse(week)] if week else [])
    assert parsed.now == END


@pytest.mark.parametrize(("region", "week"), list(itertools.product(REGIONS, WEEKS)))
def test_fold(bag: DagBag, region: str | None, week: str | None) -> None:
    options = _spark_options(bag, "fold", "fold", _context(region=region, week=week))
    parsed = _parsed("jobs.fold", options)
    assert _values(parsed.region) == ([region] if region else [])
    assert list(parsed.week or ()) == ([weeks.parse(week)] if week else [])
    assert parsed.now == END


@pytest.mark.parametrize(("run_type", "apply", "region"), list(itertools.product(RUN_TYPES, (False, True), REGIONS)))
def test_maintain(bag: DagBag, run_type: str, apply: bool, region: str | None) -> None:
    purge = _task(bag, "maintain", "maintain").python_callable
    command = shlex.split(purge(**_context(run_type, region=region, apply=apply)))
    assert command[:3] == [sys.executable, "-m", "jobs.maintain"]
    parsed = _parsed("jobs.maintain", command[3:])
    assert parsed.apply is (apply or run_type in ("scheduled", "backfill"))
    assert _values(parsed.region) == ([region] if region else [])
    assert parsed.now == END


@pytest.mark.parametrize(("region", "week"), list(itertools.product(REGIONS, WEEKS)))
def test_the_gate_judges_what_the_move_was_asked_for(bag: DagBag, region: str | None, week: str | None) -> None:
    command = _command(bag, "tier", "quality", region=region, week=week)
    assert command[:3] == [sys.executable, "-m", "quality.run"]
    assert command[3:] == _spark_options(bag, "tier", "move", _context(region=region, week=week))
    parsed = _parsed("quality.run", command[3:])
    assert (parsed.now, parsed.region, parsed.week) == (
        "2026-08-31T00:00:00Z",
        [region] if region else None,
        [week] if week else None,
    )


@pytest.mark.parametrize(
    ("run_type", "apply", "region", "week"), list(itertools.product(RUN_TYPES, (False, True), REGIONS, WEEKS))
)
def test_drop(bag: DagBag, run_type: str, apply: bool, region: str | None, week: str | None) -> None:
    options = _spark_options(bag, "drop", "drop", _context(run_type, region=region, week=week, apply=apply))
    parsed = _parsed("jobs.drop", options)
    assert parsed.apply is (apply or run_type in ("scheduled", "backfill"))
    assert _values(parsed.region) == ([region] if region else [])
    assert list(parsed.week or ()) == ([weeks.parse(week)] if week else [])
    assert parsed.now == END


@pytest.mark.parametrize(("dag_id", "job"), [("tier", "move"), ("drop", "drop"), ("fold", "fold")])
def test_spark_submits_the_job_of_this_repository(bag: DagBag, dag_id: str, job: str) -> None:
    task = _task(bag, dag_id, job)
    assert task.application == str(REPOSITORY / "jobs" / f"{job}.py")
    assert (REPOSITORY / "jobs" / f"{job}.py").is_file()
    assert task._conn_id == "spark_default"


def test_a_run_without_an_interval_has_no_now() -> None:
    with pytest.raises(AirflowFailException, match="logical date"):
        arguments({"params": {}, "data_interval_end": None})


def test_now_is_said_in_utc() -> None:
    east = datetime.fromisoformat("2026-08-31T02:00:00+02:00")
    assert arguments({"data_interval_end": east, "params": {}}) == ["--now", "2026-08-31T00:00:00Z"]
