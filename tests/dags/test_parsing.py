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
IDS = ["drop", "fold", "maintain", "tier", "weeks"]
BY_WEEK = ("drop", "fold", "tier")
DESTRUCTIVE = ("drop", "maintain")
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


def test_the_gate_judges_whatever_became_of_the_move_and_the_end_watches_both(bag: DagBag) -> None:
    tier = bag.dags["tier"]
    after = {task.task_id: (task.upstream_task_ids, task.trigger_rule.value) for task in tier.tasks}
    assert after == {
        "move": (set(), "all_success"),
        "quality": ({"move"}, "all_done"),
        "done": ({"move", "quality"}, "all_success"),
    }


def test_every_pool_ships(bag: DagBag) -> None:
    used = {task.pool for dag in bag.dags.values() for task in dag.tasks}
    assert used == set(POOLS)
    assert all(pool["slots"] == 1 and pool["description"] for pool in POOLS.values())


@pytest.mark.parametrize("dag_id", IDS)
def test_an_interval_is_one_whole_day(bag: DagBag, dag_id: str) -> None:
    begins = datetime(2026, 8, 31, tzinfo=UTC) - (timedelta(minutes=30) if dag_id == "fold" else timedelta())
    interval = _next_interval(bag.dags[dag_id], begins)
    assert (interval.start, interval.end) == (begins, begins + timedelta(days=1))


def test_a_fold_takes_the_slot_before_the_freeze_that_waits_for_it(bag: DagBag) -> None:
    fold, move = bag.dags["fold"].get_task("fold"), bag.dags["tier"].get_task("move")
    assert fold.pool == move.pool == "lake_writers"
    assert POOLS[fold.pool]["slots"] == 1
    ranks = {(one.priority_weight, str(one.weight_rule)) for one in (fold, move)}
    assert ranks == {(1, "absolute")}, "of equals the older run goes first"


@pytest.mark.parametrize("dag_id", DESTRUCTIVE)
def test_what_deletes_says_so(bag: DagBag, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    assert "destructive" in dag.tags
    assert "dry run" in (dag.doc_md or "")
    assert dag.params["apply"] is False


@pytest.mark.parametrize(
    ("dag_id", "name", "value"),
    [
        *[(dag_id, "region", value) for dag_id in IDS for value in ("", "US", "us; rm -rf /", "u" * 17, 7)],
        *[(dag_id, "week", value) for dag_id in BY_WEEK for value in ("", "2026-35", "2026-W35 ", "x26-W35")],
        *[(dag_id, "apply", value) for dag_id in DESTRUCTIVE for value in ("yes", 1, None)],
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
        *[(dag_id, "week", (None, "2026-W35")) for dag_id in BY_WEEK],
        *[(dag_id, "apply", (True, False)) for dag_id in DESTRUCTIVE],
    ],
)
def test_a_good_param_is_taken(bag: DagBag, dag_id: str, name: str, values: tuple[object, ...]) -> None:
    param = bag.dags[dag_id].params.get_param(name)
    assert [param.resolve(value) for value in values] == list(values)


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
