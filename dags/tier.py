"""
### tier: moves weeks down the tiers, and judges what came to lie in cold

**`move`** each day moves every unit (region, week, slice) that has come of age: hot to warm after 7 days, warm to cold
after 30, cold to frozen after 365 where it pays (`[tiers]` in `firn.toml`). One Spark session serves all due units. A
unit goes `open → sealed → copied → verified → switched`; this DAG stops there. It drops nothing: that is `drop`, a day
later. A unit that cannot go on is set aside and the others move; then the task fails and names it.

**`quality`** then reads back the cold files of every unit whose move waits for its drop and writes a verdict into the
ledger: nothing of a unit is dropped before its present files have passed. The rules follow from the declared columns
(`schemas/tables.py`) and the laws of the table; a verdict names rules and holds nothing of a row. Files that have
passed are passed over. It runs whatever became of `move`, and needs no Spark; **`done`** fails unless both went well.

**Params.** `region`: one region, or empty for all. `week`: one ISO week such as 2026-W35, or empty for all that is due.

**Time.** The job's `now` is the end of the run's data interval, never the clock. Clearing a run, or a backfill of the
same days, continues from what the ledger says; units that are done already are passed over. Safe to run twice at once.

**Spark.** spark-submit with the connection `spark_default`. `./firn airflow` provides it from `spark.master`. Elsewhere
define it yourself, for without one Airflow submits to YARN and says nothing:

    AIRFLOW_CONN_SPARK_DEFAULT='{"conn_type": "spark", "host": "spark://HOST:7077", "extra": {"deploy-mode": "client"}}'

Keep client mode: in cluster mode the job's exit code does not reach Airflow, and every failure is tried again.

**When it fails**
- *blocked* (exit 3): a unit's gate did not open in time, most often because no consumer runs. It is tried again by
  itself, 5 minutes to an hour apart. `./firn status` names what it waits for.
- *refused* (exit 2): a region or week that does not exist. Correct the params, then trigger again.
- *damaged* (exit 4) in `move`: source and sink differ and a fresh copy did not help. It is not tried again and nothing
  was dropped. Read the last lines of the log, then `./firn status`, before you clear the task.
- *damaged* (exit 4) in `quality`: a file is not as it was written, or breaks a rule; the last line names units and
  rules. It is not tried again, and `drop` leaves these units alone. See what wrote such rows, mend it, clear the task.
- *unknown* (exit 5): a commit or a lightweight transaction timed out. It is tried again; the job looks first.

**By hand:** `python -m jobs.move --now 2026-08-31T00:00:00Z --region us --week 2026-W35`, then
`python -m quality.run --now 2026-08-31T00:00:00Z --region us --week 2026-W35`
"""

import shlex
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import dag, task

from dags._wiring import (
    DAILY,
    DEFAULT_ARGS,
    REGION,
    REPOSITORY,
    START,
    WEEK,
    arguments,
    python_command,
    spark_task,
)


@dag(
    dag_id="tier",
    description="Moves weeks that have come of age down the tiers and judges their cold files",
    schedule=DAILY,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={"region": REGION, "week": WEEK},
    tags=["firn", "lake"],
    doc_md=__doc__,
)
def tier() -> None:
    # One unit that cannot move must not keep the verdict from the others; so the end watches both.
    @task.bash(task_id="quality", pool="lake_readers", cwd=str(REPOSITORY), trigger_rule="all_done")
    def judge(**context: Any) -> str:
        return shlex.join(python_command("quality.run", arguments(context)))

    move, judged = spark_task("move", arguments, pool="lake_writers"), judge()
    move >> judged
    [move, judged] >> EmptyOperator(task_id="done", pool="lake_readers")


tier()
