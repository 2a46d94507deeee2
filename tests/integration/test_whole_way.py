"""Real traffic on its whole way: hot, warm, cold, with what still happens to a week in each state.

After each step an independent checker holds what is stored against what the client was told is safe, and every
conversation is paged through and compared with it too.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from core import ids, weeks
from core.moves import HOT_WARM, State, Unit
from core.overlay import Row
from core.settings import Settings
from core.tiers import Tier
from jobs import drop, move
from jobs import weeks as week_tables
from lakehouse.reader import read_page
from lakehouse.site import Site, opened
from ops import sample
from schemas.events import Event, MessageSent
from stores.leases import keeping
from tests import engines
from tests.checker import Checker, Final, Report, file_cells, visible
from tests.client import Client, amended, reacted, sent

START = datetime(2025, 11, 3, tzinfo=UTC)  # a Monday
FIRST = weeks.of_instant(START)
CONVERSATIONS = 40
PAGE_ROWS = 40
READERS = 12  # a read waits for the ledger more than it works


def day(number: int) -> datetime:
    return START + timedelta(days=number)


@dataclass(frozen=True)
class Way:
    config: Settings
    client: Client
    checker: Checker
    spark: SparkSession
    traffic: list[Event]

    @property
    def region(self) -> str:
        return self.client.region

    def send(self, since: datetime, until: datetime) -> int:
        """The sample's traffic of a window."""
        window = [event for event in self.traffic if since <= ids.instant(event.event_id) < until]
        return self.client.send(window)

    def amend(self, week: int, now: datetime) -> list[Event]:
        """All that can still happen to a week's messages, and a message that comes late; each time to other ones."""
        of_week = [event for event in self.traffic if isinstance(event, MessageSent) and in_week(event, week)]
        chosen = [message for message in of_week if message.message_id[-1] % 3 == now.day % 3]
        late = sent(now.day, weeks.start(week) + timedelta(days=3), now.day, b"came late")
        events = [*amended(chosen, now), late, reacted(late, now, 9)]
        self.client.send(events)
        self.client.wait_until_consumed()
        return events

    def make_tables(self, now: datetime) -> dict[str, Any]:
        return week_tables.run(self.config, now, (self.region,), quiet)

    def move(self, now: datetime) -> dict[str, Any]:
        return move.run(self.spark, self.config, now, (self.region,), None, quiet)

    def drop(self, now: datetime) -> dict[str, Any]:
        return drop.run(self.spark, self.config, now, (self.region,), None, True, quiet)

    def check(self) -> Report:
        """Stored rows are those that the client sent, and so are the ones that are read page by page."""
        report = self.check_stored()
        self.check_pages()
        return report

    def check_stored(self) -> Report:
        self.client.wait_until_consumed()
        report = self.checker.report()
        assert report.faults == ()
        assert report.digest == report.expected_digest
        return report

    def check_pages(self) -> None:
        wanted = self.checker.expected()
        conversations = sorted({key[0] for key in wanted})
        with opened(self.config, self.region) as site, ThreadPoolExecutor(READERS) as pool:
            read = pool.map(lambda conversation: list(history(site, conversation)), conversations)
            for conversation, rows in zip(conversations, read, strict=True):
                assert rows == visible(wanted, conversation)

    def tiers(self) -> dict[int, str]:
        """Week, counted from the first → where its truth lies; without what is born cold."""
        return {week - FIRST: tier for week, _, tier, _ in self.checker.units() if week >= FIRST}


@pytest.fixture(scope="module")
def way(config: Settings, client: Client, checker: Checker, consumer: None, spark: SparkSession) -> Way:
    events = [event for _, event in sample.traffic(START, day(42), (client.region,))]
    present: dict[bytes, set[int]] = {}
    for event in events:
        present.setdefault(event.conversation_id, set()).add(weeks.of_id(event.message_id))
    longest = sorted(present, key=lambda conversation: (-len(present[conversation]), conversation))[:CONVERSATIONS]
    return Way(config, client, checker, spark, [event for event in events if event.conversation_id in longest])


def in_week(event: Event, week: int) -> bool:
    return weeks.of_id(event.message_id) == week


def quiet(_: str) -> None:
    pass


