"""Four Cassandra nodes, three of them hot with three replicas of each row, one warm: what is dead delays only itself.

Each fault is a kill -9; each time the same command goes on once the node is back, and nothing is lost or there twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cassandra import ConsistencyLevel, ReadTimeout, Unavailable
from cassandra.metadata import Murmur3Token

from core import ring, weeks
from core.errors import BlockedError, FirnError
from core.settings import Cassandra, Settings
from core.tiers import Tier
from jobs import drop, move
from jobs import weeks as week_tables
from lakehouse import ends
from lakehouse.reader import read_page
from lakehouse.site import opened
from ops.explain import Step, explained
from ops.regions import prepare
from ops.whereabouts import gather, known_of
from schemas.events import Event, MessageSent
from stores import messages
from stores.cassandra import connect
from tests import checker as checking
from tests.client import Client, amended, conversation_uuid, sent, until
from tests.conftest import CLOCKS, LAYOUT, bucket, quiet
from tests.nodes import HOT, WARM, Nodes, consuming, fresh_region, running, session_at, striking, survived
from tests.unsealing import key_in

START = datetime(2025, 9, 1, tzinfo=UTC)  # a Monday
FIRST = weeks.of_instant(START)
CONVERSATIONS = 4
MESSAGES = 10
DUE = START + timedelta(days=7 * 3 + 8)
ALL_OF_IT = ring.shard_range(0, 1, 0, 1)


@dataclass(frozen=True)
class Place:
    nodes: Nodes
    config: Settings
    client: Client

    @property
    def name(self) -> str:
        return self.client.region

    def move(self, week: int) -> list[str]:
        report = move.run(None, self.config, DUE, (self.name,), [week], quiet)
        return list(report["regions"][self.name]["moved"])

    def drop(self, week: int) -> int:
        return int(drop.run(None, self.config, DUE + timedelta(days=1), (self.name,), [week], True, quiet)["dropped"])

    def send(self, events: list[Event]) -> None:
        self.client.send(events)
        self.client.wait_until_consumed()

    def read(self, limit: int) -> set[int]:
        """The weeks that a fresh reader is shown."""
        with opened(self.config, self.name) as site:
            return set(read_page(site, conversation_uuid(0), None, limit).tiers)

    def explain(self, week: int, step: Step, kept: str, command: str) -> None:
        now, talk = DUE + timedelta(days=1), conversation_uuid(0)
        with opened(self.config, self.name, now) as site:
            facts = gather(site, talk, week, now, known_of(site, [week]))
        found = explained(facts, talk, now, self.config.tiers, datetime.now(UTC))
        assert found.step is step, found
        assert kept in found.kept
        assert found.next_try.command.startswith(command)

    def state(self, week: int) -> tuple[str, str]:
        with self.checker() as checker:
            return checker.states()[week]

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

    def wait_for_leases(self) -> None:
        def is_free() -> bool:
            with opened(self.config, self.name) as site:
                rows = site.db.hot.rows(f"SELECT expires_at FROM {self.name}_meta.leases")
            return all(expires_at.replace(tzinfo=UTC) < datetime.now(UTC) for (expires_at,) in rows)

        until(is_free, "a lease of a job that failed does not run out")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with running(tmp_path_factory.mktemp("nodes")) as up:
        yield up


@contextmanager
def staged(nodes: Nodes, warm: Cassandra, folder: Path, count: int) -> Iterator[Place]:
    """A region of its own with `count` weeks of messages."""
    layout = replace(LAYOUT, tables_ahead_weeks=0)
    config = replace(nodes.config, regions=(fresh_region(),), warm=warm, layout=layout, clocks=CLOCKS)
    (region,) = config.regions
    prepare(config, region)
    client = Client(config, region, folder / "acknowledged.ndjson")
    for number in range(count):
        week_tables.run(config, START + timedelta(days=7 * number), (region,), quiet)
    with consuming(config, folder / "consumer.log"):
        place = Place(nodes, config, client)
        place.send([one for number in range(count) for one in week_of(number)])
        yield place


@pytest.fixture(scope="module")
def apart(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Its warm tables lie in a datacenter of their own; the first of its weeks was moved there, and left hot."""
    with staged(nodes, nodes.config.warm, tmp_path_factory.mktemp("apart"), 3) as place:
        assert len(place.move(FIRST)) == 1
        assert place.drop(FIRST) == 1
        yield place


def week_of(number: int) -> list[MessageSent]:
    days = START + timedelta(days=7 * number)
    return [
        sent(talk, days + timedelta(hours=9 + hour), number, b"ciphertext" * 50)
        for talk in range(CONVERSATIONS)
        for hour in range(MESSAGES)
    ]


@contextmanager
def refused(kind: type[FirnError], what: str, do: str) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert type(caught.value) is kind
    assert what in caught.value.what
    assert do in caught.value.do


