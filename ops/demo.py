"""The demo: weeks of real traffic through the real parts, the clock moved on in steps, count and digest at the end.

Each step is remembered when it is done, so a second run goes on where the first one stopped.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core import digest, settings, weeks
from core.errors import BlockedError, DamagedError
from core.gate import blocking
from core.overlay import Row, merge_all, row_of, visible
from core.tiers import Tier
from lakehouse.census import Count, census
from lakehouse.reader import read_page
from lakehouse.site import opened
from ops import airflow, sample, stack
from ops.regions import prepare_all
from ops.replay import replay
from stores import kafka

Say = Callable[[str], None]
START = datetime(2025, 12, 29, tzinfo=UTC)
# Each clock: traffic up to it is sent, then tables are made, what may go is dropped, what is due moves.
CLOCKS = (
    datetime(2026, 1, 19, tzinfo=UTC),
    datetime(2026, 2, 9, tzinfo=UTC),
    datetime(2026, 3, 2, tzinfo=UTC),
)
LAST_DROP = CLOCKS[-1] + timedelta(days=1)
WEEK = timedelta(weeks=1)
CAUGHT_UP_SECONDS = 180.0


@dataclass(frozen=True)
class Step:
    """`name` is what is remembered; `title` is what a person reads."""

    name: str
    title: str
    work: Callable[[], None]


@dataclass(frozen=True)
class Report:
    """What the demo ended with; `sent` and `found` are over canonical rows, lone amendments among them."""

    counts: Mapping[str, list[Count]]
    messages: int
    found_messages: int
    sent: digest.Digest
    found: digest.Digest
    conversation: bytes
    region: str
    page: list[tuple[Tier, Row]]
    seconds: float


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
    return report(config, time.monotonic() - started)


def take(steps: Sequence[Step], done: Progress, say: Say) -> None:
    for number, step in enumerate(steps, 1):
        if step.name not in done.names:
            say(f"[{number}/{len(steps)}] {step.title}")
            step.work()
            done.add(step.name)


def plan(config: settings.Settings, dags: airflow.DagRunner, say: Say) -> Iterable[Step]:
    yield dag_step(dags, "weeks", START, {})
    since = START
    for clock in CLOCKS:
        yield from week_by_week(config, dags, since, clock, say)
        yield dag_step(dags, "drop", clock, {"apply": True})
        yield dag_step(dags, "tier", clock, {})
        since = clock
    yield dag_step(dags, "drop", LAST_DROP, {"apply": True})


def week_by_week(
    config: settings.Settings, dags: airflow.DagRunner, since: datetime, until: datetime, say: Say
) -> Iterable[Step]:
    """A week's tables must be there before its traffic, so the clock of `weeks` goes along with it."""
    while since < until:
        upto = min(since + 2 * WEEK, until)
        yield replay_step(config, since, upto, say)
        yield dag_step(dags, "weeks", upto, {})
        since = upto


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

    titles = {
        "weeks": "make week tables ahead",
        "tier": "move what is due",
        "drop": "drop what is proven and past grace",
    }
    title = f"clock at {clock:%Y-%m-%d}: DAG {dag_id}, {titles[dag_id]}"
    return Step(f"{dag_id} {clock:%Y-%m-%d}", title, work)


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


def report(config: settings.Settings, seconds: float) -> Report:
    """Counts every tier afresh, and holds it against what the sample says was sent."""
    sent = merge_all(row_of(event) for _, event in sample.traffic(START, CLOCKS[-1], config.regions))
    counts = {}
    for region in config.regions:
        with opened(config, region) as site:
            counts[region] = census(site)
    found = sum((each.digest for region in counts.values() for each in region), digest.Digest())
    expected = digest.of_rows(sent.values())
    if found != expected:
        raise DamagedError(
            f"{expected.rows:,} rows sent, {found.rows:,} found, digests {expected} and {found}",
            "look at ./firn dead-letters and ./firn status; nothing more is dropped before this is understood",
        )
    messages = sum(row.is_message for row in sent.values())
    conversation = widest_conversation(sent.values(), counts, config.regions)
    region = sample.region_of(conversation, config.regions)
    return Report(
        counts,
        messages,
        sum(each.messages for region_counts in counts.values() for each in region_counts),
        expected,
        found,
        conversation,
        region,
        page_of(config, region, conversation),
        seconds,
    )


def widest_conversation(rows: Iterable[Row], counts: Mapping[str, list[Count]], regions: tuple[str, ...]) -> bytes:
    """One that can be read back across the most tiers; of those the one with the fewest messages."""
    tiers = {(region, each.unit.week): each.unit.tier for region, all_ in counts.items() for each in all_}
    seen: dict[bytes, list[Tier | None]] = {}
    for row in visible(rows):
        region = sample.region_of(row.conversation_id, regions)
        seen.setdefault(row.conversation_id, []).append(tiers.get((region, weeks.of_id(row.message_id))))
    return max(seen, key=lambda conversation: (len(set(seen[conversation])), -len(seen[conversation]), conversation))


def page_of(config: settings.Settings, region: str, conversation: bytes) -> list[tuple[Tier, Row]]:
    """The whole conversation, page by page, each message with the tier it came from."""
    read: list[tuple[Tier, Row]] = []
    before = None
    with opened(config, region) as site:
        while True:
            page = read_page(site, conversation, before, 100)
            read += [(page.tiers[weeks.of_id(row.message_id)], row) for row in page.rows]
            before = page.before
            if before is None:
                return read
