"""How much of a job's time its tasks are not at work: `python -m bench.overhead --rows 1000000`.

Against the running stack, in a region of its own that is removed again. Some weeks, together of so many rows, are moved
from hot to warm, dropped from hot, and moved to cold, each by one run of the job, in one Spark session that has moved
a small week before. When tasks began and ended is what Spark wrote into its event log; the rest of a job's time is
leases, gates, commits, waits for readers, and Spark itself. In the end cold must hold what hot held. The last line is
JSON.
"""

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from bench.decode import WEEK
from bench.decode import messages as made
from bench.export import fill
from core import weeks
from core.digest import Digest
from core.settings import Settings, load
from core.tiers import Tier
from jobs import drop, move
from jobs import weeks as week_tables
from lakehouse.census import census
from lakehouse.session import spark_session
from lakehouse.site import opened
from ops import regions
from ops.chaos.stage import consuming
from schemas.tables import MESSAGES
from stores.messages import keyspace

_EVENT_LOG = {"enabled": "true", "compress": "false", "rolling.enabled": "false"}
_WARM_UP_ROWS = 2_000
_MILLISECOND = 1e-3
Span = tuple[float, float]


class Scene(NamedTuple):
    """The first week warms up; all others are what is measured."""

    config: Settings
    weeks: range

    @property
    def region(self) -> str:
        return self.config.regions[0]

    def after(self, days: int) -> datetime:
        return weeks.end(self.weeks[-1]) + timedelta(days=days)


@contextmanager
def scene(rows: int, count: int) -> Iterator[Scene]:
    config = load()
    found = Scene(replace(config, regions=(f"b{secrets.token_hex(5)}",)), range(WEEK, WEEK + 1 + count))
    regions.prepare(found.config, found.region)
    try:
        for week in found.weeks:
            week_tables.run(found.config, weeks.start(week), found.config.regions, _quiet)
        with opened(found.config, found.region) as site:
            for week in found.weeks:
                of_week = _WARM_UP_ROWS if week == found.weeks[0] else rows // count
                table = f"{keyspace(found.region, Tier.HOT)}.{MESSAGES.name}{week}"
                fill(site.db.hot, table, list(made(of_week, seed=week)))
        with consuming(found.config):
            yield found
    finally:
        regions.remove(found.config, found.region)


def _quiet(_: str) -> None:
    pass


def held(found: Scene) -> Digest:
    with opened(found.config, found.region) as site:
        return sum((one.digest for one in census(site) if one.unit.week in found.weeks), Digest())


@contextmanager
def logging_session(config: Settings, folder: Path) -> Iterator[Any]:
    chosen = " ".join(f"--conf spark.eventLog.{key}={value}" for key, value in _EVENT_LOG.items())
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"{chosen} --conf spark.eventLog.dir={folder.as_uri()} pyspark-shell"
    with spark_session(config, "bench.overhead") as spark:
        yield spark


def ran(spark: Any, found: Scene) -> dict[str, float]:
    """Wall seconds of each job."""
    taken = _each(spark, found, found.weeks[:1], "warm-up: ")
    return taken | _each(spark, found, found.weeks[1:], "")


def _each(spark: Any, found: Scene, of: Sequence[int], mark: str) -> dict[str, float]:
    given, which = (spark, found.config), (found.config.regions, list(of))
    jobs: dict[str, Callable[[], object]] = {
        "hot to warm": lambda: move.run(*given, found.after(8), *which, _quiet),
        "drop of hot": lambda: drop.run(*given, found.after(10), *which, True, _quiet),
        "warm to cold": lambda: move.run(*given, found.after(38), *which, _quiet),
    }
    taken = {}
    for name, job in jobs.items():
        spark.sparkContext.setJobGroup(f"{mark}{name}", name)
        begun = time.perf_counter()
        job()
        taken[f"{mark}{name}"] = time.perf_counter() - begun
    return taken


def in_tasks(folder: Path) -> dict[str, float]:
    """For each group of Spark's jobs the seconds in which at least one of its tasks was at work."""
    stages: dict[int, str] = {}
    spans: dict[str, list[Span]] = {}
    for line in next(folder.iterdir()).read_text().splitlines():
        event = json.loads(line)
        if event["Event"] == "SparkListenerJobStart":
            group = event["Properties"].get("spark.jobGroup.id", "")
            stages |= dict.fromkeys(event["Stage IDs"], group)
        elif event["Event"] == "SparkListenerTaskEnd":
            task = event["Task Info"]
            spans.setdefault(stages[event["Stage ID"]], []).append((task["Launch Time"], task["Finish Time"]))
    return {group: covered(of) * _MILLISECOND for group, of in spans.items()}


def covered(spans: Sequence[Span]) -> float:
    """How much of time at least one of them covers."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def measured(rows: int, count: int) -> dict[str, Any]:
    with scene(rows, count) as found, TemporaryDirectory() as folder:
        before = held(found)
        with logging_session(found.config, Path(folder)) as spark:
            taken = ran(spark, found)
        if held(found) != before:
            return {"equal": False}
        working = in_tasks(Path(folder))
    facts: dict[str, Any] = {"equal": True, "row_count": before.rows}
    for job, seconds in taken.items():
        outside = 1 - working.get(job, 0.0) / seconds
        print(f"{job:22} {seconds:8.1f} s, of these without a task at work {outside:.1%}")
        facts[job] = {"seconds": round(seconds, 1), "outside_tasks": round(outside, 3)}
    return facts


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.overhead", description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--weeks", type=int, default=2)
    chosen = parser.parse_args(arguments)
    facts = measured(chosen.rows, chosen.weeks)
    print(json.dumps({"bench": "overhead", **vars(chosen), **facts}))
    return 0 if facts["equal"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