def history(site: Site, conversation_id: bytes) -> Iterator[Final]:
    """Page by page, newest first, until there is no more."""
    before: bytes | None = None
    while True:
        page = read_page(site, conversation_id, before, PAGE_ROWS)
        assert page.missing == ()
        yield from map(final, page.rows)
        before = page.before
        if before is None:
            return


def final(row: Row) -> Final:
    server_us = None if row.server_ts is None else (row.server_ts - ids.UNIX_EPOCH) // timedelta(microseconds=1)
    reactions = tuple((one.user_id, one.event_id, one.reaction) for one in row.reactions)
    plain = (row.conversation_id, row.message_id, row.sender_id, row.message_type, row.body, row.media_ref)
    return Final(*plain, row.reply_to, row.edit_id, row.deleted, server_us, reactions)


@contextmanager
def attempt(way: Way, now: datetime) -> Iterator[move.Run]:
    """One mover whose steps the test takes one by one."""
    with (
        opened(way.config, way.region) as site,
        keeping(site.ledger, uuid4().hex, way.config.clocks.lease_seconds) as keeper,
    ):
        yield move.Run(site, keeper, way.spark, now, uuid4().hex[:12], quiet)


def test_the_whole_way(way: Way) -> None:
    begin_hot(way)
    hot_to_warm_step_by_step(way)
    live_in_warm(way)
    to_cold(way)
    live_in_cold(way)
    again_changes_nothing(way)
    engines_agree(way)
    the_checker_sees_faults(way)


def begin_hot(way: Way) -> None:
    way.make_tables(day(7))
    assert way.send(START, day(21)) > 800
    report = way.check()
    assert report.rows > 600
    assert set(way.tiers().values()) == {"hot"}


def hot_to_warm_step_by_step(way: Way) -> None:
    """Two weeks are due; the mover is held after each state while events of the first come in."""
    now = day(22)
    way.make_tables(now)
    with attempt(way, now) as run:
        taken = [unit for due in move.due_units(run, None) if (unit := move.take(run, due))]
        assert [(unit.week - FIRST, unit.move) for unit in taken] == [(0, HOT_WARM), (1, HOT_WARM)]
        held = way.move(now)["regions"][way.region]
        assert held == {"moved": [], "held_elsewhere": 2}

        units = expect(move.seal(run, taken), State.SEALED)
        events = way.amend(FIRST, now)
        assert way.checker.in_lane(FIRST) == len(events)
        way.check()

        units = expect(move.copy(run, units), State.COPIED)
        way.amend(FIRST, now + timedelta(days=1))
        way.check_stored()

        units = expect(move.verify(run, units), State.VERIFIED)
        units = expect(move.switch(run, units), State.SWITCHED)
        way.amend(FIRST, now + timedelta(days=2))
        assert way.checker.in_lane(FIRST) == 3 * len(events)
        way.check()

        move.settle(run, units)
    assert [way.checker.in_lane(FIRST + number) for number in (0, 1)] == [0, 0]
    way.check_stored()


def expect(units: list[Unit], state: State) -> list[Unit]:
    assert [unit.state for unit in units] == [state] * 2
    return units


def live_in_warm(way: Way) -> None:
    """A warm week takes single writes in place; its hot tables go when the grace is over, and no sooner."""
    way.send(day(21), day(35))
    way.amend(FIRST, day(23))
    assert way.checker.in_lane(FIRST) == 0
    assert way.drop(day(22))["dropped"] == 0
    assert way.drop(day(23))["dropped"] == 2
    standing = way.checker.tables()
    for week in (FIRST, FIRST + 1):
        assert f"hot.messages_w{week}" not in standing
        assert f"warm.messages_w{week}" in standing
    way.check_stored()
    assert way.tiers()[0] == "warm"


def to_cold(way: Way) -> None:
    """Two weeks to cold and two more to warm in one run."""
    way.send(day(35), day(42))
    now = day(45)
    way.make_tables(now)
    report = way.move(now)["regions"][way.region]
    assert len(report["moved"]) == 5
    assert report["held_elsewhere"] == 0
    assert [way.tiers()[number] for number in range(6)] == ["cold", "cold", "warm", "warm", "warm", "hot"]
    way.check()
    assert way.drop(now + timedelta(days=1))["dropped"] == 5
    assert f"warm.messages_w{FIRST}" not in way.checker.tables()
    way.check_stored()


