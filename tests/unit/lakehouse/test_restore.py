"""What bringing frozen objects back takes, what is asked, and what a reader is told meanwhile. By a manual clock."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core import archive
from core.archive import Speed
from core.digest import Digest
from core.errors import DamagedError, OutcomeUnknownError, RefusedError
from core.ledger import FrozenFile
from lakehouse.restore import RestoreState, Waiting, Want, bring_back, estimate, waiting
from stores.memory import MemoryObjects
from stores.objects import ObjectInfo

NOW = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
SIZE = 3000
WEEK = 2826


class Bucket(MemoryObjects):
    """With a clock to set, and a count of what it was asked for."""

    def __init__(self) -> None:
        super().__init__(lambda: self.now)
        self.now = NOW
        self.asked: list[tuple[str, Speed]] = []

    def restore(self, key: str, speed: Speed, days: int) -> ObjectInfo:
        self.asked.append((key, speed))
        return super().restore(key, speed, days)


class Taciturn(Bucket):
    """As S3: of a restore under way it tells neither end."""

    def head(self, key: str) -> ObjectInfo | None:
        return self._hushed(super().head(key))

    def restore(self, key: str, speed: Speed, days: int) -> ObjectInfo:
        info = self._hushed(super().restore(key, speed, days))
        assert info is not None
        return info

    def _hushed(self, info: ObjectInfo | None) -> ObjectInfo | None:
        if info is None or info.restore is None:
            return info
        expires_at = None if info.restore.is_ongoing else info.restore.expires_at
        return replace(info, restore=replace(info.restore, ready_at=None, expires_at=expires_at))


class Lossy(Bucket):
    """Every answer to a restore is lost; `heard` says whether the request was."""

    heard = True

    def restore(self, key: str, speed: Speed, days: int) -> ObjectInfo:
        if self.heard:
            super().restore(key, speed, days)
        raise OutcomeUnknownError("lost", "look")


def files(objects: MemoryObjects, classes: Sequence[str]) -> list[FrozenFile]:
    made = []
    for shard, storage_class in enumerate(classes):
        key = f"frozen/{shard}"
        info = objects.put(key, bytes(SIZE), storage_class=storage_class)
        digest = Digest(1, 1)
        made.append(FrozenFile(WEEK, 0, 0, shard, 1, len(classes), key, digest, SIZE, info.sha256, storage_class, NOW))
    return made


def want(speed: Speed, now: datetime = NOW, days: int = 7) -> Want:
    return Want(speed, days, now)


@pytest.mark.parametrize("kind", [Bucket, Taciturn])
def test_an_estimate_is_what_asking_then_costs_and_asks_for_nothing(kind: type[Bucket]) -> None:
    objects = kind()
    held = files(objects, ["GLACIER", "GLACIER", "DEEP_ARCHIVE"])
    expected = estimate(objects, held, want(Speed.STANDARD))
    assert objects.asked == []
    assert (expected.objects, expected.size_bytes, expected.asked) == (3, 3 * SIZE, 3)
    assert expected.ready_at == NOW + 12 * HOUR  # the slowest of them
    assert expected.restored_until == archive.expires_at(NOW + 5 * HOUR, 7)  # the first to go
    glacier = archive.restore_quote([SIZE, SIZE], "GLACIER", Speed.STANDARD).dollars
    deep = archive.restore_quote([SIZE], "DEEP_ARCHIVE", Speed.STANDARD).dollars
    assert expected.dollars == pytest.approx(glacier + deep)
    assert expected.copies_dollars == pytest.approx(archive.copies_dollars([SIZE] * 3, 7))
    assert bring_back(objects, held, want(Speed.STANDARD)) == expected


@pytest.mark.parametrize("kind", [Bucket, Taciturn])
def test_asking_again_costs_nothing(kind: type[Bucket]) -> None:
    objects = kind()
    held = files(objects, ["GLACIER", "GLACIER"])
    bring_back(objects, held, want(Speed.STANDARD))
    objects.now += HOUR
    for speed in (Speed.STANDARD, Speed.BULK):
        again = bring_back(objects, held, want(speed, objects.now))
        assert (again.asked, again.under_way, again.restored, again.dollars, again.copies_dollars) == (0, 2, 0, 0, 0)
    objects.now, sent = NOW + 5 * HOUR, len(objects.asked)
    there = bring_back(objects, held, want(Speed.BULK, objects.now))
    assert len(objects.asked) == sent
    assert (there.asked, there.under_way, there.restored, there.dollars) == (0, 0, 2, 0)
    assert (there.ready_at, there.restored_until) == (None, archive.expires_at(objects.now, 7))
    assert objects.get(held[0].path) == bytes(SIZE)


def test_a_slower_request_is_not_even_sent() -> None:
    objects = Bucket()
    held = files(objects, ["GLACIER"])
    bring_back(objects, held, want(Speed.STANDARD))
    bring_back(objects, held, want(Speed.BULK))
    assert len(objects.asked) == 1


def test_a_faster_speed_overtakes_and_is_paid_for() -> None:
    objects = Bucket()
    held = files(objects, ["GLACIER"])
    bring_back(objects, held, want(Speed.BULK))
    expected = estimate(objects, held, want(Speed.EXPEDITED))
    done = bring_back(objects, held, want(Speed.EXPEDITED))
    assert done == expected
    assert (done.asked, done.under_way, done.ready_at) == (1, 0, NOW + timedelta(minutes=5))
    assert done.dollars == archive.restore_quote([SIZE], "GLACIER", Speed.EXPEDITED).dollars


def test_a_faster_speed_that_comes_no_sooner_is_not_paid_for() -> None:
    objects = Bucket()
    held = files(objects, ["GLACIER"])
    bring_back(objects, held, want(Speed.BULK))
    objects.now += 8 * HOUR  # four to go
    late = bring_back(objects, held, want(Speed.STANDARD, objects.now))
    assert (late.asked, late.under_way, late.dollars, late.ready_at) == (0, 1, 0, NOW + 12 * HOUR)
    assert len(objects.asked) == 1


def test_where_the_store_does_not_tell_the_estimate_is_the_most_it_can_be() -> None:
    objects = Taciturn()
    held = files(objects, ["GLACIER"])
    bring_back(objects, held, want(Speed.STANDARD))
    assert estimate(objects, held, want(Speed.STANDARD)).dollars > 0
    again = bring_back(objects, held, want(Speed.STANDARD))
    assert (again.asked, again.under_way, again.dollars, again.ready_at) == (0, 1, 0, None)
    assert estimate(objects, held, want(Speed.BULK)).under_way == 1


def test_one_of_which_the_store_does_not_tell_leaves_the_end_open() -> None:
    objects = Taciturn()
    held = files(objects, ["GLACIER", "GLACIER"])
    objects.restore(held[0].path, Speed.BULK, 1)
    both = bring_back(objects, held, want(Speed.BULK))
    assert (both.asked, both.under_way, both.ready_at) == (1, 1, None)


def test_a_longer_stay_costs_its_request_and_its_days() -> None:
    objects = Bucket()
    held = files(objects, ["GLACIER"])
    bring_back(objects, held, want(Speed.STANDARD))
    objects.now += 5 * HOUR
    longer = bring_back(objects, held, want(Speed.STANDARD, objects.now, days=10))
    assert (longer.restored, longer.restored_until) == (1, archive.expires_at(objects.now, 10))
    assert longer.dollars == archive.restore_quote([0], "GLACIER", Speed.STANDARD).dollars
    assert longer.copies_dollars == pytest.approx(archive.copies_dollars([SIZE], 3))
    assert bring_back(objects, held, want(Speed.STANDARD, objects.now, days=2)).restored_until == longer.restored_until


def test_a_stay_that_the_store_left_as_it_is_costs_nothing() -> None:
    """The store goes by its own clock, which may stand before the caller's `now`."""
    objects = Bucket()
    held = files(objects, ["GLACIER"])
    bring_back(objects, held, want(Speed.STANDARD))
    objects.now += 5 * HOUR
    done = bring_back(objects, held, want(Speed.STANDARD, objects.now + timedelta(days=3)))
    assert len(objects.asked) == 2
    assert (done.restored, done.dollars, done.copies_dollars) == (1, 0, 0)


