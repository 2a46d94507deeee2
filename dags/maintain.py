"""
### maintain: purges what nothing names any more, and keeps the tables' logs short

Each day this looks through the bucket of every region and deletes
- files that a fold replaced or a freeze withdrew `maintenance.replaced_days` ago, with their indexes,
- imported runs whose rows are in cold files,
- orphans: what a killed job wrote and nothing names, older than `maintenance.orphan_hours`; of a frozen one the vault
  forgets the references too.

One witness is enough to keep an object: a Delta log, a manifest, a pointer, a part of a move under way, a frozen row, a
run that waits. What is of no unit that the ledger knows is never touched. Before that, pointers are brought up to the
logs; after it, a table with `maintenance.checkpoint_commits` commits since its last checkpoint gets one, and what an
older checkpoint holds is cut from the log, `maintenance.log_days` after it was made and once replaying has shown that
it holds the same. This cannot be undone.

**A run by hand is a dry run**: it prints what would go, why, and how much. It purges only with the param `apply` set.
Scheduled and backfill runs always purge; so pausing this DAG is the way to stop all purging.

**Params.** `region`: one region, or empty for all. `apply`: purge for real (looked at in runs by hand only).

**Time.** The job's `now` is the end of the run's data interval: by it replaced files are old enough. Ages of orphans,
runs and logs are real, by the object store's clock, because they are promises about running processes: no job may take
longer than `orphan_hours` between writing a file and naming it. Safe to run twice at once, at any hour, beside any job.

**When it fails**
- *blocked* (exit 3): another purge is at work, or a commit holds a table. It is tried again by itself, 5 minutes to an
  hour apart. Nothing needs doing while there is room.
- *refused* (exit 2): a region that is not configured, or a vault without its key. Correct it, then clear the task.
- *damaged* (exit 4): a log ends before a version that a pointer came from, or a checkpoint is not what its log says. It
  is not tried again, and of that slice nothing was deleted. Pause this DAG, bring the log back, then clear the task.
- *unknown* (exit 5): a deletion or a lightweight transaction timed out. It is tried again; running twice is safe.

**By hand:** `python -m jobs.maintain --now 2026-08-31T00:00:00Z --region us` (add `--apply` to purge)
"""

import shlex
from typing import Any

from airflow.sdk import dag, task

from dags._wiring import (
    APPLY,
    DAILY,
    DEFAULT_ARGS,
    REGION,
    REPOSITORY,
    START,
    destructive_arguments,
    python_command,
)


@dag(
    dag_id="maintain",
    description="Purges what nothing names any more and keeps table logs short",
    schedule=DAILY,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={"region": REGION, "apply": APPLY},
    tags=["firn", "lake", "destructive"],
    doc_md=__doc__,
)
def maintain() -> None:
    @task.bash(task_id="maintain", pool="lake_purgers", cwd=str(REPOSITORY))
    def purge(**context: Any) -> str:
        return shlex.join(python_command("jobs.maintain", destructive_arguments(context)))

    purge()


maintain()
