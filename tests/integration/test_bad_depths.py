"""Bad luck below warm: a full disk in a fold, altered files and objects, a vault without the right key.

Each test has a week of its own; each time nothing is lost, and the same command goes on once the fault is gone.
"""

import base64
import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core import weeks
from core.archive import Speed
from core.errors import BlockedError, DamagedError, FirnError, RefusedError
from core.ledger import Pointer
from core.moves import Unit
from core.sealing import KEY_BYTES
from core.settings import Secret, Settings
from jobs import attempt as attempts
from jobs import drop, fold, move, restore
from jobs import weeks as week_tables
from lakehouse import reader
from lakehouse.census import count
from lakehouse.reader import read_page
from lakehouse.site import Site, opened
from quality import run as quality
from schemas.events import MessageSent
from stores.directory import DirectoryObjects
from tests.checker import Checker
from tests.client import Client, conversation_uuid, edited, sent
from tests.conftest import quiet

START = datetime(2024, 3, 4, tzinfo=UTC)  # a Monday; none of these weeks ever had a table
FIRST = weeks.of_instant(START)
NOW = START + timedelta(days=7 * 64)  # all of them are over a year old
SPANS = 10
CONVERSATIONS = 3
MESSAGES = 24


def message(number: int, week: int) -> MessageSent:
    when = weeks.start(week) + timedelta(hours=1 + number)
    return sent(number % CONVERSATIONS, when, number, bytes((number,)) * 3000)


@dataclass(frozen=True)
class Region:
    config: Settings
    client: Client
    checker: Checker

    @property
    def name(self) -> str:
        return self.client.region

    def fold(self, week: int, config: Settings | None = None) -> dict[str, Any]:
        return fold.run(None, config or self.config, NOW, (self.name,), [week], quiet)

    def freeze(self, week: int, config: Settings | None = None) -> list[str]:
        report = move.run(None, config or self.config, NOW, (self.name,), [week], quiet)
        return list(report["regions"][self.name]["moved"])

    def freeze_anyway(self, week: int) -> None:
        """Whatever it costs."""
        with attempts.attempt(None, self.config, self.name, NOW, quiet) as run:
            taken, _ = run.take(move.due_units(run, [week]), lambda _: True)
            frozen = move.switch(run, move.verify(run, move.copy(run, move.seal(run, taken))))
            move.settle(run, frozen)
        assert len(frozen) == 1

    def drop(self, week: int) -> dict[str, Any]:
        then = NOW + timedelta(days=1)
        quality.run(self.config, then, (self.name,), [week], quiet)
        return drop.run(None, self.config, then, (self.name,), [week], True, quiet)

    def file(self, week: int) -> Path:
        return self.checker.root(0) / self.checker.pointers(week, 0, 1)[0][0]

    def object(self, week: int) -> Path:
        (key,) = [row[5] for row in self.checker.frozen() if row[0] == week]
        return self.checker.place.bucket / str(key)

    def edit(self, week: int) -> None:
        self.client.send([edited(message(0, week), NOW)])
        self.client.wait_until_consumed()

    def check(self) -> None:
        self.client.wait_until_consumed()
        report = self.checker.report()
        assert report.faults == ()
        assert report.digest == report.expected_digest

    def state(self, week: int) -> tuple[str, str]:
        return self.checker.states()[week]

    def read(self, week: int, now: datetime) -> int:
        with opened(self.config, self.name, now) as site:
            pages = [read_page(site, conversation_uuid(number), None, 500) for number in range(CONVERSATIONS)]
        return sum(weeks.of_id(row.message_id) == week for page in pages for row in page.rows)


@pytest.fixture(scope="module")
def place(config: Settings, client: Client, checker: Checker, consumer: None) -> Region:
    """The first half of the weeks is folded; what happens to the others is in the lane."""
    patient = replace(
        config,
        frozen=replace(config.frozen, horizon_months=1200),
        layout=replace(config.layout, shard_bytes=10**6),
    )
    week_tables.run(config, NOW, (client.region,), quiet)
    client.send(message(number, FIRST + week) for week in range(SPANS) for number in range(MESSAGES))
    client.wait_until_consumed()
    folded = range(FIRST, FIRST + SPANS - 1)
    fold.run(None, patient, NOW, (client.region,), folded, quiet)
    return Region(patient, client, checker)


@pytest.fixture(autouse=True)
def nothing_is_lost(place: Region) -> Iterator[None]:
    yield
    place.check()


@contextmanager
def refused(kind: type[FirnError], *words: str) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    text = str(caught.value)
    assert all(word in text for word in words), text


def alter(path: Path) -> bytes:
    """Returns what it was."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes((data[len(data) // 2] ^ 1,)) + data[len(data) // 2 + 1 :])
    return data


def test_a_disk_that_fills_during_a_fold(place: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first fold of a week, at the file that is put; then with room again."""
    week = FIRST + SPANS - 1
    in_lane = place.checker.in_lane(week)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryObjects, "_publish", full)
        with refused(BlockedError, "no space is left on the disk of bucket", "run the same command again"):
            place.fold(week)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", full)
        with refused(BlockedError, "no space is left on the disk of a task", "run the same command again"):
            place.fold(week)
    assert place.checker.in_lane(week) == in_lane == MESSAGES
    place.check()
    assert place.fold(week)["folded"] == 1
    assert place.checker.in_lane(week) == 0


def test_a_cold_file_that_was_altered_is_not_folded(place: Region) -> None:
    week = FIRST
    place.edit(week)
    before = alter(place.file(week))
    with refused(DamagedError, f"week={week}", "SHA-256 differs"):
        place.fold(week)
    assert place.checker.in_lane(week) == 1
    place.file(week).write_bytes(before)
    assert place.fold(week)["folded"] == 1


