"""
### weeks: the tables of the weeks to come

Each day this makes the hot tables of the coming weeks (two, see `layout.tables_ahead_weeks`) and the warm table of the
week that has begun, in every region, so that neither a message nor a move ever waits for a table. A table that is there
already is left as it is. It needs Cassandra, no Spark.

**Params.** `region`: one region, or empty for all.

**Time.** The job's `now` is the end of the run's data interval. It goes only forward: weeks older than the first
run's hot window never get a table, and what happens in them goes to the lane.

**When it fails**
- *blocked* (exit 3): Cassandra does not answer, or the schema has not settled. It is tried again by itself, 5 minutes
  to an hour apart. There is time: the tables of this week and the next were made long ago.
- *refused* (exit 2): a region that is not configured. Correct the param or `firn.toml`, then clear the task.
- *damaged* (exit 4): a table is there but is not as the ledger says. It is not tried again. Look with `./firn status`.
- *unknown* (exit 5): a statement timed out. It is tried again; running twice is safe.

**By hand:** `python -m jobs.weeks --now 2026-08-31T00:00:00Z --region us`
"""

import shlex
from typing import Any

from airflow.sdk import dag, task

from dags._wiring import DAILY, DEFAULT_ARGS, REGION, REPOSITORY, START, arguments, python_command


@dag(
    dag_id="weeks",
    description="Makes the tables of the coming weeks",
    schedule=DAILY,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={"region": REGION},
    tags=["firn", "hot"],
    doc_md=__doc__,
)
def weeks() -> None:
    @task.bash(task_id="weeks", pool="ddl", cwd=str(REPOSITORY))
    def make_tables(**context: Any) -> str:
        return shlex.join(python_command("jobs.weeks", arguments(context)))

    make_tables()


weeks()