def test_a_class_that_is_readable_has_nothing_to_restore() -> None:
    objects = Bucket()
    held = files(objects, ["GLACIER_IR", "STANDARD"])
    done = bring_back(objects, held, want(Speed.EXPEDITED))
    assert (done.readable_at_once, done.asked, done.dollars, done.ready_at) == (2, 0, 0, None)
    assert objects.asked == []
    assert waiting(objects, held) == Waiting(RestoreState.RESTORED)
    assert waiting(objects, held).sentence == "readable"


@pytest.mark.parametrize(("speed", "days"), [(Speed.EXPEDITED, 7), (Speed.BULK, 0)])
def test_what_is_not_to_be_had_is_refused_before_anything_is_asked(speed: Speed, days: int) -> None:
    objects = Bucket()
    held = files(objects, ["GLACIER", "DEEP_ARCHIVE"])
    with pytest.raises(RefusedError):
        estimate(objects, held, want(speed, days=days))
    assert objects.asked == []


def test_a_lost_answer_is_looked_up() -> None:
    objects = Lossy()
    held = files(objects, ["GLACIER"])
    done = bring_back(objects, held, want(Speed.BULK))
    assert (done.asked, done.ready_at) == (1, NOW + 12 * HOUR)
    objects.heard = False
    with pytest.raises(OutcomeUnknownError):
        bring_back(objects, held, want(Speed.EXPEDITED))
    objects.heard = True
    done = bring_back(objects, held, want(Speed.EXPEDITED))
    assert (done.asked, done.ready_at) == (1, NOW + timedelta(minutes=5))
    objects.put(held[0].path, bytes(SIZE), storage_class="GLACIER")
    objects.heard = False
    with pytest.raises(OutcomeUnknownError):
        bring_back(objects, held, want(Speed.BULK))


