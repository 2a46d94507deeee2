"""One contract for frozen objects: who refuses to be read, how a restore comes, and when its copy goes."""

import hashlib
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from core import archive
from core.archive import Speed
from core.errors import DamagedError, RefusedError
from core.settings import Objects as ObjectSettings
from stores.buckets import open_objects
from stores.directory import DirectoryObjects
from stores.objects import (
    FrozenObjectError,
    NotFoundError,
    ObjectInfo,
    Objects,
    Restore,
    RestoreUnderWayError,
)
from tests.behaviour.conftest import ManualClock

BODY = b"sealed" * 100
KEY = "frozen/messages/s000/week=2826/shard=00000/000-00000007-a.parquet"
ARCHIVES = [name for name in archive.CLASSES if archive.is_archive(name)]
FIVE_MINUTES, HALF_A_DAY, A_DAY = timedelta(minutes=5), timedelta(hours=12), timedelta(days=1)
MOMENT = timedelta(microseconds=1)


def can(objects: Objects, capability: str) -> None:
    """Leaves the case out, and says so, where it cannot be true."""
    if not getattr(objects.capabilities, capability):
        pytest.skip(f"{type(objects).__name__} here does not do it: {capability}")


def told(objects: Objects, key: str = KEY) -> ObjectInfo:
    info = objects.head(key)
    assert info is not None
    return info


def copy_of(objects: Objects, key: str = KEY) -> Restore:
    copy = told(objects, key).restore
    assert copy is not None
    return copy


def frozen(objects: Objects, storage_class: str = "GLACIER", key: str = KEY) -> None:
    objects.put(key, BODY, storage_class=storage_class)


def assert_shut(objects: Objects) -> None:
    for wanted in ((), (0, 5), (3, None), (None, 4), (2, 0), (10_000, 5)):
        with pytest.raises(FrozenObjectError, match=KEY):
            objects.get(KEY, *wanted)


def assert_open(objects: Objects) -> None:
    assert objects.get(KEY) == BODY
    assert objects.get(KEY, 3, 4) == BODY[3:7]


def restored(objects: Objects, clock: ManualClock, speed: Speed = Speed.STANDARD, days: int = 2) -> None:
    frozen(objects)
    objects.restore(KEY, speed, days)
    if objects.capabilities.delays:
        clock.go(archive.retrieval("GLACIER", speed).delay)


@pytest.mark.parametrize("storage_class", ARCHIVES)
def test_a_frozen_object_can_be_looked_at_and_not_read(objects: Objects, storage_class: str) -> None:
    can(objects, "archives")
    frozen(objects, storage_class)
    assert_shut(objects)
    info = told(objects)
    assert (info.size_bytes, info.storage_class, info.restore) == (len(BODY), storage_class, None)
    assert info.sha256 == hashlib.sha256(BODY).hexdigest()
    assert [found.key for found in objects.list("frozen/")] == [KEY]


def test_a_store_attests_what_it_holds_frozen_or_not(objects: Objects) -> None:
    assert objects.attest(KEY) is None
    frozen(objects)
    told_now = objects.attest(KEY)
    assert told_now is not None
    assert (told_now.sha256, told_now.size_bytes) == (hashlib.sha256(BODY).hexdigest(), len(BODY))
    assert told_now.attested is objects.capabilities.attests


def test_a_directory_attests_the_bytes_and_not_what_it_once_noted(tmp_path: Path) -> None:
    objects = DirectoryObjects(tmp_path)
    frozen(objects)
    (tmp_path / KEY).write_bytes(BODY.replace(b"s", b"S", 1))
    attested = objects.attest(KEY)
    assert attested is not None
    assert attested.sha256 == hashlib.sha256(BODY.replace(b"s", b"S", 1)).hexdigest()


