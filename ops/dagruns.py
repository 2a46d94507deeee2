"""The process that runs DAGs for `ops.airflow.DagRunner`: Airflow is imported once, a run then costs under a second.

`python -m ops.dagruns prepare` makes the database and the pools. `python -m ops.dagruns` reads one request per line
(`dag_id`, `at`, `conf`) and answers each with one line of JSON: `run_id`, `state`, `log`, or else `refused`.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG
from airflow.sdk.exceptions import ParamValidationError
from airflow.sdk.log import configure_logging
from airflow.utils.session import create_session


def prepare(pools: str) -> None:
    """Airflow's own commands, in one process: starting the CLI costs more than what it does here."""
    for words in (["db", "migrate"], ["pools", "import", pools]):
        chosen = get_parser().parse_args(words)
        chosen.func(chosen)


def serve(requests: TextIO, answers: TextIO) -> None:
    configure_logging(json_output=True, output=sys.stdout.buffer, cache_logger_on_first_use=False)
    bag = DagBag(dag_folder=conf.get_mandatory_value("core", "dags_folder"), bundle_name="dags-folder")
    for line in requests:
        answer = _run(bag, **json.loads(line))
        print(json.dumps(answer), file=answers, flush=True)


def _run(bag: Any, dag_id: str, at: str, conf: dict[str, Any]) -> dict[str, str]:
    dag = bag.dags.get(dag_id)
    if dag is None:
        faults = "; ".join(f"{Path(file).name}: {fault}" for file, fault in bag.import_errors.items())
        return {"refused": f"there is no DAG {dag_id!r} {faults}".rstrip()}
    for task in dag.tasks:
        task.retries = 0  # whoever started this run waits for it, and is the better judge of "again"
    moment = datetime.fromisoformat(at).astimezone(UTC)
    begun = datetime.now(UTC)
    with _TaskLog(dag) as log:
        try:
            # The run's id is made of `run_after`: the same moment again replaces the run.
            run = dag.test(run_after=moment, logical_date=moment, run_conf=conf)
        except ParamValidationError as fault:
            return {"refused": " ".join(str(fault).split())}
        _say_when(run, begun)
        return {"run_id": run.run_id, "state": str(run.state.value), "log": log.keep(run)}


def _say_when(run: Any, begun: datetime) -> None:
    """`dag.test` takes the logical date for the start, and the UI would show a run of months, or of negative length."""
    with create_session() as session:
        session.get_one(DagRun, run.id).start_date = begun


class _TaskLog:
    """Whatever is printed meanwhile, by any process, goes to a file, then to where the UI looks for the task's log."""

    def __init__(self, dag: DAG) -> None:
        self._base = Path(conf.get_mandatory_value("logging", "base_log_folder"))
        self._draft = self._base / f"{dag.dag_id}.{os.getpid()}.draft"

    def __enter__(self) -> "_TaskLog":
        self._base.mkdir(parents=True, exist_ok=True)
        self._before = os.dup(1)
        with self._draft.open("wb") as draft:
            os.dup2(draft.fileno(), 1)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        os.dup2(self._before, 1)
        os.close(self._before)
        self._draft.unlink(missing_ok=True)

    def keep(self, run: Any) -> str:
        """Each of our DAGs is one task, so the run's output is that task's log."""
        (task,) = run.get_task_instances()
        folder = self._base / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / f"task_id={task.task_id}"
        folder.mkdir(parents=True, exist_ok=True)
        return str(self._draft.replace(folder / f"attempt={task.try_number}.log"))


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["prepare"]:
        prepare(arguments[1])
        return 0
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # a job must not read our requests
    os.dup2(2, 1)  # nor write among our answers
    serve(requests, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
