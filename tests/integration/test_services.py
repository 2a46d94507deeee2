"""Cassandra and Kafka of a stack of its own die with a move under way, by kill -9 and by a full disk.

Its supervisor starts them again. The job ends and says that it may be run again, or never notices; run again it is
done, and nothing is lost or there twice.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core import weeks
from core.errors import FirnError
from core.settings import Redis, Settings
from jobs import drop, move
from jobs import weeks as week_tables
from lakehouse import ends
from lakehouse.site import opened
from ops import stack
from ops.regions import prepare_all
from quality import run as quality
from schemas.events import MessageSent
from stores import kafka
from tests import checker as checking
from tests.client import Client, amended, sent, until
from tests.conftest import CLOCKS, LAYOUT, bucket, quiet
from tests.disks import Disk, mounted
from tests.nodes import fresh_region, share_jars, striking, survived
from tests.unsealing import key_in

START = datetime(2025, 9, 1, tzinfo=UTC)  # a Monday
FIRST = weeks.of_instant(START)
WEEKS = 2
CONVERSATIONS = 4
MESSAGES = 10
WARM = START + timedelta(days=7 * WEEKS + 7)
COLD = START + timedelta(days=7 * WEEKS + 30)
UP_SECONDS = 180.0
DISK_MIB = 400


@dataclass(frozen=True)
class Place:
    config: Settings
    client: Client

    @property
    def name(self) -> str:
        return self.client.region

    def pid(self, service: str) -> int:
        return next(one.pid or 0 for one in stack.status(self.config) if one.name == service)

    def kill(self, service: str) -> None:
        os.kill(self.pid(service), signal.SIGKILL)

    def wait_for(self, service: str, before: int) -> None:
        """Until another process than `before` answers."""

        def is_back() -> bool:
            found = next(one for one in stack.status(self.config) if one.name == service)
            return found.state == "running" and found.pid != before

        until(is_back, f"{service} does not come back", UP_SECONDS)

    def move(self, now: datetime, week: int) -> int:
        return int(move.run(None, self.config, now, (self.name,), [week], quiet)["moved"])

    def moved_at_last(self, now: datetime, week: int) -> None:
        """By the same command, once more, whether the one that met the fault failed or not."""
        self.wait_for_leases()
        self.move(now, week)
        tier = "hot" if now == WARM else "warm"
        with self.checker() as checker:
            assert checker.states()[week] == (tier, "switched")

    def wait_for_leases(self) -> None:
        def is_free() -> bool:
            with opened(self.config, self.name) as site:
                rows = site.db.hot.rows(f"SELECT expires_at FROM {self.name}_meta.leases")
            return all(expires_at.replace(tzinfo=UTC) < datetime.now(UTC) for (expires_at,) in rows)

        until(is_free, "a lease of a job that failed does not run out")

    def check(self) -> None:
        self.client.wait_until_consumed()
        with self.checker() as checker:
            report = checker.report()
        assert report.faults == ()
        assert report.digest == report.expected_digest

    @contextmanager
    def checker(self) -> Iterator[checking.Checker]:
        key = key_in(self.config.vault.wrapping_key.reveal())
        center = self.config.hot
        where = checking.Place(center.contact_points[0], center.port, self.name, bucket(self.config, self.name), key)
        with checking.opened(where, self.client.log) as checker:
            yield checker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("services")
    share_jars(folder)
    return folder


@pytest.fixture(scope="module")
def disks(folder: Path) -> Iterator[dict[str, Disk | None]]:
    with ExitStack() as held:
        yield {name: held.enter_context(mounted(folder / "data" / name, DISK_MIB)) for name in ("cassandra", "kafka")}


@pytest.fixture
def disk(request: pytest.FixtureRequest, disks: dict[str, Disk | None]) -> Disk:
    found = disks[request.param]
    if found is None:
        pytest.skip("nobody but root may mount a file system to be filled")
    return found


@pytest.fixture(scope="module")
def place(folder: Path, disks: dict[str, Disk | None]) -> Iterator[Place]:
    """A stack with its consumer, and two weeks of messages."""
    elsewhere = Redis("redis://redis.example")
    config = Settings(folder, (fresh_region(),), redis=elsewhere, layout=LAYOUT, clocks=CLOCKS)
    try:
        ready = stack.up(config, quiet, prepare_all)
        client = Client(ready, ready.regions[0], folder / "acknowledged.ndjson")
        for number in range(WEEKS):
            week_tables.run(ready, START + timedelta(days=7 * number), ready.regions, quiet)
        client.send(one for number in range(WEEKS) for one in week_of(number))
        client.wait_until_consumed()
        yield Place(ready, client)
    finally:
        stack.down(config, quiet)


def week_of(number: int) -> list[MessageSent]:
    first = START + timedelta(days=7 * number, hours=9)
    talks = range(CONVERSATIONS)
    return [
        sent(talk, first + timedelta(hours=hour), number, b"text" * 200) for talk in talks for hour in range(MESSAGES)
    ]


def send_until_acknowledged(client: Client, events: list[MessageSent]) -> None:
    """As a client does who was told nothing: the same again, for ids repeat."""
    with suppress(AssertionError, FirnError):
        client.send(events)
        return
    client.send(events)


@pytest.mark.parametrize("now", [WARM, COLD], ids=["to warm", "to cold"])
def test_cassandra_dies_in_the_middle_of_a_copy(place: Place, now: datetime) -> None:
    before = place.pid("cassandra")
    with striking(ends, "copy", lambda: place.kill("cassandra")):
        assert survived(lambda: place.move(now, FIRST)) is not None, "there was nobody to tell what was copied"
    place.wait_for("cassandra", before)
    place.client.send(amended(week_of(0), now))
    place.moved_at_last(now, FIRST)
    place.check()
    quality.run(place.config, now, (place.name,), [FIRST], quiet)
    assert drop.run(None, place.config, now + timedelta(days=1), (place.name,), [FIRST], True, quiet)["dropped"] == 1
    place.check()


def test_kafka_dies_while_the_gate_waits(place: Place) -> None:
    before, week = place.pid("kafka"), FIRST + 1
    with striking(kafka, "end_offsets", lambda: place.kill("kafka")):
        survived(lambda: place.move(WARM, week))
    place.wait_for("kafka", before)
    place.client.send(amended(week_of(1), WARM))
    place.moved_at_last(WARM, week)
    place.check()
    assert drop.run(None, place.config, WARM + timedelta(days=1), (place.name,), [week], True, quiet)["dropped"] == 1


@pytest.mark.parametrize("disk", ["kafka"], indirect=True)
def test_the_disk_of_kafka_fills_up(place: Place, disk: Disk) -> None:
    """What is not acknowledged is sent again by the client; once there is room all of it is, once."""
    before, week = place.pid("kafka"), FIRST + 1
    disk.fill()
    late = [sent(talk, START + timedelta(days=9), 9, b"much" * 5000) for talk in range(40)]
    sending = threading.Thread(target=send_until_acknowledged, args=(place.client, late))
    sending.start()
    until(lambda: place.pid("kafka") != before, "Kafka goes on with a full disk", UP_SECONDS)
    stopped = survived(lambda: place.move(COLD, week))
    assert stopped is not None
    assert "Kafka" in stopped.what
    disk.make_room()
    stack.up(place.config, quiet)
    sending.join(UP_SECONDS)
    place.moved_at_last(COLD, week)
    place.check()


@pytest.mark.parametrize("disk", ["cassandra"], indirect=True)
def test_the_disk_of_cassandra_fills_up(place: Place, disk: Disk) -> None:
    before, week = place.pid("cassandra"), FIRST + 1
    disk.fill()
    late = [sent(talk, START + timedelta(days=10), 10, b"much" * 5000) for talk in range(400)]
    place.client.send(late)
    until(lambda: place.pid("cassandra") != before, "Cassandra goes on with a full disk", UP_SECONDS)
    stopped = survived(lambda: place.move(COLD, week))
    assert stopped is not None
    assert "Cassandra" in stopped.what
    disk.make_room()
    stack.up(place.config, quiet)
    place.moved_at_last(COLD, week)
    place.check()