def live_in_cold(way: Way) -> None:
    """A cold week keeps what happens to it in the lane, for the fold."""
    shards = {week - FIRST: shards for week, _, tier, shards in way.checker.units() if tier == "cold" and shards}
    assert shards[0] == 4
    events = way.amend(FIRST, day(47))
    assert way.checker.in_lane(FIRST) == len(events)
    way.check()


def again_changes_nothing(way: Way) -> None:
    before = snapshot(way)
    now = day(46)
    assert way.make_tables(now)["tables"] == 0
    assert way.move(now) == {"moved": 0, "regions": {way.region: {"moved": [], "held_elsewhere": 0}}}
    assert way.drop(now)["dropped"] == 0
    way.send(START, day(42))  # the whole log once more: every event is a duplicate
    way.check_stored()
    assert snapshot(way) == before


def snapshot(way: Way) -> tuple[Any, ...]:
    with opened(way.config, way.region) as site:
        root = way.checker.root(0)
        files = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
        return site.ledger.units(), site.ledger.tables(), site.ledger.pointers(FIRST, 0), files


def engines_agree(way: Way) -> None:
    """Spark, DuckDB and delta-rs give the rows that lie in the files, each once, in its own week and shard."""
    root = way.checker.root(0)
    wanted = in_files(way)
    assert len(wanted) > 400
    assert engines.through_delta_rs(root) == wanted
    assert engines.through_duckdb(root) == wanted
    assert engines.through_spark(way.spark, root) == wanted


def in_files(way: Way) -> list[engines.Placed]:
    """By the pointers alone."""
    found: list[engines.Placed] = []
    for week, slice_, tier, shards in way.checker.units():
        if tier == "cold" and shards:
            for shard, (path, _, _) in way.checker.pointers(week, slice_, shards).items():
                cells = file_cells(way.checker.root(slice_) / path, [])
                found += [(week, shard, one.final(key)) for key, one in cells]
    return sorted(found, key=lambda place: place[2][:2])


def the_checker_sees_faults(way: Way) -> None:
    """Last, for it does the damage that the checker must see."""
    checker, region = way.checker, way.region
    (week, *_), *_ = [unit for unit in checker.units() if unit[2] == Tier.WARM]
    rows = checker.expected().items()
    key = next(key for key, row in rows if row.edit_id and not row.reactions and weeks.of_id(key[1]) == week)
    where = f"conversation_id = {UUID(bytes=key[0])} AND message_id = {ids.to_timeuuid(key[1])}"
    far = 2**60

    older = ids.to_timeuuid(key[1])
    checker.session.execute(
        f"UPDATE {region}_warm.messages_w{week} USING TIMESTAMP {far} SET edit = ({older}, 0x00) WHERE {where}"
    )
    assert faults(way) == [f"row {key[1].hex()} differs in body, edit_id"]
    checker.session.execute(f"DELETE FROM {region}_warm.messages_w{week} USING TIMESTAMP {far} WHERE {where}")
    assert faults(way) == ["1 rows are lost"]

    largest = max(checker.pointers(FIRST, 0, 4).items(), key=lambda pointer: pointer[1][1])
    shard, (name, *_) = largest
    path = checker.root(0) / name
    table = pq.read_table(path, partitioning=None)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    altered = f"week {FIRST} shard {shard}: the file is not the one that was written"
    assert altered in faults(way)
    pq.write_table(table.slice(table.num_rows // 2), path)
    assert lost(way) == 1  # the lane has the whole log a second time
    for ring_slice in range(way.config.layout.ring_slices):
        lane = f"region = '{region}' AND week = {FIRST} AND ring_slice = {ring_slice}"
        checker.session.execute(f"DELETE FROM {region}_hot.lane WHERE {lane}")
    assert lost(way) > 1
    pq.write_table(pa.concat_tables([table.slice(0, 1), table]), path)
    assert any(fault.endswith("is there twice") for fault in faults(way))


def lost(way: Way) -> int:
    (count,) = [int(fault.split()[0]) for fault in faults(way) if fault.endswith("rows are lost")]
    return count


def faults(way: Way) -> list[str]:
    report = way.checker.report()
    assert report.digest != report.expected_digest or report.faults
    return list(report.faults)
