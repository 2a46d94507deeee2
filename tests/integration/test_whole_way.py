"""Real traffic on its whole way: hot, warm, cold, frozen, with what still happens to a week in each state.

After each step an independent checker holds what is stored against what the client was told is safe, and every
conversation is paged through and compared with it too.
"""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from core import ids, weeks
from core.archive import Speed
from core.imports import parse_map
from core.moves import HOT_WARM, State, Unit
from core.overlay import Row
from core.settings import Settings
from core.tiers import Tier
from jobs import drop, fold, move, restore
from jobs import weeks as week_tables
from jobs.attempt import attempt
from jobs.imports import job as imports
from lakehouse.reader import read_page
from lakehouse.restore import RestoreState
from lakehouse.site import Site, opened
from ops import sample
from quality import run as quality
from schemas.events import Event, MessageSent
from tests import engines
from tests.checker import Checker, Final, Report, file_cells, visible
from tests.client import Client, amended, reacted, sent, written_down

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

    def judge(self, now: datetime) -> dict[str, Any]:
        return quality.run(self.config, now, (self.region,), None, quiet)

    def fold(self, now: datetime) -> dict[str, Any]:
        found: dict[str, Any] = fold.run(self.spark, self.config, now, (self.region,), None, quiet)
        return dict(found["regions"][self.region])

    def import_history(self, messages: list[MessageSent], now: datetime) -> dict[str, Any]:
        """As an archive has them, ids and all; the import's word that they are safe goes into the client's log."""
        rows = [
            {
                "conversation": name,
                "id": own,
                "sender": message.sender_id,
                "sent_at": message.server_ts,
                "body": message.body,
            }
            for message, (name, own) in zip(messages, ARCHIVED, strict=True)
        ]
        file = self.client.log.with_name("history.parquet")
        pq.write_table(pa.Table.from_pylist(rows), file)
        done = imports.run(self.config, now, imports.Order(self.region, (file,), parse_map([]), "test"), quiet)
        with self.client.log.open("a") as log:
            log.writelines(json.dumps(written_down(message)) + "\n" for message in messages)
        return done

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

    def check_pages(self, now: datetime | None = None, but: int | None = None) -> None:
        """`but` is a week that is frozen: it must be named wherever it has a message, and nothing else is missing."""
        wanted = {key: row for key, row in self.checker.expected().items() if weeks.of_id(key[1]) != but}
        conversations = sorted({key[0] for key in wanted})
        with opened(self.config, self.region, now) as site, ThreadPoolExecutor(READERS) as pool:
            read = pool.map(lambda conversation: list(history(site, conversation, but)), conversations)
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
    # The sample's files are small: over a hundred years even their freeze pays.
    patient = replace(config, frozen=replace(config.frozen, horizon_months=1200))
    return Way(patient, client, checker, spark, [event for event in events if event.conversation_id in longest])


def in_week(event: Event, week: int) -> bool:
    return weeks.of_id(event.message_id) == week


def quiet(_: str) -> None:
    pass


def history(site: Site, conversation_id: bytes, but: int | None = None) -> Iterator[Final]:
    """Page by page, newest first, until there is no more."""
    before: bytes | None = None
    while True:
        page = read_page(site, conversation_id, before, PAGE_ROWS)
        assert page.missing.keys() <= {but}
        assert all(waiting.state is RestoreState.NOT_ASKED for waiting in page.missing.values())
        yield from map(final, page.rows)
        before = page.before
        if before is None:
            return


def final(row: Row) -> Final:
    server_us = None if row.server_ts is None else (row.server_ts - ids.UNIX_EPOCH) // timedelta(microseconds=1)
    reactions = tuple((one.user_id, one.event_id, one.reaction) for one in row.reactions)
    plain = (row.conversation_id, row.message_id, row.sender_id, row.message_type, row.body, row.media_ref)
    return Final(*plain, row.reply_to, row.edit_id, row.deleted, server_us, reactions)


def test_the_whole_way(way: Way) -> None:
    begin_hot(way)
    hot_to_warm_step_by_step(way)
    live_in_warm(way)
    to_cold(way)
    live_in_cold(way)
    again_changes_nothing(way)
    engines_agree(way)
    history_comes_in(way)
    late_changes_are_folded(way)
    cold_to_frozen(way)
    a_frozen_week_waits_and_comes_back(way)
    live_in_frozen(way)
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
    with attempt(way.spark, way.config, way.region, now, quiet) as run:
        taken, _ = run.take(move.due_units(run, None), lambda _: True)
        assert [(unit.week - FIRST, unit.move) for unit in taken] == [(0, HOT_WARM), (1, HOT_WARM)]
        held = way.move(now)["regions"][way.region]
        assert held == {"moved": [], "held_elsewhere": 2, "kept": {}}

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
    kept = way.drop(now + timedelta(days=1))["regions"][way.region]["kept"]
    assert [why.split(": ")[1] for why in kept.values()] == ["the quality gate has not judged its cold files yet"] * 2
    assert way.judge(now + timedelta(days=1))["passed"] == 2
    assert way.drop(now + timedelta(days=1))["dropped"] == 2
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
    assert way.move(now) == {"moved": 0, "regions": {way.region: {"moved": [], "held_elsewhere": 0, "kept": {}}}}
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


ARCHIVED = [(str(900 + number % 7), str(number)) for number in range(60)]