@pytest.mark.parametrize("storage_class", [name for name in archive.CLASSES if name not in ARCHIVES])
def test_what_can_be_read_at_once_is_not_restored(objects: Objects, storage_class: str) -> None:
    frozen(objects, storage_class)
    assert_open(objects)
    with pytest.raises(RefusedError, match="nothing has to be restored"):
        objects.restore(KEY, Speed.BULK, 1)
    assert told(objects).restore is None


def test_a_missing_object_cannot_be_restored(objects: Objects) -> None:
    with pytest.raises(NotFoundError, match=KEY):
        objects.restore(KEY, Speed.BULK, 1)
    with pytest.raises(RefusedError, match="cannot be an object key"):
        objects.restore("../x", Speed.BULK, 1)


def test_a_speed_or_a_stay_that_is_not_to_be_had_is_refused(objects: Objects) -> None:
    frozen(objects, "DEEP_ARCHIVE")
    with pytest.raises(RefusedError, match="speed expedited"):
        objects.restore(KEY, Speed.EXPEDITED, 1)
    for days in (0, -1, 100_000):
        with pytest.raises(RefusedError, match=f"{days} days"):
            objects.restore(KEY, Speed.BULK, days)
    assert told(objects).restore is None


def test_the_store_answers_for_the_hash(objects: Objects) -> None:
    can(objects, "attests")
    wanted = (hashlib.sha256(BODY).hexdigest(), True)
    for info in (
        objects.put(KEY, BODY, storage_class="GLACIER"),
        told(objects),
        objects.put_file("frozen/y", io.BytesIO(BODY), storage_class="DEEP_ARCHIVE"),
        told(objects, "frozen/y"),
        objects.restore(KEY, Speed.BULK, 1),
    ):
        assert (info.sha256, info.attested) == wanted


def test_a_restored_object_is_read_and_stays_in_its_class(objects: Objects, clock: ManualClock) -> None:
    restored(objects, clock)
    assert_open(objects)
    assert not copy_of(objects).is_ongoing
    assert copy_of(objects).expires_at is not None
    assert told(objects).storage_class == "GLACIER"
    assert told(objects).attested


@pytest.mark.parametrize(
    ("storage_class", "speed"), [(name, speed) for name in ARCHIVES for speed in archive.CLASSES[name].retrievals]
)
def test_a_restore_takes_its_time(objects: Objects, clock: ManualClock, storage_class: str, speed: Speed) -> None:
    can(objects, "delays")
    frozen(objects, storage_class)
    ready_at = clock.now + archive.retrieval(storage_class, speed).delay
    asked = objects.restore(KEY, speed, 3)
    assert asked == told(objects)
    assert asked.restore == Restore(True, archive.expires_at(ready_at, 3), ready_at)
    clock.now = ready_at - MOMENT
    assert_shut(objects)
    clock.now = ready_at
    assert_open(objects)
    assert copy_of(objects) == Restore(False, archive.expires_at(ready_at, 3), ready_at)


def test_a_copy_goes_at_midnight_and_can_be_asked_for_again(objects: Objects, clock: ManualClock) -> None:
    can(objects, "refreezes")
    restored(objects, clock, Speed.BULK, days=2)
    gone = datetime(2026, 3, 5, tzinfo=UTC)  # ready on the 2nd at 22:30, two days, midnight
    assert copy_of(objects).expires_at == gone
    clock.now = gone - MOMENT
    assert_open(objects)
    clock.now = gone
    assert_shut(objects)
    assert told(objects).restore is None
    asked = objects.restore(KEY, Speed.EXPEDITED, 1)
    assert asked.restore == Restore(True, archive.expires_at(gone + FIVE_MINUTES, 1), gone + FIVE_MINUTES)
    assert_shut(objects)


def test_the_same_again_changes_nothing_while_it_is_under_way(objects: Objects, clock: ManualClock) -> None:
    can(objects, "delays")
    frozen(objects)
    before = objects.restore(KEY, Speed.STANDARD, 1)
    clock.go(timedelta(hours=1))
    for speed in (Speed.STANDARD, Speed.BULK):
        with pytest.raises(RestoreUnderWayError, match=KEY):
            objects.restore(KEY, speed, 30)
    assert told(objects) == before


