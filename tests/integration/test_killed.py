"""The job killed with -9 in the middle of each state, once, and run again: the same rows, and the job is done.

Each point has a week of its own, so that all of a move's points die at the same time and one run finishes them all.
"""

import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from core import weeks
from core.settings import Settings
from jobs import drop, fold, move
from jobs import weeks as week_tables
from jobs.attempt import attempt
from lakehouse.reader import read_page
from lakehouse.site import opened
from quality import run as quality
from schemas.events import Event
from tests.checker import Checker
from tests.client import Client, amended, conversation_uuid, reacted, sent, until
from tests.conftest import quiet
from tests.killing import die

START = datetime(2025, 9, 1, tzinfo=UTC)  # a Monday
FIRST = weeks.of_instant(START)
CONVERSATIONS = 6
LEASE_SECONDS = 3.0
CHILDREN_AT_ONCE = 5
CHILD_SECONDS = 60
# Forked from a process that has imported everything and opened nothing, so that a child costs no start.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.killing"])

# What dies where, and in which state the ledger shows the unit then. The first week is not sealed yet; the others were
# sealed before, and their lane holds what came since.
BEFORE_THE_SEAL = {"sealed, before the route": "sealed"}
TO_WARM = {
    "sealed, in the middle of the copy": "sealed",
    "copied, read back but not told": "copied",
    "switched, lane taken in": "switched",
    "switched, lane cleared": "switched",
}
TO_COLD = {
    "sealed, committed, before the pointers": "sealed",
    "sealed, one pointer moved": "sealed",
    "copied": "copied",
    "verified": "verified",
    "switched": "switched",
}
FROM_HOT = {
    "dropping, unit told": "dropped",
    "dropping": "switched",
    "dropping, tables gone": "switched",
}
FROM_WARM = {"switched, proven for the drop": "switched"}
FOLDING = {
    "folding, file written": "open",
    "folding, committed, before the pointers": "open",
    "folding, pointer moved": "open",
    "folding, lane not cleared": "open",
    "folding, lane cleared": "open",
}
TO_FROZEN = {
    "freezing, references noted": "sealed",
    "freezing, object put": "sealed",
    "freezing, manifest committed": "sealed",
    "freezing, object told": "sealed",
    "freezing, copied": "copied",
}
FROM_COLD = {
    "thinning, files taken out of the table": "switched",
    "thinning, unit told": "dropped",
    "thinning, one pointer retired": "dropped",
}
SUPPLEMENTING = {
    "folding, committed, before the pointers": "dropped",
    "folding, pointer moved": "dropped",
    "folding, told of a supplement": "open",
}
WEEKS = len(TO_COLD)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


@dataclass(frozen=True)
class Scene:
    config: Settings
    client: Client
    checker: Checker

    @property
    def region(self) -> str:
        return self.client.region

    def killed(self, job: str, now: datetime, points: dict[int, str]) -> None:
        """Each week's job in a process of its own, dead at its point."""
        waiting = list(points.items())
        while waiting:
            batch, waiting = waiting[:CHILDREN_AT_ONCE], waiting[CHILDREN_AT_ONCE:]
            children = [self._child(job, now, week, point) for week, point in batch]
            for child in children:
                child.join(CHILD_SECONDS)
            for (_, point), child in zip(batch, children, strict=True):
                assert ended(child) == -9, f"{point}: {self._log(point).read_text()[-1500:]}"

    def _child(self, job: str, now: datetime, week: int, point: str) -> ForkServerProcess:
        child = FORKS.Process(target=die, args=(point, job, self.config, now, week, self._log(point)))
        child.start()
        return child

    def _log(self, point: str) -> Path:
        return self.client.log.with_name(f"{point}.log")

    def check(self, behind: int = 0) -> str:
        """`behind` weeks have a commit that their pointers do not know of yet: then the lane has what it took in."""
        self.client.wait_until_consumed()
        report = self.checker.report()
        lagging = [fault for fault in report.faults if ": the Delta log has " in fault]
        assert len(lagging) == behind
        assert set(report.faults) == set(lagging)
        assert report.digest == report.expected_digest
        return report.digest

    def states(self, points: dict[int, str]) -> dict[str, str]:
        found = self.checker.states()
        return {point: found[week][1] for week, point in points.items()}

    def seal(self, now: datetime, only: list[int]) -> None:
        """As a mover that did not come further."""
        with attempt(None, self.config, self.region, now, quiet) as run:
            taken, _ = run.take(move.due_units(run, only), lambda _: True)
            sealed = move.seal(run, taken)
        assert len(sealed) == len(only)

    def move(self, now: datetime) -> list[str]:
        """What was moved of the weeks of this test."""
        only = range(FIRST, FIRST + WEEKS)
        report = move.run(None, self.config, now, (self.region,), only, quiet)
        return list(report["regions"][self.region]["moved"])

    def drop(self, now: datetime, only: Sequence[int] | None = None) -> int:
        return int(drop.run(None, self.config, now, (self.region,), only, True, quiet)["dropped"])

    def fold(self, now: datetime) -> list[str]:
        report = fold.run(None, self.config, now, (self.region,), None, quiet)
        return list(report["regions"][self.region]["folded"])

    def read(self, week: int) -> list[bytes]:
        """The ids that a reader is shown of the week."""
        with opened(self.config, self.region) as site:
            pages = [read_page(site, conversation_uuid(number), None, 10_000) for number in range(CONVERSATIONS + 1)]
        found = sorted(row.message_id for page in pages for row in page.rows if weeks.of_id(row.message_id) == week)
        assert found
        return found

    def judge(self, now: datetime) -> None:
        quality.run(self.config, now, (self.region,), None, quiet)

    def finished(self, now: datetime) -> list[str]:
        """The same job again, once the leases of the dead have run out."""
        self.wait_for_leases()
        return self.move(now)

    def wait_for_leases(self) -> None:
        until(lambda: not self.leases(), "a lease of a dead process does not run out")

    def leases(self) -> list[str]:
        rows = self.checker.session.execute(f"SELECT name, expires_at FROM {self.region}_meta.leases")
        now = datetime.now(UTC)
        return [name for name, expires_at in rows if expires_at.replace(tzinfo=UTC) > now]


