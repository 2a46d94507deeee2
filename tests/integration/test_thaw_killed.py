"""A thaw killed with -9 in the middle of each state, once, in all three directions, and run again: the same rows.

Each point has a week of its own, as in `test_killed`, whose scene this is.
"""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from core.archive import Speed
from core.ledger import THAW, Account
from core.settings import Settings
from jobs import restore, thaw
from jobs import weeks as week_tables
from lakehouse.site import opened
from tests.checker import Checker
from tests.client import Client
from tests.conftest import quiet
from tests.integration.test_killed import (
    FIRST,
    LEASE_SECONDS,
    WEEKS,
    Scene,
    amendments,
    assert_all,
    assert_gone,
    day,
    placed,
    week_of,
)

TO_COLD = {
    "thawing, told": "open",
    "sealed, in the middle of the copy": "sealed",
    "copied": "copied",
    "thawing, files committed, before the pointers": "verified",
    "thawing, files in place, not switched": "verified",
}
FROM_FROZEN = {
    "thinning, manifests out of their table": "switched",
    "thinning, one frozen row retired": "switched",
    "thinning, unit told": "dropped",
}
TO_WARM = {
    "thawing, noted but not told": "open",
    "thawing, tables made again": "open",
    "sealed, before the route": "sealed",
    "copied, read back but not told": "copied",
    "switched, lane taken in": "switched",
}
FROM_COLD = {
    "thinning, files taken out of the table": "switched",
    "thinning, unit told": "dropped",
    "thinning, one pointer retired": "dropped",
}
TO_HOT = {
    "thawing, told": "open",
    "sealed, in the middle of the copy": "sealed",
    "verified": "verified",
    "switched": "switched",
    "switched, lane cleared": "switched",
}
FROM_WARM = {"dropping": "switched", "dropping, tables gone": "switched", "dropping, unit told": "dropped"}
FROZEN_SINCE = 7 * WEEKS + 370


@pytest.fixture(scope="module")
def scene(config: Settings, client: Client, checker: Checker, consumer: None) -> Scene:
    quick = replace(
        config,
        clocks=replace(config.clocks, lease_seconds=LEASE_SECONDS, longest_read_seconds=0.3),
        layout=replace(config.layout, shard_bytes=10**6),
        frozen=replace(config.frozen, horizon_months=1200),
    )
    return Scene(quick, client, checker)


def test_a_thaw_is_killed_everywhere_and_run_again(scene: Scene) -> None:
    all_the_way_down(scene)
    frozen_to_cold(scene)
    cold_to_warm(scene)
    warm_to_hot(scene)
    every_thaw_is_in_the_audit(scene)


def all_the_way_down(scene: Scene) -> None:
    """The last two weeks have a supplement in cold; all of them something in the lane."""
    week_tables.run(scene.config, day(7), (scene.region,), quiet)
    week_tables.run(scene.config, day(7 * WEEKS), (scene.region,), quiet)
    scene.client.send(event for number in range(WEEKS) for event in week_of(number))
    scene.check()
    for start in (7 * WEEKS + 7, 7 * WEEKS + 30, 7 * WEEKS + 366):
        assert len(scene.move(day(start))) == WEEKS
        scene.judge(day(start + 1))
        assert scene.drop(day(start + 1)) == WEEKS
    later = [WEEKS - 2, WEEKS - 1]
    scene.client.send(event for number in later for event in amendments(number, day(FROZEN_SINCE - 2)))
    scene.client.wait_until_consumed()
    assert len(scene.fold(day(FROZEN_SINCE - 2))) == len(later)
    assert set(scene.checker.states().values()) >= {("cold", "dropped"), ("cold", "open")}


def change(scene: Scene, now: datetime) -> None:
    scene.client.send(event for number in range(WEEKS) for event in amendments(number, now))
    scene.client.wait_until_consumed()


def finished(scene: Scene, now: datetime) -> int:
    """The same command again for every week, once the leases of the dead have run out."""
    scene.wait_for_leases()
    number = 0
    for week in range(FIRST, FIRST + WEEKS):
        order = thaw.Order(week, None, 0, Account("a test", "once more"), True)
        number += int(thaw.run(None, scene.config, now, (scene.region,), order, quiet)["thawed"])
    return number


def frozen_to_cold(scene: Scene) -> None:
    asked = day(FROZEN_SINCE)
    for week in range(FIRST, FIRST + WEEKS):
        restore.run(scene.config, asked, week, (scene.region,), Speed.BULK, 3, False, quiet)
    now = asked + timedelta(hours=12)
    points = placed(TO_COLD)
    scene.killed("thaw", now, points)
    assert scene.states(points) == TO_COLD
    change(scene, now)
    before = scene.check(behind=1)
    assert finished(scene, now) == WEEKS
    assert scene.check() == before
    assert_all(scene, "frozen", "switched")

    then = now + timedelta(days=1)
    points = placed(FROM_FROZEN)
    scene.judge(then)
    scene.killed("drop", then, points)
    assert scene.states(points) == FROM_FROZEN
    scene.wait_for_leases()
    assert scene.drop(then) == WEEKS - 1
    assert scene.check() == before
    assert_all(scene, "frozen", "dropped")
    assert scene.checker.frozen() == []


def cold_to_warm(scene: Scene) -> None:
    now = day(FROZEN_SINCE + 2)
    points = placed(TO_WARM)
    scene.killed("thaw", now, points)
    assert scene.states(points) == TO_WARM
    change(scene, now)
    before = scene.check()
    assert finished(scene, now) == WEEKS
    assert scene.check() == before
    assert_all(scene, "cold", "switched")
    assert [scene.checker.in_lane(FIRST + number) for number in range(WEEKS)] == [0] * WEEKS

    then = now + timedelta(days=1)
    points = placed(FROM_COLD)
    scene.judge(then)
    scene.killed("drop", then, points)
    assert scene.states(points) == FROM_COLD
    scene.wait_for_leases()
    scene.drop(then)
    assert scene.check() == before
    assert_all(scene, "cold", "dropped")


def warm_to_hot(scene: Scene) -> None:
    now = day(FROZEN_SINCE + 4)
    points = placed(TO_HOT)
    scene.killed("thaw", now, points)
    assert scene.states(points) == TO_HOT
    change(scene, now)
    before = scene.check()
    finished(scene, now)
    assert scene.check() == before
    assert_all(scene, "warm", "switched")

    then = now + timedelta(days=1)
    points = placed(FROM_WARM)
    scene.killed("drop", then, points)
    assert scene.states(points) == FROM_WARM
    scene.wait_for_leases()
    scene.drop(then)
    assert scene.check() == before
    assert_all(scene, "warm", "dropped")
    assert_gone(scene, "warm")
    assert f"hot.messages_w{FIRST}" in scene.checker.tables()


def every_thaw_is_in_the_audit(scene: Scene) -> None:
    """Of the one that died between note and change there are two lines, and the first is not confirmed."""
    with opened(scene.config, scene.region) as site:
        entries = [one for one in site.ledger.audit() if one.action == THAW]
    assert len(entries) == 3 * WEEKS + 1
    unconfirmed = [one for one in entries if not one.applied]
    # One died before the change, three more between the change and its confirmation.
    assert {one.week for one in unconfirmed} <= {FIRST}
    assert len(unconfirmed) == 3