def test_a_faster_restore_overtakes(objects: Objects, clock: ManualClock) -> None:
    can(objects, "delays")
    frozen(objects)
    objects.restore(KEY, Speed.BULK, 1)
    clock.go(timedelta(hours=1))
    overtaken = clock.now + timedelta(hours=5)
    asked = objects.restore(KEY, Speed.STANDARD, 30)
    # Only the speed: the days are those first asked for.
    assert asked.restore == Restore(True, archive.expires_at(overtaken, 1), overtaken)
    objects.restore(KEY, Speed.EXPEDITED, 1)
    clock.go(FIVE_MINUTES)
    assert_open(objects)


def test_overtaking_never_makes_it_later(objects: Objects, clock: ManualClock) -> None:
    can(objects, "delays")
    frozen(objects)
    objects.restore(KEY, Speed.BULK, 1)
    ready_at = clock.now + HALF_A_DAY
    clock.now = ready_at - timedelta(minutes=1)
    asked = objects.restore(KEY, Speed.EXPEDITED, 1)
    assert asked.restore is not None
    assert asked.restore.ready_at == ready_at


def test_a_copy_that_is_there_stays_longer_at_no_new_wait_and_never_shorter(
    objects: Objects, clock: ManualClock
) -> None:
    restored(objects, clock, days=2)
    first = copy_of(objects)
    objects.restore(KEY, Speed.BULK, 1)
    assert copy_of(objects) == first
    longer = objects.restore(KEY, Speed.BULK, 9).restore
    assert longer is not None
    assert first.expires_at
    assert longer.expires_at
    assert longer.expires_at >= first.expires_at + 6 * A_DAY
    assert not longer.is_ongoing
    assert copy_of(objects) == longer
    assert_open(objects)


def test_a_longer_stay_counts_from_now(objects: Objects, clock: ManualClock) -> None:
    can(objects, "delays")
    restored(objects, clock, days=2)
    clock.go(A_DAY)
    extended = objects.restore(KEY, Speed.BULK, 5).restore
    assert extended is not None
    assert extended.expires_at == archive.expires_at(clock.now, 5)


def test_a_put_starts_anew(objects: Objects, clock: ManualClock) -> None:
    restored(objects, clock)
    frozen(objects)
    assert told(objects).restore is None
    assert_shut(objects)
    objects.restore(KEY, Speed.EXPEDITED, 1)
    objects.put(KEY, BODY)
    assert told(objects).restore is None
    assert_open(objects)


def test_a_deletion_takes_the_copy_along(objects: Objects, clock: ManualClock) -> None:
    restored(objects, clock)
    objects.delete(KEY)
    assert objects.head(KEY) is None
    frozen(objects)
    assert_shut(objects)


@pytest.fixture
def _threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(calls: list[Callable[[], ObjectInfo]]) -> list[ObjectInfo | None]:
    """None for the one that found a restore under way."""
    barrier = threading.Barrier(len(calls))

    def one(call: Callable[[], ObjectInfo]) -> ObjectInfo | None:
        barrier.wait()
        try:
            return call()
        except RestoreUnderWayError:
            return None

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


@pytest.mark.usefixtures("_threads_take_turns_often")
def test_of_two_equal_restores_one_is_asked(objects: Objects) -> None:
    can(objects, "delays")
    for turn in range(20):
        key = f"frozen/{turn}"
        frozen(objects, key=key)
        done = at_once([partial(objects.restore, key, Speed.BULK, 1)] * 3)
        assert len([info for info in done if info]) == 1


@pytest.mark.usefixtures("_threads_take_turns_often")
def test_of_a_slow_and_a_fast_restore_the_fast_one_stands(objects: Objects, clock: ManualClock) -> None:
    can(objects, "delays")
    for turn in range(20):
        key = f"frozen/{turn}"
        frozen(objects, key=key)
        at_once([partial(objects.restore, key, speed, 1) for speed in (*Speed, *Speed)])
        assert copy_of(objects, key).ready_at == clock.now + FIVE_MINUTES