@pytest.fixture(scope="module")
def scene(config: Settings, client: Client, checker: Checker, consumer: None) -> Scene:
    short = replace(
        config,
        clocks=replace(config.clocks, lease_seconds=LEASE_SECONDS),
        layout=replace(config.layout, shard_bytes=10**6),
        frozen=replace(config.frozen, horizon_months=1200),  # these files are small: it takes that long to pay
    )
    return Scene(short, client, checker)


def ended(child: ForkServerProcess) -> int | None:
    """None for one that hung, which is ended now."""
    code = child.exitcode
    if code is None:
        child.terminate()
    return code


def week_of(number: int) -> list[Any]:
    """Messages of every conversation in one week."""
    days = [day(7 * number + extra) + timedelta(hours=9) for extra in range(0, 7, 2)]
    return [sent(one, when, number, b"ciphertext" * 300) for one in range(CONVERSATIONS) for when in days]


def amendments(number: int, when: datetime) -> list[Event]:
    messages = week_of(number)
    late = sent(CONVERSATIONS, day(7 * number + 2), number, b"came late")
    return [*amended(messages[when.day % 9 :], when), late, reacted(late, when, 3)]


def test_killed_in_every_state_and_run_again(scene: Scene) -> None:
    begin(scene)
    hot_to_warm(scene)
    drop_hot(scene)
    warm_to_cold(scene)
    drop_warm(scene)
    fold_cold(scene)
    cold_to_frozen(scene)
    drop_cold(scene)
    fold_frozen(scene)


def begin(scene: Scene) -> None:
    week_tables.run(scene.config, day(7), (scene.region,), quiet)
    week_tables.run(scene.config, day(7 * WEEKS), (scene.region,), quiet)
    scene.client.send(event for number in range(WEEKS) for event in week_of(number))
    for number in range(WEEKS):
        scene.client.send(amendments(number, day(7 * number + 7)))
    scene.check()


def placed(points: Iterable[str], first: int = FIRST) -> dict[int, str]:
    return dict(enumerate(points, first))


def hot_to_warm(scene: Scene) -> None:
    now = day(7 * WEEKS + 7)
    early = placed(BEFORE_THE_SEAL)
    late = placed(TO_WARM, FIRST + len(early))
    scene.seal(now, list(late))
    scene.client.send(event for week in late for event in amendments(week - FIRST, now))
    scene.client.wait_until_consumed()
    scene.killed("move", now, early | late)
    assert scene.states(early | late) == BEFORE_THE_SEAL | TO_WARM
    scene.client.send(event for week in early for event in amendments(week - FIRST, now))
    before = scene.check()
    assert len(scene.finished(now)) == WEEKS
    assert scene.check() == before
    assert_all(scene, "hot", "switched")
    assert [scene.checker.in_lane(FIRST + number) for number in range(WEEKS)] == [0] * WEEKS
    assert scene.move(now) == []