def test_a_cold_file_that_was_altered_is_not_frozen(place: Region) -> None:
    week = FIRST + 1
    before = alter(place.file(week))
    with refused(DamagedError, f"week={week}"):
        place.freeze(week)
    assert place.state(week) == ("cold", "open")
    place.file(week).write_bytes(before)
    assert len(place.freeze(week)) == 1


def test_without_the_right_wrapping_key_nothing_is_sealed_or_opened(place: Region) -> None:
    week = FIRST + 2
    none = replace(place.config, vault=replace(place.config.vault, wrapping_key=Secret("")))
    with refused(RefusedError, "no wrapping key", "FIRN_VAULT__WRAPPING_KEY"):
        place.freeze(week, none)
    other = Secret(base64.b64encode(bytes(KEY_BYTES)).decode())
    place.freeze(FIRST + 1)  # so that the vault has keys
    with refused(DamagedError, "is wrapped by", "set vault.wrapping_key"):
        place.freeze(week, replace(place.config, vault=replace(place.config.vault, wrapping_key=other)))
    assert len(place.freeze(week)) == 1


def test_a_person_who_was_erased_holds_a_freeze_back(place: Region) -> None:
    """Their rows are still in the cold file: they may neither be sealed nor be left out. Nor may the unit stay sealed,
    for it is a fold that will take them out."""
    week = FIRST + 3
    stranger = sent(77, weeks.start(week) + timedelta(days=2), 0, b"x" * 100)
    stranger = replace(stranger, sender_id=10**6)
    place.client.send([stranger])
    place.client.wait_until_consumed()
    place.fold(week)
    with opened(place.config, place.name) as site:
        site.vault.destroy(stranger.sender_id)
    with refused(BlockedError, "still holds values of a person who was erased", "nothing was frozen"):
        place.freeze(week)
    assert place.state(week) == ("cold", "open")
    assert place.read(week, NOW) == MESSAGES
    place.edit(week)
    assert place.fold(week)["folded"] == 1


def test_an_object_that_the_store_lost_before_the_proof_is_frozen_anew(place: Region) -> None:
    week = FIRST + 4
    with attempts.attempt(None, place.config, place.name, NOW, quiet) as run:
        taken, _ = run.take(move.due_units(run, [week]), lambda _: True)
        (copied,) = move.copy(run, move.seal(run, taken))
        lost = place.object(week)
        lost.unlink()
        (verified,) = move.verify(run, [copied])
        assert verified.epoch > copied.epoch
        move.settle(run, move.switch(run, [verified]))
    assert place.object(week) != lost


def test_an_object_that_was_altered_holds_the_drop_back(place: Region) -> None:
    week = FIRST + 5
    place.freeze(week)
    before = alter(place.object(week))
    with refused(DamagedError, "nothing was dropped"):
        place.drop(week)
    assert place.state(week) == ("cold", "switched")
    place.object(week).write_bytes(before)
    assert place.drop(week)["dropped"] == 1


def test_what_comes_after_the_freeze_is_frozen_in_its_turn(place: Region) -> None:
    """As a supplement, twice; restored, the two generations and the lane read as one."""
    week, then = FIRST + 7, NOW + timedelta(days=2)
    for generation, number in enumerate((0, 1, 2)):
        place.freeze_anyway(week)
        place.check()
        assert place.drop(week)["dropped"] == 1
        place.check()
        assert sorted(row[2] for row in place.checker.frozen() if row[0] == week) == list(range(generation + 1))
        place.client.send([edited(message(number, week), NOW)])
        place.client.wait_until_consumed()
        if number < 2:
            assert place.fold(week)["folded"] == 1
    restore.run(place.config, then, week, (place.name,), Speed.BULK, 5, False, quiet)
    with opened(place.config, place.name, then + timedelta(hours=12)) as site:
        pages = [read_page(site, conversation_uuid(number), None, 500) for number in range(CONVERSATIONS)]
    mine = [row for page in pages for row in page.rows if weeks.of_id(row.message_id) == week]
    assert len(mine) == MESSAGES
    assert sum(row.edit_id is not None for row in mine) == 3
    with opened(place.config, place.name, then + timedelta(hours=12)) as site:
        (unit,) = [unit for unit in site.ledger.units() if unit.week == week]
        assert count(site, unit).messages == MESSAGES


def test_a_reader_who_is_overtaken_by_a_drop_looks_again(place: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    week = FIRST + 8
    place.freeze(week)
    real, drops = reader._pointer, [place.drop]

    def overtaken(site: Site, unit: Unit, conversation_id: bytes) -> Pointer | None:
        if unit.week == week and drops:
            assert drops.pop()(week)["dropped"] == 1
        return real(site, unit, conversation_id)

    monkeypatch.setattr(reader, "_pointer", overtaken)
    patient = replace(place.config, clocks=replace(place.config.clocks, longest_read_seconds=60))
    with opened(patient, place.name, NOW) as site:
        page = read_page(site, conversation_uuid(0), None, 500)
    assert not drops
    assert week in page.missing


def test_a_frozen_object_that_was_altered_is_named_when_it_is_read(place: Region) -> None:
    week, then = FIRST + 6, NOW + timedelta(days=2)
    place.freeze(week)
    place.drop(week)
    restore.run(place.config, then, week, (place.name,), Speed.BULK, 5, False, quiet)
    then += timedelta(hours=12)
    assert place.read(week, then) == MESSAGES
    before = alter(place.object(week))
    with refused(DamagedError, f"week={week}"):
        place.read(week, then)
    place.object(week).write_bytes(before)
    assert place.read(week, then) == MESSAGES