# What only one of them can show.


def test_a_given_now_is_the_clock_of_a_directory(tmp_path: Path) -> None:
    settings, now = ObjectSettings(url=f"file:{tmp_path}"), datetime(2031, 1, 1, tzinfo=UTC)
    frozen(open_objects(settings, "us", now))
    open_objects(settings, "us", now).restore(KEY, Speed.BULK, 1)
    assert_shut(open_objects(settings, "us", now + HALF_A_DAY - MOMENT))
    assert_open(open_objects(settings, "us", now + HALF_A_DAY))
    assert_shut(open_objects(settings, "us", now + timedelta(days=2)))
    assert told(open_objects(settings, "us")).restore is not None  # by real time it is still to come


def test_a_restored_copy_that_was_changed_is_damage(tmp_path: Path, clock: ManualClock) -> None:
    objects = DirectoryObjects(tmp_path, clock)
    restored(objects, clock)
    (tmp_path / KEY).write_bytes(BODY[:-1])
    with pytest.raises(DamagedError, match=KEY):
        objects.get(KEY)


RESTORER = """
import pathlib, sys
from datetime import datetime
from core.archive import Speed
from stores.directory import DirectoryObjects
from stores.objects import RestoreUnderWayError
now, speed = datetime.fromisoformat(sys.argv[2]), Speed(sys.argv[3])
objects = DirectoryObjects(pathlib.Path(sys.argv[1]), lambda: now)
for number in range(int(sys.argv[4])):
    try:
        objects.restore(f"frozen/{number}", speed, 1)
    except RestoreUnderWayError:
        continue
    print(number, flush=True)
"""


def test_kill_9_takes_no_acknowledged_restore_and_leaves_none_in_halves(tmp_path: Path, clock: ManualClock) -> None:
    """Two processes ask for the same objects, at two speeds, and are killed in the middle of it."""
    count, killed = 400, 0
    for turn in range(5):
        objects = DirectoryObjects(tmp_path / f"{turn}", clock)
        for number in range(count):
            frozen(objects, key=f"frozen/{number}")
        acknowledged = {Speed.BULK: set[int](), Speed.EXPEDITED: set[int]()}
        where = [str(tmp_path / f"{turn}"), clock.now.isoformat()]
        start = [sys.executable, "-c", RESTORER, *where]
        with (
            subprocess.Popen([*start, Speed.BULK, str(count)], stdout=subprocess.PIPE, text=True) as slow,
            subprocess.Popen([*start, Speed.EXPEDITED, str(count)], stdout=subprocess.PIPE, text=True) as fast,
        ):
            assert slow.stdout
            assert fast.stdout
            for _ in range(5 + 20 * turn):
                acknowledged[Speed.EXPEDITED].add(int(fast.stdout.readline()))
            for process in (slow, fast):
                process.kill()
            for speed, process in ((Speed.BULK, slow), (Speed.EXPEDITED, fast)):
                assert process.stdout
                acknowledged[speed].update(int(line) for line in process.stdout if line.endswith("\n"))
        killed += len(acknowledged[Speed.EXPEDITED]) < count
        delays = {number: delay_of(objects, number, clock) for number in range(count)}
        assert {delays[number] for number in acknowledged[Speed.EXPEDITED]} == {FIVE_MINUTES}
        assert {delays[number] for number in acknowledged[Speed.BULK]} <= {FIVE_MINUTES, HALF_A_DAY}
        assert set(delays.values()) <= {FIVE_MINUTES, HALF_A_DAY, None}
    assert killed, "no turn ended before its time"


def delay_of(objects: Objects, number: int, clock: ManualClock) -> timedelta | None:
    copy = told(objects, f"frozen/{number}").restore
    if copy is None:
        return None
    assert copy.ready_at
    assert copy.expires_at == archive.expires_at(copy.ready_at, 1)
    return copy.ready_at - clock.now