def test_a_dead_replica_delays_the_drop_and_nothing_else(nodes: Nodes, tmp_path: Path) -> None:
    """Source, sink, ledger and lane have three replicas each. One dies in the middle of the copy and comes back without
    the rows that were written meanwhile: no hints are kept."""
    dead = nodes.hot[-1]
    with staged(nodes, nodes.config.hot, tmp_path, 1) as place:
        with striking(ends, "copy", dead.kill):
            survived(lambda: place.move(FIRST))  # what was asked of that node just then may not come back in time
        nodes.wait_until_missed()
        place.wait_for_leases()
        place.move(FIRST)
        assert place.state(FIRST) == ("hot", "switched")
        place.send(amended(week_of(0), DUE))
        place.check()
        with refused(BlockedError, "only 2 of the 3 replicas that ALL needs answer", "start it; then run the same"):
            place.drop(FIRST)
        assert place.state(FIRST) == ("hot", "switched")
        place.explain(FIRST, Step.DROP, "only 2 of the 3 replicas that ALL needs answer", "./firn drop --apply")
        nodes.start(dead)
        assert place.drop(FIRST) == 1
        assert place.state(FIRST) == ("hot", "dropped")
        place.check()
        with session_at(dead, ConsistencyLevel.ONE) as session:
            table = f"{place.name}_warm.{messages.table_names(FIRST)[0]}"
            (count,) = session.execute(f"SELECT count(*) FROM {table}").one()
        assert count == CONVERSATIONS * MESSAGES, "the read at ALL has mended the replica that was away"


def test_rows_lie_in_the_datacenter_of_their_tier(apart: Place) -> None:
    with session_at(apart.nodes.hot[0]) as session:
        known = session.cluster.metadata
        for suffix, expected in (("warm", [WARM]), ("hot", [HOT] * 3), ("meta", [HOT] * 3), ("vault", [HOT] * 3)):
            token = Murmur3Token.from_key(conversation_uuid(0))
            found = known.token_map.get_replicas(f"{apart.name}_{suffix}", token)
            assert [host.datacenter for host in found] == expected, suffix


def test_warm_dies_in_the_middle_of_a_copy(apart: Place) -> None:
    """Hot is read and written on, also by processes that start now; what needs warm waits and says so."""
    warm, week = apart.nodes.warm, FIRST + 1
    with striking(ends, "copy", warm.kill):
        assert survived(lambda: apart.move(week)) is not None
    assert apart.state(week) == ("hot", "sealed")
    late = amended(week_of(1), DUE)
    apart.send([*late, *newest(2, b"while warm is away")])
    assert apart.read(MESSAGES) == {FIRST + 2}
    with refused(BlockedError, "no Cassandra of datacenter warm answers", "then run the same command again"):
        apart.read(1000)
    apart.wait_for_leases()
    with refused(BlockedError, "no Cassandra of datacenter warm answers", "then run the same command again"):
        apart.move(week)
    apart.explain(week, Step.COPY, "no Cassandra of datacenter warm answers", "./firn move")
    table = f"{apart.name}_warm.{messages.table_names(FIRST)[0]}"
    with session_at(apart.nodes.hot[0], ConsistencyLevel.ONE) as session, pytest.raises((Unavailable, ReadTimeout)):
        session.execute(f"SELECT conversation_id FROM {table} LIMIT 1")  # no hot node has a row of it
    apart.nodes.start(warm)
    assert len(apart.move(week)) == 1
    assert apart.drop(week) == 1
    assert apart.read(1000) == {FIRST, FIRST + 1, FIRST + 2}
    apart.check()


def test_hot_dies(apart: Place) -> None:
    """With the ledger, which says where each row is: jobs and readers wait and say so, the log takes messages, and the
    consumer goes on by itself. Rows in warm are there all the time."""
    for node in apart.nodes.hot:
        node.kill()
    apart.client.send(newest(2, b"while hot is away"))
    with refused(BlockedError, "no Cassandra of datacenter hot answers", "then run the same command again"):
        apart.move(FIRST + 2)
    with refused(BlockedError, "no Cassandra of datacenter hot answers", "then run the same command again"):
        apart.read(1)
    warm = connect(apart.config.warm)
    try:
        rows = list(messages.scan(warm, apart.name, Tier.WARM, FIRST, ALL_OF_IT))
    finally:
        warm.session.cluster.shutdown()
    assert len(rows) == CONVERSATIONS * MESSAGES
    apart.nodes.start(*apart.nodes.hot)
    apart.check()
    survived(lambda: apart.move(FIRST + 2))  # nodes that have just come up may be too slow for it
    apart.wait_for_leases()
    apart.move(FIRST + 2)
    assert apart.state(FIRST + 2) == ("hot", "switched")
    apart.check()


def newest(number: int, body: bytes) -> list[Any]:
    when = START + timedelta(days=7 * number + 5)
    return [sent(talk, when, len(body), body) for talk in range(CONVERSATIONS)]
