"""The demo: a year of history imported, weeks of real traffic sent, the clock moved on in steps, all of it counted.

Each step is remembered when it is done, so a second run goes on where the first one stopped.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core import settings, weeks
from core.archive import Speed
from core.errors import BlockedError
from core.gate import blocking
from ops import airflow, evidence, history, runs, stack
from ops.evidence import Report
from ops.regions import prepare_all
from ops.replay import replay
from stores import kafka

Say = Callable[[str], None]
HISTORY = datetime(2024, 12, 2, tzinfo=UTC)
START = datetime(2025, 12, 29, tzinfo=UTC)
# Each clock: traffic up to it is sent, then tables are made, what may go is dropped, what is due moves.
CLOCKS = (
    datetime(2026, 1, 19, tzinfo=UTC),
    datetime(2026, 2, 9, tzinfo=UTC),
    datetime(2026, 3, 2, tzinfo=UTC),
)
LAST_DROP = CLOCKS[-1] + timedelta(days=1)
PURGED = LAST_DROP + timedelta(days=2)  # what the last drop took out of the tables is a day gone by then
FROZEN_WEEK = weeks.of_instant(HISTORY)
READABLE = LAST_DROP + timedelta(hours=12)
WEEK = timedelta(weeks=1)
CAUGHT_UP_SECONDS = 180.0
TITLES = {
    "weeks": "make week tables ahead",
    "fold": "take imported rows and late changes into cold files",
    "tier": "move what is due, then judge what may be dropped",
    "drop": "drop what is proven and past grace",
    "maintain": "purge files that nothing names any more",
}


@dataclass(frozen=True)
class Step:
    """`name` is what is remembered; `title` is what a person reads."""

    name: str
    title: str
    work: Callable[[], None]


class Progress:
    """The names of finished steps, in a file that is replaced whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.names: list[str] = json.loads(path.read_text()) if path.exists() else []

    def add(self, name: str) -> None:
        self.names.append(name)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self.names))
        fresh.replace(self._path)


def run(config: settings.Settings, say: Say) -> Report:
    """Raises DamagedError when what is found is not what was sent. Leaves the stack running."""
    started = time.monotonic()
    config = stack.up(config, say, prepare=prepare_all)
    done = Progress(config.state_dir / "demo.json")
    dags = airflow.DagRunner(config, say)
    steps = list(plan(config, dags, say))
    if all(step.name in done.names for step in steps):
        say("nothing to do: the demo is done; to see it again: ./firn stack down, then ./firn stack wipe --apply")
    else:
        with dags:
            take(steps, done, say)
    say("counting what every tier holds")
    story = evidence.Story(HISTORY, START, CLOCKS[-1], FROZEN_WEEK, LAST_DROP, READABLE)
    return evidence.gather(config, story, time.monotonic() - started)


def take(steps: Sequence[Step], done: Progress, say: Say) -> None:
    for number, step in enumerate(steps, 1):
        if step.name not in done.names:
            say(f"[{number}/{len(steps)}] {step.title}")
            step.work()
            done.add(step.name)


def plan(config: settings.Settings, dags: airflow.DagRunner, say: Say) -> Iterable[Step]:
    yield dag_step(dags, "weeks", START, {})
    for region in config.regions:
        yield import_step(config, region, say)
    yield dag_step(dags, "fold", START, {})
    since = START
    for clock in CLOCKS:
        yield from week_by_week(config, dags, since, clock, say)
        yield dag_step(dags, "drop", clock, {"apply": True})
        if clock == CLOCKS[-1]:
            yield dag_step(dags, "fold", clock, {})
        yield dag_step(dags, "tier", clock, {})
        since = clock
    yield dag_step(dags, "drop", LAST_DROP, {"apply": True})
    yield restore_step(config, say)
    yield dag_step(dags, "maintain", PURGED, {"apply": True})


def week_by_week(
    config: settings.Settings, dags: airflow.DagRunner, since: datetime, until: datetime, say: Say
) -> Iterable[Step]:
    """A week's tables must be there before its traffic, so the clock of `weeks` goes along with it."""
    while since < until:
        upto = min(since + 2 * WEEK, until)
        yield replay_step(config, since, upto, say)
        yield dag_step(dags, "weeks", upto, {})
        since = upto


def import_step(config: settings.Settings, region: str, say: Say) -> Step:
    """As `./firn import` does it, of a file that lies there for a look."""
    file = config.state_dir / "demo" / f"history-{region}.parquet"

    def work() -> None:
        count = history.write(file, HISTORY, START, region, config.regions)
        say(f"      {count:,} messages in {file.name}")
        options = ["--now", START.isoformat(), "--region", region, "--source", history.SOURCE, "--", str(file)]
        runs.run_job(config, "imports", options, lambda line: say(f"      {line}"))

    return Step(f"import {region}", f"import of a year of history into {region}, from {HISTORY:%Y-%m-%d} on", work)


def replay_step(config: settings.Settings, since: datetime, until: datetime, say: Say) -> Step:
    def work() -> None:
        replay(config, since, until, lambda line: say(f"      {line}"))
        wait_for_consumers(config, say)

    labels = f"{weeks.label(weeks.of_instant(since))} to {weeks.label(weeks.of_instant(until - WEEK))}"
    return Step(f"replay {since:%Y-%m-%d}", f"traffic of {labels} through Kafka and the consumer", work)


def dag_step(dags: airflow.DagRunner, dag_id: str, clock: datetime, conf: dict[str, Any]) -> Step:
    def work() -> None:
        ended = dags.run(dag_id, clock, conf)
        if ended.state != "success":
            raise BlockedError(f"DAG {dag_id} of {clock:%Y-%m-%d} ended as {ended.state}", f"read its log: {ended.log}")

    title = f"clock at {clock:%Y-%m-%d}: DAG {dag_id}, {TITLES[dag_id]}"
    return Step(f"{dag_id} {clock:%Y-%m-%d}", title, work)


def restore_step(config: settings.Settings, say: Say) -> Step:
    """As `./firn restore` does it; the copies are ready twelve hours later, by the clock."""

    def work() -> None:
        options = ["--now", LAST_DROP.isoformat(), "--week", str(FROZEN_WEEK), "--speed", Speed.BULK]
        runs.run_job(config, "restore", options, lambda line: say(f"      {line}"))

    label = weeks.label(FROZEN_WEEK)
    return Step(f"restore {label}", f"clock at {LAST_DROP:%Y-%m-%d}: bring back {label}, which is frozen", work)


def wait_for_consumers(config: settings.Settings, say: Say) -> None:
    """Until everything sent so far is durable in Cassandra."""
    for region in config.regions:
        ends = kafka.end_offsets(config.kafka, region)
        deadline = time.monotonic() + CAUGHT_UP_SECONDS
        while reasons := blocking(kafka.committed(config.kafka, region, ends), 0):
            if time.monotonic() > deadline:
                raise BlockedError(
                    f"the consumer of {region} lags: {reasons[0]}", "see ./firn stack logs consumer-" + region
                )
            time.sleep(0.5)
    say("      all of it is durable in Cassandra")
