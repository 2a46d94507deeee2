"""What every DAG shares: its clock, its params, how a job is run, and which failures are tried again."""

import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import CronDataIntervalTimetable, Param, RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowFailException

REPOSITORY = Path(__file__).resolve().parents[1]

# A plain "@daily" would give intervals of no length, and `now` is the end of the interval.
DAILY = CronDataIntervalTimetable("0 0 * * *", timezone="UTC")
# Half an hour before the others, for what must be done before them; a pool of one slot keeps the order when it lasts.
EVENING = CronDataIntervalTimetable("30 23 * * *", timezone="UTC")
START = datetime(2018, 1, 1, tzinfo=UTC)  # no run lies before it, so an older history needs an earlier date

REGION = Param(
    None,
    type=["null", "string"],
    pattern=r"^[a-z][a-z0-9-]{0,15}$",
    description="One region, such as us. Empty: every region.",
)
WEEK = Param(
    None,
    type=["null", "string"],
    pattern=r"^\d{4}-W\d{2}$",
    description="One ISO week, such as 2026-W35. Empty: all that is due.",
)
APPLY = Param(
    False,
    type="boolean",
    description="Delete for real. Without it a run started by hand only says what it would delete.",
)

# A job's exit codes that trying again cannot mend: a wrong request, or stored data that is not what was written.
HOPELESS = {2: "refused", 4: "damaged"}
# Airflow's operators hand the exit code on only in these two sentences.
EXIT_CODE = re.compile(r"(?:Error code is:|non-zero exit code) (\d+)\.")
UNATTENDED = frozenset({"scheduled", "backfill"})


class ExitCodes(RetryPolicy):
    """Fails at once on a hopeless exit code; blocked, unknown and everything else follow the task's `retries`."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        found = EXIT_CODE.search(str(exception))
        meaning = HOPELESS.get(int(found.group(1))) if found else None
        if meaning:
            return RetryDecision.fail(reason=f"the job ended as {meaning}: see the run-book before you clear this task")
        return RetryDecision.default()


DEFAULT_ARGS: dict[str, Any] = {
    "owner": "firn",
    "retries": 4,
    "retry_delay": timedelta(minutes=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(hours=1),
    "retry_policy": ExitCodes(),
    # Of tasks that wait for one slot the older run goes first; Airflow's own rule would put the longer DAG first.
    "weight_rule": "absolute",
}


def arguments(context: Mapping[str, Any], jinja_env: object = None) -> list[str]:
    """The job's options: `now` is the end of the data interval, and a null param is no option at all."""
    end = context.get("data_interval_end")
    if end is None:
        raise AirflowFailException("this run has no data interval, so no `now`: trigger it with a logical date")
    params = context["params"]
    options = ["--now", end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")]
    for name in ("region", "week"):
        if params.get(name):
            options += [f"--{name}", params[name]]
    return options


def destructive_arguments(context: Mapping[str, Any], jinja_env: object = None) -> list[str]:
    """As `arguments`, with `--apply` only where the schedule or a person said so: defaults reach scheduled runs too."""
    applies = context["dag_run"].run_type in UNATTENDED or context["params"]["apply"] is True
    return arguments(context) + (["--apply"] if applies else [])


def python_command(module: str, options: list[str]) -> list[str]:
    return [sys.executable, "-m", module, *options]


def spark_task(job: str, options: Any, pool: str) -> SparkSubmitOperator:
    """`options` is called with the run's context when the task starts; the master is that of `spark_default`."""
    return SparkSubmitOperator(
        task_id=job,
        name=f"firn-{job}",
        application=str(REPOSITORY / "jobs" / f"{job}.py"),
        application_args=options,
        conn_id="spark_default",
        pool=pool,
    )