def test_a_missing_object_is_damage() -> None:
    objects = Bucket()
    held = files(objects, ["GLACIER"])
    objects.delete(held[0].path)
    for look in (lambda: waiting(objects, held), lambda: estimate(objects, held, want(Speed.BULK))):
        with pytest.raises(DamagedError, match="frozen/0"):
            look()


def test_the_worst_of_many_is_what_a_reader_waits_for() -> None:
    objects = Bucket()
    held = files(objects, ["GLACIER", "GLACIER", "GLACIER_IR"])
    assert waiting(objects, held).state is RestoreState.NOT_ASKED
    objects.restore(held[0].path, Speed.EXPEDITED, 1)
    objects.now += HOUR
    assert waiting(objects, held).state is RestoreState.NOT_ASKED
    assert "./firn restore" in waiting(objects, held).sentence
    objects.restore(held[1].path, Speed.STANDARD, 3)
    found = waiting(objects, held)
    assert (found.state, found.ready_at) == (RestoreState.UNDER_WAY, NOW + 6 * HOUR)
    assert found.sentence == "frozen, and on its way back, there by 2026-03-02T16:30Z"
    objects.now += 5 * HOUR
    found = waiting(objects, held)
    assert (found.state, found.expires_at) == (RestoreState.RESTORED, datetime(2026, 3, 4, tzinfo=UTC))
    assert found.sentence == "readable until 2026-03-04T00:00Z"
    objects.now = datetime(2026, 3, 4, tzinfo=UTC)
    assert waiting(objects, held).state is RestoreState.NOT_ASKED


def test_where_the_store_does_not_tell_nor_does_the_sentence() -> None:
    objects = Taciturn()
    held = files(objects, ["GLACIER"])
    bring_back(objects, held, want(Speed.BULK))
    assert waiting(objects, held) == Waiting(RestoreState.UNDER_WAY)
    assert waiting(objects, held).sentence == "frozen, and on its way back"


def test_nothing_waits_for_nothing() -> None:
    assert waiting(Bucket(), []) == Waiting(RestoreState.RESTORED)
