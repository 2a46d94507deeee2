import ast
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowException, ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DataInterval, TimeRestriction
from pendulum import DateTime, instance

from dags._wiring import ExitCodes

DAGS = Path(__file__).resolve().parents[2] / "dags"
IDS = ["drop", "tier", "weeks"]
POOLS = json.loads((DAGS / "pools.json").read_text())
MAY_IMPORT = {"airflow", "dags"}


def _next_interval(dag: Any, after: datetime) -> DataInterval:
    timetable = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)).timetable
    start = instance(after)
    assert isinstance(start, DateTime)
    info = timetable.next_dagrun_info(
        last_automated_data_interval=DataInterval(start - timedelta(days=1), start),
        restriction=TimeRestriction(earliest=None, latest=None, catchup=True),
    )
    assert info is not None
    assert info.data_interval is not None
    return info.data_interval


def test_every_file_of_the_folder_gives_one_dag_of_its_name(bag: DagBag) -> None:
    assert bag.import_errors == {}
    files = {path.stem for path in DAGS.glob("*.py") if not path.name.startswith("_")}
    assert files == set(bag.dags) == set(IDS)
    assert {dag_id: Path(dag.fileloc).stem for dag_id, dag in bag.dags.items()} == {name: name for name in IDS}


@pytest.mark.parametrize("dag_id", IDS)
def test_a_dag_says_who_owns_it_and_what_to_do(bag: DagBag, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    assert "firn" in dag.tags
    assert dag.description
    for topic in ("**Params.**", "**Time.**", "**When it fails**", "**By hand:**", "blocked", "refused", "damaged"):
        assert topic in (dag.doc_md or ""), topic


@pytest.mark.parametrize("dag_id", IDS)
def test_a_writer_runs_alone_and_never_catches_up(bag: DagBag, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    assert {task.owner for task in dag.tasks} == {"firn"}
    assert all(task.retries == 4 for task in dag.tasks)
    assert all(task.retry_exponential_backoff > 1 for task in dag.tasks)
    assert all(isinstance(task.retry_policy, ExitCodes) for task in dag.tasks)


def test_every_pool_ships(bag: DagBag) -> None:
    used = {task.pool for dag in bag.dags.values() for task in dag.tasks}
    assert used == set(POOLS)
    assert all(pool["slots"] == 1 and pool["description"] for pool in POOLS.values())


@pytest.mark.parametrize("dag_id", IDS)
def test_an_interval_is_one_whole_day(bag: DagBag, dag_id: str) -> None:
    interval = _next_interval(bag.dags[dag_id], datetime(2026, 8, 31, tzinfo=UTC))
    assert interval.start == datetime(2026, 8, 31, tzinfo=UTC)
    assert interval.end == datetime(2026, 9, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dag_id", "name", "value"),
    [
        *[(dag_id, "region", value) for dag_id in IDS for value in ("", "US", "us; rm -rf /", "u" * 17, 7)],
        *[(dag_id, "week", value) for dag_id in ("tier", "drop") for value in ("", "2026-35", "2026-W35 ", "x26-W35")],
        *[("drop", "apply", value) for value in ("yes", 1, None)],
    ],
)
def test_a_bad_param_is_refused_at_the_trigger(bag: DagBag, dag_id: str, name: str, value: object) -> None:
    params = bag.dags[dag_id].params
    assert name in params
    with pytest.raises(ParamValidationError):
        params.get_param(name).resolve(value)


@pytest.mark.parametrize(
    ("dag_id", "name", "values"),
    [
        *[(dag_id, "region", (None, "us", "ap-south-1")) for dag_id in IDS],
        ("tier", "week", (None, "2026-W35")),
        ("drop", "week", (None, "2026-W35")),
        ("drop", "apply", (True, False)),
    ],
)
def test_a_good_param_is_taken(bag: DagBag, dag_id: str, name: str, values: tuple[object, ...]) -> None:
    param = bag.dags[dag_id].params.get_param(name)
    assert [param.resolve(value) for value in values] == list(values)


def test_a_hand_started_drop_is_dry_unless_it_says_otherwise(bag: DagBag) -> None:
    assert bag.dags["drop"].params["apply"] is False


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.name)
def test_a_dag_file_imports_nothing_heavy(path: Path) -> None:
    """The files are parsed again and again, in processes that have none of our clients."""
    standard = {"json", "re", "shlex", "sys", "collections", "datetime", "pathlib", "typing"}
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names <= MAY_IMPORT | standard


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("Cannot execute: spark-submit x. Error code is: 2.", "fail"),
        ("Cannot execute: spark-submit x. Error code is: 3.\nlast lines", "default"),
        ("Cannot execute: spark-submit x. Error code is: 4.", "fail"),
        ("Bash command failed. The command returned a non-zero exit code 4.", "fail"),
        ("Bash command failed. The command returned a non-zero exit code 5.", "default"),
        ("Bash command failed. The command returned a non-zero exit code 22.", "default"),
        ("something else", "default"),
    ],
)
def test_only_a_hopeless_exit_code_ends_the_retries(message: str, action: str) -> None:
    assert ExitCodes().evaluate(AirflowException(message), 1, 4).action.value == action
