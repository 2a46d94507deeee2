"""The process that runs DAGs for `ops.airflow.DagRunner`: Airflow is imported once, a run then costs under a second.

`python -m ops.dagruns prepare` makes the database and the pools. `python -m ops.dagruns` reads one request per line
(`dag_id`, `at`, `conf`) and answers each with one line of JSON: `run_id`, `state`, `log`, or else `refused`. Each task
of a run has its log; `log` is the one to read first.
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
from airflow.sdk import DAG, TaskInstanceState
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
    with _TaskLogs(dag) as logs:
        try:
            # The run's id is made of `run_after`: the same moment again replaces the run.
            run = dag.test(run_after=moment, logical_date=moment, run_conf=conf)
        except ParamValidationError as fault:
            return {"refused": " ".join(str(fault).split())}
        _say_when(run, begun)
        return {"run_id": run.run_id, "state": str(run.state.value), "log": logs.keep(run)}


def _say_when(run: Any, begun: datetime) -> None:
    """`dag.test` takes the logical date for the start, and the UI would show a run of months, or of negative length."""
    with create_session() as session:
        session.get_one(DagRun, run.id).start_date = begun


class _TaskLogs:
    """Whatever is printed meanwhile, by any process, goes to a file per task, then to where the UI looks for its log.

    What is printed between two tasks ends the log of the first; what comes before all begins that of the first task.
    """

    def __init__(self, dag: DAG) -> None:
        self._base = Path(conf.get_mandatory_value("logging", "base_log_folder"))
        self._name = f"{dag.dag_id}.{os.getpid()}"
        self._begun: list[str] = []
        for task in dag.tasks:
            task.on_execute_callback = [self._begin]

    def __enter__(self) -> "_TaskLogs":
        self._base.mkdir(parents=True, exist_ok=True)
        self._before = os.dup(1)
        self._print_to(self._draft(0), "wb")
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()
        os.dup2(self._before, 1)
        os.close(self._before)
        for number in range(max(len(self._begun), 1)):
            self._draft(number).unlink(missing_ok=True)

    def _draft(self, number: int) -> Path:
        return self._base / f"{self._name}.{number}.draft"

    def _begin(self, context: Any) -> None:
        """A task that was deferred begins more than once, and goes on with its log."""
        name = context["ti"].task_id
        is_again = name in self._begun or not self._begun
        if name not in self._begun:
            self._begun.append(name)
        self._print_to(self._draft(self._begun.index(name)), "ab" if is_again else "wb")

    def _print_to(self, path: Path, mode: str) -> None:
        sys.stdout.flush()
        with path.open(mode) as file:
            os.dup2(file.fileno(), 1)

    def keep(self, run: Any) -> str:
        """The log of the first task that failed, else of the first."""
        sys.stdout.flush()
        tasks = {task.task_id: task for task in run.get_task_instances()}
        kept = {name: self._kept(number, tasks[name]) for number, name in enumerate(self._begun)}
        failed = [name for name in kept if tasks[name].state == TaskInstanceState.FAILED]
        return str(kept[(failed or self._begun)[0]])

    def _kept(self, number: int, task: Any) -> Path:
        folder = self._base / f"dag_id={task.dag_id}" / f"run_id={task.run_id}" / f"task_id={task.task_id}"
        folder.mkdir(parents=True, exist_ok=True)
        return self._draft(number).replace(folder / f"attempt={task.try_number}.log")


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