def history_comes_in(way: Way) -> None:
    """Two weeks from long before, and a little of a week that lies in cold: invisible until they are folded."""
    since = [day(-70) + timedelta(hours=7 * number) for number in range(50)]
    since += [day(number % 7) + timedelta(hours=number) for number in range(10)]
    whens = zip(ARCHIVED, since, strict=True)
    messages = [sent(int(name), when, int(own), bytes((int(own),)) * 200) for (name, own), when in whens]
    done = way.import_history(messages, day(48))
    assert (done["read"], done["placed"]) == (60, {"kafka": 0, "runs": 60})
    assert way.import_history(messages, day(48))["import"] == done["import"]
    assert lost(way) == 60


def late_changes_are_folded(way: Way) -> None:
    """The lane of cold weeks and the runs go into their files; a week that never had a table gets its first file so."""
    now = day(48)
    in_lane = {week: way.checker.in_lane(week) for week, _, tier, _ in way.checker.units() if tier == "cold"}
    born = [week for week in in_lane if week < FIRST]
    assert born
    done = way.fold(now)
    assert done["events"] == sum(in_lane.values()) > 100
    assert [way.checker.in_lane(week) for week in in_lane] == [0] * len(in_lane)
    assert all(shards for week, _, _, shards in way.checker.units() if week in born)
    way.check()
    engines_agree(way)
    assert way.fold(now) == {"folded": [], "files": 0, "events": 0, "held_elsewhere": 0, "later": {}}


FROZEN = day(7 + 366)


def cold_to_frozen(way: Way) -> None:
    """The first week; its cold files go when the grace is over and the gate has passed them."""
    short = replace(way, config=replace(way.config, frozen=replace(way.config.frozen, horizon_months=24)))
    assert "so it stays in cold" in move_one(short, FIRST, FROZEN)["kept"][name(way, FIRST)]
    way.amend(FIRST, FROZEN)
    assert move_one(way, FIRST, FROZEN)["kept"] == {name(way, FIRST): "late changes wait for a fold: ./firn fold"}
    way.fold(FROZEN)
    assert len(move_one(way, FIRST, FROZEN)["moved"]) == 1
    way.check()  # from cold still: it is in grace
    way.judge(FROZEN)
    dropped = way.drop(FROZEN + timedelta(days=1))["regions"][way.region]["dropped"]
    assert dropped == [f"{name(way, FIRST)}/cold"]
    way.check_stored()
    assert way.tiers()[0] == "frozen"


def a_frozen_week_waits_and_comes_back(way: Way) -> None:
    now = FROZEN + timedelta(days=2)
    way.check_pages(now, but=FIRST)
    restore.run(way.config, now, FIRST, (way.region,), Speed.BULK, 3, False, quiet)
    way.check_pages(now + timedelta(hours=12))
    way.check_pages(now + timedelta(days=5), but=FIRST)


def live_in_frozen(way: Way) -> None:
    """What still happens becomes a supplement, and that is frozen in its turn."""
    now = FROZEN + timedelta(days=10)
    events = way.amend(FIRST, now)
    assert way.checker.in_lane(FIRST) == len(events)
    way.check_stored()
    assert way.fold(now)["events"] == len(events)
    assert way.tiers()[0] == "cold"  # of the supplement; the rest of it stays frozen
    way.check_stored()
    way.amend(FIRST, now + timedelta(days=1))
    way.fold(now + timedelta(days=1))
    way.check_stored()
    restore.run(way.config, now, FIRST, (way.region,), Speed.EXPEDITED, 1, False, quiet)
    way.check_pages(now + timedelta(minutes=5))


def move_one(way: Way, week: int, now: datetime) -> dict[str, Any]:
    found = move.run(way.spark, way.config, now, (way.region,), [week], quiet)["regions"][way.region]
    return dict(found)


def name(way: Way, week: int) -> str:
    return f"{way.region}/{weeks.label(week)}/0"


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

    second = FIRST + 1
    (shards,) = [shards for week, _, _, shards in checker.units() if week == second]
    shard, (name, *_) = max(checker.pointers(second, 0, shards).items(), key=lambda pointer: pointer[1][1])
    path = checker.root(0) / name
    table = pq.read_table(path, partitioning=None)
    path.write_bytes(altered(path.read_bytes()))
    assert f"week {second} shard {shard}: the file is not the one that was written" in faults(way)
    pq.write_table(table.slice(table.num_rows // 2), path)
    assert lost(way) == 1 + table.num_rows // 2
    pq.write_table(pa.concat_tables([table.slice(0, 1), table]), path)
    assert any(fault.endswith("is there twice") for fault in faults(way))

    before = lost(way)
    senders = Counter(row.sender_id for key, row in checker.expected().items() if weeks.of_id(key[1]) == FIRST)
    ((user, _),) = senders.most_common(1)
    checker.session.execute(f"UPDATE {region}_vault.person_keys SET wrapped = null WHERE user_id = {user} IF EXISTS")
    assert lost(way) > before
    (key_of_object, *_) = [row[5] for row in checker.frozen() if row[0] == FIRST]
    object_path = checker.place.bucket / key_of_object
    object_path.write_bytes(altered(object_path.read_bytes()))
    assert any(fault.endswith("the frozen object is not the one that was written") for fault in faults(way))


def altered(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes((data[len(data) // 2] ^ 1,)) + data[len(data) // 2 + 1 :]


def lost(way: Way) -> int:
    (count,) = [int(fault.split()[0]) for fault in faults(way) if fault.endswith("rows are lost")]
    return count


def faults(way: Way) -> list[str]:
    report = way.checker.report()
    assert report.digest != report.expected_digest or report.faults
    return list(report.faults)
