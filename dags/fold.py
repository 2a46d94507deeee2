"""
### fold: takes late changes and imported rows into cold files

What happens to a unit (region, week, slice) in cold or frozen waits in the lane (edits, deletions, reactions, late
messages), and bulk-imported history waits in runs. Each evening this rewrites the files that something waits for: the
new file is read back and compared with the old one and the change, committed, and named by the pointers; then the lane
is cleared and the runs are marked as folded. A frozen unit gets a *supplement*, a file in cold with those rows alone,
which is frozen in its turn. The files that were replaced stay for readers until `maintain` purges them.

**Order.** `fold` begins half an hour before `tier`, and both take the one slot of the pool `lake_writers`: `tier`
leaves a unit in cold while something waits to be folded into it, so a fold that came after would hold its freeze up by
a day.

**Params.** `region`: one region, or empty for all. `week`: one ISO week such as 2026-W35, or empty for all that have
something to fold.

**Time.** The job's `now` is the end of the run's data interval, 23:30 UTC. It only dates what is replaced: whatever
waits is folded, however young. Units that are moving are passed over and folded after their drop. Safe to run twice at
once, and after a kill: merging twice is merging once.

**Spark.** spark-submit with the connection `spark_default`, as in `tier`.

**When it fails**
- *blocked* (exit 3): another process holds a table's lease, or changed a unit meanwhile. It is tried again by itself, 5
  minutes to an hour apart. What waits can be read as before.
- *refused* (exit 2): a region or week that does not exist. Correct the params, then trigger again.
- *damaged* (exit 4): a file or run is not what was written, or a new file does not read back as it should. It is not
  tried again; nothing left the lane. The other units were folded. Read the last lines of the log before you clear it.
- *unknown* (exit 5): a commit or a lightweight transaction timed out. It is tried again; the job looks first.

**By hand:** `python -m jobs.fold --now 2026-08-31T00:00:00Z --region us --week 2026-W20`
"""

from airflow.sdk import dag

from dags._wiring import DEFAULT_ARGS, EVENING, REGION, START, WEEK, arguments, spark_task


@dag(
    dag_id="fold",
    description="Takes late changes and imported rows into cold files",
    schedule=EVENING,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={"region": REGION, "week": WEEK},
    tags=["firn", "lake"],
    doc_md=__doc__,
)
def fold() -> None:
    spark_task("fold", arguments, pool="lake_writers")


fold()
