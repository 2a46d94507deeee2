"""A region of its own, with weeks full of messages, its consumer, and the truth of what was sent."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core import digest, ids, topics, weeks
from core.errors import BlockedError, DamagedError
from core.overlay import laid_over, merge_all, row_of
from core.settings import Clocks, Layout, Settings
from jobs import weeks as week_tables
from lakehouse.census import census
from lakehouse.site import opened
from ops import regions
from ops.chaos.worker import quiet
from ops.services import as_environment
from schemas.events import Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet, encode
from stores import kafka

ROOT = Path(__file__).parent.parent.parent
START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday, and far enough back for the longest list of weeks
CONVERSATIONS, MESSAGES = 6, 4  # of each in a week
BODY_BYTES = 3000
LEASE_SECONDS = 4.0
PATIENCE_SECONDS = 120.0


@dataclass
class Stage:
    """`sent` holds the events by week, as they were acknowledged."""

    config: Settings
    weeks: range
    sent: dict[int, list[Event]] = field(default_factory=dict)
    rounds: int = 0

    @property
    def region(self) -> str:
        return self.config.regions[0]

    def now(self, days: int) -> datetime:
        return weeks.end(self.weeks[-1]) + timedelta(days=days)

    def send(self, events: Iterable[tuple[int, Event]]) -> None:
        """Returns when the consumer has taken them in."""
        producer = kafka.open_producer(self.config.kafka)
        for week, event in events:
            topic = topics.topic_for(self.region, is_group=event.conversation_id[0] % 2 == 0)
            producer.produce(topic, event.conversation_id, encode(event))
            self.sent.setdefault(week, []).append(event)
        producer.flush()
        self._await(self._is_consumed, "the consumer does not reach the end of its log")

    def change(self) -> None:
        """Something of each kind happens to each week: a message comes late, another is edited, one gets a reaction,
        and one is deleted."""
        self.rounds += 1
        self.send((week, event) for week in self.weeks for event in amendments(week, self.rounds, self.now(0)))

    def check(self) -> digest.Digest:
        """DamagedError unless each week holds what was sent, and nothing else."""
        with opened(self.config, self.region, self.now(0)) as site:
            found = {count.unit.week: count.digest for count in census(site) if count.unit.week in self.weeks}
        wanted = {week: digest.of_rows(laid_over([], merge_all(map(row_of, self.sent[week])))) for week in self.weeks}
        if wrong := [week for week in self.weeks if found.get(week) != wanted[week]]:
            raise DamagedError(
                f"{len(wrong)} of {len(self.weeks)} weeks do not hold what was sent; {weeks.label(wrong[0])} is one",
                f"the region {self.region} was kept: look at it with ./firn status",
            )
        return sum(found.values(), digest.Digest())

    def states(self) -> dict[int, str]:
        with opened(self.config, self.region) as site:
            return {unit.week: f"{unit.state} ({unit.move})" for unit in site.ledger.units()}

    def wait_for_leases(self) -> None:
        """Those that dead and frozen processes held."""
        time.sleep(LEASE_SECONDS + 0.5)

    def _is_consumed(self) -> bool:
        return all(one.committed == one.end for one in kafka.positions(self.config.kafka, self.region))

    def _await(self, is_so: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            if time.monotonic() > deadline:
                raise BlockedError(f"{self.region}: {otherwise}", "see ./firn stack status, then begin again")
            time.sleep(0.1)


@contextmanager
def staged(config: Settings, count: int) -> Iterator[Stage]:
    """The region and all of it goes at the end, but after damage."""
    first = weeks.of_instant(START)
    stage = Stage(_small(config), range(first, first + count))
    regions.prepare(stage.config, stage.region)
    try:
        with consuming(stage.config):
            for day in (7, 7 * count):
                week_tables.run(stage.config, START + timedelta(days=day), stage.config.regions, quiet)
            stage.send((week, event) for week in stage.weeks for event in week_of(week))
            yield stage
    except DamagedError:
        raise
    except BaseException:
        regions.remove(stage.config, stage.region)
        raise
    regions.remove(stage.config, stage.region)


def _small(config: Settings) -> Settings:
    """Short clocks, two shards to a week, and a frozen class that is read at once and always worth it."""
    return replace(
        config,
        regions=(f"chaos{secrets.token_hex(4)}",),
        layout=Layout(slices=1, copy_shards=2, shard_bytes=50_000, row_group_bytes=8_000),
        clocks=Clocks(ledger_age_seconds=0.4, longest_read_seconds=2.0, lease_seconds=LEASE_SECONDS, gate_seconds=60.0),
        frozen=replace(config.frozen, text_class="GLACIER_IR", horizon_months=12_000),
    )


@contextmanager
def consuming(config: Settings) -> Iterator[None]:
    """The region's consumer, without which no gate opens; in a process of its own."""
    command = [sys.executable, "-m", "serving.consumer", "--region", config.regions[0]]
    environment, nowhere = os.environ | as_environment(config), subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=nowhere, stderr=nowhere)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def week_of(week: int) -> Iterator[Event]:
    """Each person writes in one week only, so that every freeze has keys to make."""
    for number in range(MESSAGES):
        for conversation in range(CONVERSATIONS):
            yield message(week, conversation, _day(week, number))


def message(week: int, conversation: int, when: datetime) -> MessageSent:
    name = f"{conversation}"
    message_id = ids.imported_id(when, "chaos", name, f"{week}")
    body = message_id * (BODY_BYTES // len(message_id))
    conversation_id, sender_id = ids.conversation_uuid("chaos", name), 10 * week + conversation
    return MessageSent(conversation_id, message_id, sender_id, 0, body, None, None, None, when)


def amendments(week: int, number: int, when: datetime) -> Iterator[Event]:
    """One to each conversation, and so to every file: late messages, edits, reactions and deletions in turn."""
    event_id = ids.imported_id(when + timedelta(seconds=number), "chaos", "late", f"{week}/{number}")
    for conversation in range(CONVERSATIONS):
        old = message(week, conversation, _day(week, number % MESSAGES))
        place = (old.conversation_id, old.message_id, event_id)
        match (number + conversation) % 4:
            case 0:
                yield message(week, conversation, _day(week, 6) + timedelta(minutes=number))
            case 1:
                yield MessageEdited(*place, old.sender_id, b"edited")
            case 2:
                yield ReactionSet(*place, 10 * week + 8, b"heart")
            case _:
                yield MessageDeleted(*place, old.sender_id)


def _day(week: int, number: int) -> datetime:
    return weeks.start(week) + timedelta(days=number, hours=9)
