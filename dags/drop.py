"""
### drop: gives back the space of what has been moved

Each day this drops the sources of units that were *switched* and whose grace (`tiers.grace_days`) is over: only what
was verified, and where the sink is Cassandra only after each range was read at ALL. This cannot be undone.

**A run by hand is a dry run**: it prints what would be dropped. It drops only with the param `apply` set. Scheduled and
backfill runs always drop; so pausing this DAG is the way to stop all dropping.

**Params.** `region`: one region, or empty for all. `week`: one ISO week such as 2026-W35, or empty for all that is due.
`apply`: drop for real (looked at in runs by hand only).

**Time.** The job's `now` is the end of the run's data interval. What has been dropped already is passed over.

**Spark.** spark-submit with the connection `spark_default`, as in `tier`.

**When it fails**
- *blocked* (exit 3): a node is down, or a read is still allowed to use the source. It is tried again by itself, 5
  minutes to an hour apart. A dead node delays the drop, never the move; nothing needs doing while disks have room.
- *refused* (exit 2): a region or week that does not exist, or that was never verified. Correct the params.
- *damaged* (exit 4): the read at ALL differs from what was verified. It is not tried again. The source is still there:
  leave it, pause this DAG, and look with `./firn status`.
- *unknown* (exit 5): a DROP timed out. It is tried again; the job looks first.

**By hand:** `python -m jobs.drop --now 2026-08-31T00:00:00Z --region us` (add `--apply` to drop)
"""

from airflow.sdk import dag

from dags._wiring import APPLY, DAILY, DEFAULT_ARGS, REGION, START, WEEK, destructive_arguments, spark_task


@dag(
    dag_id="drop",
    description="Drops the sources of verified moves after their grace",
    schedule=DAILY,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={"region": REGION, "week": WEEK, "apply": APPLY},
    tags=["firn", "destructive"],
    doc_md=__doc__,
)
def drop() -> None:
    spark_task("drop", destructive_arguments, pool="ddl")


drop()