def drop_hot(scene: Scene) -> None:
    """The first week is left as its killed run left it: dropped, but its tables not yet told to be."""
    now = day(7 * WEEKS + 8)
    points = placed(FROM_HOT)
    scene.killed("drop", now, points)
    assert scene.states(points) == FROM_HOT
    before = scene.check()
    scene.wait_for_leases()
    assert scene.drop(now, range(FIRST + 1, FIRST + WEEKS)) == WEEKS - 1
    assert scene.check() == before
    assert_all(scene, "hot", "dropped")
    assert_gone(scene, "hot")


def warm_to_cold(scene: Scene) -> None:
    now = day(7 * WEEKS + 30)
    points = placed(TO_COLD)
    scene.seal(now, list(points))
    scene.client.send(event for week in points for event in amendments(week - FIRST, now))
    scene.client.wait_until_consumed()
    scene.killed("move", now, points)
    assert scene.states(points) == TO_COLD
    before = scene.check()
    assert len(scene.finished(now)) == WEEKS
    assert scene.check() == before
    # The drop that was left finishes with the hot tables and must not touch the move that has begun since.
    assert scene.drop(now) == 1
    assert_all(scene, "warm", "switched")
    assert f"warm.messages_w{FIRST}" in scene.checker.tables()


def drop_warm(scene: Scene) -> None:
    now = day(7 * WEEKS + 31)
    points = placed(FROM_WARM)
    scene.killed("drop", now, points)
    assert scene.states(points) == FROM_WARM
    before = scene.check()
    scene.wait_for_leases()
    assert scene.drop(now) == 0, "the quality gate has not judged them"
    scene.judge(now)
    assert scene.drop(now) == WEEKS
    assert scene.check() == before
    assert_all(scene, "warm", "dropped")
    assert_gone(scene, "warm")
    assert scene.drop(now) == 0


def fold_cold(scene: Scene) -> None:
    now = day(7 * WEEKS + 40)
    points = placed(FOLDING)
    scene.client.send(event for week in points for event in amendments(week - FIRST, now))
    scene.client.wait_until_consumed()
    scene.killed("fold", now, points)
    assert scene.states(points) == FOLDING
    before = scene.check(behind=1)
    scene.wait_for_leases()
    assert len(scene.fold(now)) == WEEKS - 1, "of one the lane was clear already"
    assert scene.check() == before
    assert [scene.checker.in_lane(FIRST + number) for number in range(WEEKS)] == [0] * WEEKS
    assert scene.fold(now) == []


def cold_to_frozen(scene: Scene) -> None:
    now = day(7 * WEEKS + 366)
    points = placed(TO_FROZEN)
    scene.killed("move", now, points)
    assert scene.states(points) == TO_FROZEN
    scene.client.send(event for week in points for event in amendments(week - FIRST, now))
    before = scene.check()
    assert len(scene.finished(now)) == WEEKS
    assert scene.check() == before
    assert_all(scene, "cold", "switched")


def drop_cold(scene: Scene) -> None:
    now = day(7 * WEEKS + 367)
    points = placed(FROM_COLD)
    scene.judge(now)
    held = scene.read(FIRST)
    scene.killed("drop", now, points)
    assert scene.states(points) == FROM_COLD
    assert scene.read(FIRST) == held, "its files are out of the table, and it is still read from them"
    before = scene.check()
    scene.wait_for_leases()
    assert scene.drop(now) == WEEKS - 2
    assert scene.check() == before
    assert_all(scene, "cold", "dropped")
    assert scene.drop(now) == 0


def fold_frozen(scene: Scene) -> None:
    """Pointers that a killed drop has left must not pass for a supplement."""
    now = day(7 * WEEKS + 368)
    points = placed(SUPPLEMENTING, FIRST + WEEKS - len(SUPPLEMENTING))
    scene.killed("fold", now, points)
    assert scene.states(points) == SUPPLEMENTING
    before = scene.check()
    scene.wait_for_leases()
    assert len(scene.fold(now)) == WEEKS
    assert scene.check() == before
    assert [scene.checker.in_lane(FIRST + number) for number in range(WEEKS)] == [0] * WEEKS
    assert_all(scene, "cold", "open")


def assert_all(scene: Scene, source: str, state: str) -> None:
    found = scene.checker.states()
    assert {found[FIRST + number] for number in range(WEEKS)} == {(source, state)}


def assert_gone(scene: Scene, tier: str) -> None:
    standing, span = scene.checker.tables(), range(FIRST, FIRST + WEEKS)
    assert not [week for week in span if {f"{tier}.messages_w{week}", f"{tier}.reactions_w{week}"} & standing]
