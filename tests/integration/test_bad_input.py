"""Bad input to jobs, stores and files: a clear typed error that says what to do, nothing dropped, and the same command
finishes once the fault is gone.

Each test has a week of its own; after each the checker finds every row that was ever acknowledged.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pyspark.sql import SparkSession

from core import ids, weeks
from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError, RefusedError
from core.moves import State
from core.settings import Settings
from core.tiers import Tier
from jobs import attempt as attempts
from jobs import drop, move
from jobs import weeks as week_tables
from lakehouse.reader import read_page
from lakehouse.session import spread, succeeded
from lakehouse.site import Site, opened
from quality import run as quality
from schemas.events import encode
from stores import kafka, messages
from stores.directory import DirectoryObjects
from stores.objects import MARKER_KEY, NotFoundError
from tests.checker import Checker
from tests.client import Client, conversation_uuid, edited, sent
from tests.conftest import quiet

START = datetime(2025, 6, 2, tzinfo=UTC)  # a Monday
FIRST = weeks.of_instant(START)
SPANS = 6
MESSAGES = 40
CONVERSATIONS = 12
SHARD_BYTES = 12_000  # makes four shards of a week


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def message(week: int, number: int = 0) -> Any:
    when = day(7 * (week - FIRST)) + timedelta(hours=1 + number)
    return sent(number % CONVERSATIONS, when, number, bytes([number]) * 900)


NEXT_COLD = range(FIRST + 4, FIRST + SPANS)
DUE = day(7 * SPANS + 8)
DUE_COLD = day(7 * SPANS + 31)


@dataclass(frozen=True)
class Region:
    config: Settings
    client: Client
    checker: Checker

    @property
    def name(self) -> str:
        return self.client.region

    def move(self, week: int, now: datetime = DUE) -> list[str]:
        report = move.run(None, self.config, now, (self.name,), [week], quiet)
        return list(report["regions"][self.name]["moved"])

    def drop(self, week: int, now: datetime) -> int:
        return int(drop.run(None, self.config, now, (self.name,), [week], True, quiet)["dropped"])

    def state(self, week: int) -> tuple[str, str]:
        return self.checker.states()[week]

    def file(self, week: int) -> Path:
        return self.checker.root(0) / self.checker.pointers(week, 0, 1)[0][0]

    def cql(self, statement: str, *params: object) -> None:
        self.checker.session.execute(statement.replace("{region}", self.name), params or None)

    def check(self) -> None:
        self.client.wait_until_consumed()
        report = self.checker.report()
        assert report.faults == ()
        assert report.digest == report.expected_digest


@pytest.fixture(scope="module")
def place(config: Settings, client: Client, checker: Checker, consumer: None) -> Region:
    """The weeks of NEXT_COLD lie in warm already. All without Spark: what it makes of errors has a test of its own."""
    week_tables.run(config, day(7), (client.region,), quiet)
    week_tables.run(config, day(7 * SPANS), (client.region,), quiet)
    client.send(message(FIRST + week, number) for week in range(SPANS) for number in range(MESSAGES))
    client.wait_until_consumed()
    move.run(None, config, DUE, (client.region,), NEXT_COLD, quiet)
    dropped = drop.run(None, config, DUE + timedelta(days=1), (client.region,), NEXT_COLD, True, quiet)
    assert dropped["dropped"] == len(NEXT_COLD)
    return Region(config, client, checker)


@pytest.fixture(autouse=True)
def _checked(place: Region) -> Iterator[None]:
    """Every row is there at the end."""
    yield
    place.check()


@contextmanager
def refused(kind: type[FirnError], what: str, do: str) -> Iterator[None]:
    """Exactly `kind`, with these words in what happened and in what to do next."""
    with pytest.raises(kind) as caught:
        yield
    assert type(caught.value) is kind
    assert what in caught.value.what
    assert do in caught.value.do


@pytest.mark.parametrize("job", [move, drop, week_tables])
def test_an_unknown_region(job: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main(["--now", DUE.isoformat(), "--region", "nowhere"]) == RefusedError.exit_code
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["error"] == "RefusedError"
    assert "region 'nowhere' is not one of" in told["what"]
    assert "name a configured region" in told["do"]


def test_an_unknown_week(place: Region) -> None:
    for job in (place.move, place.drop):
        with refused(RefusedError, "knows no week 2015-W", "./firn status"):
            job(FIRST - 520, DUE)


def test_a_week_that_is_not_old_enough(place: Region) -> None:
    week, too_soon = FIRST, day(13)
    with refused(RefusedError, "not 7 days old yet", "give a later --now"):
        place.move(week, too_soon)
    assert place.state(week) == ("hot", "open")
    assert len(place.move(week)) == 1
    assert place.drop(week, DUE) == 0  # in its grace
    assert place.state(week) == ("hot", "switched")
    assert place.drop(week, DUE + timedelta(days=1)) == 1


def test_a_state_that_is_none_of_ours(place: Region) -> None:
    week = FIRST + 1
    set_state = "UPDATE {region}_meta.moves SET state = %s WHERE region = %s AND week = %s AND slice = 0 IF EXISTS"
    place.cql(set_state, "melted", place.name, week)
    for job in (place.move, place.drop):
        with refused(DamagedError, "the ledger says 'melted' where a State belongs", "set the row right"):
            job(week, DUE)
    place.cql(set_state, "open", place.name, week)
    assert len(place.move(week)) == 1


def test_a_state_that_was_never_proven(place: Region) -> None:
    """Somebody writes `switched` into the ledger: no part stands behind it, so the only copy is not dropped."""
    week = FIRST + 2
    set_state = (
        "UPDATE {region}_meta.moves SET state = %s, settled = %s, switched_at = %s, shards = 2 "
        "WHERE region = %s AND week = %s AND slice = 0 IF EXISTS"
    )
    place.cql(set_state, "switched", True, DUE, place.name, week)
    with refused(DamagedError, "not all of its parts are verified", "nothing was dropped"):
        place.drop(week, DUE + timedelta(days=1))
    assert f"hot.messages_w{week}" in place.checker.tables()
    place.cql(set_state, "open", False, None, place.name, week)
    assert len(place.move(week)) == 1
    assert place.drop(week, DUE + timedelta(days=1)) == 1


def test_a_state_that_does_not_follow(place: Region) -> None:
    week = FIRST + 3
    with opened(place.config, place.name) as site:
        unit = site.ledger.unit(week, 0)
        assert unit is not None
        with refused(RefusedError, "is open (hot → warm); verified does not follow", "./firn status"):
            unit.to(State.VERIFIED, unit.epoch)
        assert site.ledger.unit(week, 0) == unit


def test_a_missing_sink_table(place: Region) -> None:
    week = FIRST + 3
    place.cql(f"DROP TABLE {{region}}_warm.reactions_w{week}")
    with refused(DamagedError, f"table reactions_w{week} is missing in {place.name}_warm", "nothing was dropped"):
        place.move(week)
    assert place.state(week)[0] == "hot"
    with opened(place.config, place.name) as site:
        messages.create_tables(site.db.warm, place.name, Tier.WARM, week, week_tables.GENERATION)
    assert len(place.move(week)) == 1


def test_a_missing_table_holds_the_consumer_back(place: Region) -> None:
    """What cannot be written now waits in the log; it is no dead letter and it is not lost."""
    week, before = FIRST + SPANS, dead_letters(place)
    place.cql(f"DROP TABLE {{region}}_hot.messages_w{week}")
    place.client.send(message(week, number) for number in range(5))
    behind = [state for state in kafka.positions(place.config.kafka, place.name) if state.committed != state.end]
    assert behind
    with opened(place.config, place.name) as site:
        messages.create_tables(site.db.hot, place.name, Tier.HOT, week, week_tables.GENERATION)
    place.check()
    assert dead_letters(place) == before


def test_a_foreign_bucket(place: Region) -> None:
    """Of another region, then of somebody who is not firn at all; the next test drops what this one moved."""
    week = FIRST + 4
    bucket = DirectoryObjects(place.checker.place.bucket)
    bucket.put(MARKER_KEY, b"elsewhere\n")
    with refused(RefusedError, "belongs to region 'elsewhere'", "correct objects.url"):
        place.move(week, DUE_COLD)
    bucket.delete(MARKER_KEY)
    bucket.put("holiday.jpg", b"not ours")
    with refused(RefusedError, "it is not firn's", "name an empty bucket or ours"):
        place.move(week, DUE_COLD)
    assert place.state(week) == ("warm", "open")
    bucket.delete("holiday.jpg")
    bucket.put(MARKER_KEY, place.name.encode())
    assert len(place.move(week, DUE_COLD)) == 1


def test_a_damaged_file_is_read_by_nobody_and_keeps_its_source(place: Region) -> None:
    week = FIRST + 4
    path = place.file(week)
    good = path.read_bytes()
    later = DUE_COLD + timedelta(days=1)
    quality.run(place.config, later, (place.name,), [week], quiet)
    for damaged in (altered(good), good[: len(good) // 2]):
        path.write_bytes(damaged)
        with refused(DamagedError, "is damaged", "nothing was dropped"):
            place.drop(week, later)
        with refused(DamagedError, "is damaged", "nothing was dropped"):
            read_all(place, week)
        assert f"warm.messages_w{week}" in place.checker.tables()
        assert place.state(week) == ("warm", "switched")
    path.write_bytes(good)
    assert read_all(place, week) > 0
    assert place.drop(week, later) == 1


def altered(data: bytes) -> bytes:
    """One bit in each page or so."""
    return bytes(byte ^ (at % 97 == 5) for at, byte in enumerate(data[:-2000])) + data[-2000:]


def read_all(place: Region, week: int) -> int:
    """Rows of the week in all conversations, page by page."""
    found = 0
    with opened(place.config, place.name) as site:
        for number in range(CONVERSATIONS):
            before: bytes | None = ids.compose(microseconds(weeks.end(week)), 0, 0)
            while before is not None and weeks.of_id(before) >= week:
                page = read_page(site, conversation_uuid(number), before, 50)
                found += sum(weeks.of_id(row.message_id) == week for row in page.rows)
                before = page.before
    return found


def microseconds(when: datetime) -> int:
    return (when - ids.UNIX_EPOCH) // timedelta(microseconds=1)


def test_a_file_that_does_not_read_back_is_copied_anew(place: Region) -> None:
    """Between copy and proof: sealed again under a new epoch, and nothing points to the bad files any more."""
    week = FIRST + 5
    with attempt(place, DUE_COLD) as run:
        taken, _ = run.take(move.due_units(run, [week]), lambda _: True)
        (copied,) = move.copy(run, move.seal(run, taken))
        paths = [place.checker.root(0) / path for path, *_ in place.checker.pointers(week, 0, 4).values()]
        first, second, third, _ = paths
        first.write_bytes(altered(first.read_bytes()))
        second.write_bytes(second.read_bytes()[:-1])
        third.unlink()
        (verified,) = move.verify(run, [copied])
        assert verified.state is State.VERIFIED
        assert verified.epoch > copied.epoch
        move.settle(run, move.switch(run, [verified]))
    now_named = {place.checker.root(0) / path for path, *_ in place.checker.pointers(week, 0, 4).values()}
    assert len(now_named) == 4
    assert not now_named & set(paths)
    assert read_all(place, week) == MESSAGES


@contextmanager
def attempt(place: Region, now: datetime) -> Iterator[attempts.Attempt]:
    config = replace(place.config, layout=replace(place.config.layout, shard_bytes=SHARD_BYTES))
    with attempts.attempt(None, config, place.name, now, quiet) as run:
        yield run


def dead_letters(place: Region) -> list[str]:
    return sorted(letter.reason for letter in kafka.read_dead_letters(place.config.kafka, place.name, 1000))


def test_malformed_events_are_set_aside_with_their_reasons(place: Region) -> None:
    week, before = FIRST + SPANS, dead_letters(place)
    good = message(week, 20)
    payload = encode(good)
    ahead = sent(1, datetime.now(UTC) + timedelta(days=3))
    bad = {
        "not a single-object event": (good.conversation_id, b"hello"),
        "unknown schema fingerprint": (good.conversation_id, payload[:2] + bytes(8) + payload[10:]),
        "MessageSent does not decode (EOFError)": (good.conversation_id, payload[:40]),
        "MessageSent has bytes after its end": (good.conversation_id, payload + b"\x00"),
        "its key is another conversation": (conversation_uuid(99), payload),
        "it is more than a day ahead of the log": (ahead.conversation_id, encode(ahead)),
    }
    for key, value in bad.values():
        place.client.send_bytes(key, value)
    place.client.send([good])
    place.check()
    assert dead_letters(place) == sorted([*before, *bad])


def test_a_malformed_event_in_the_lane(place: Region) -> None:
    """It stops the one thing that would forget it: taking in the lane, which it is part of."""
    week = FIRST + 1
    conversation = UUID(bytes=conversation_uuid(0))
    columns = ("region", "week", "ring_slice", "conversation_id", "message_id", "event_id", "user_id")
    key = " AND ".join(f"{column} = %s" for column in columns)
    with opened(place.config, place.name) as site:
        statement = site.lane.write(week, edited(message(week), DUE))
        values = list(statement.params[: len(columns)])
        site.db.hot.write([[statement]])
    assert conversation == values[3]
    reopened = "UPDATE {region}_meta.moves SET settled = false WHERE region = %s AND week = %s AND slice = 0 IF EXISTS"
    place.cql(reopened, place.name, week)
    place.cql(f"UPDATE {{region}}_hot.lane SET event = 0xbad0 WHERE {key}", *values)
    with refused(DamagedError, "holds an event that not a single-object event", "before it is folded"):
        place.move(week)
    place.cql(f"DELETE FROM {{region}}_hot.lane WHERE {key}", *values)
    assert len(place.move(week)) == 1


FAULTS = [
    (RefusedError("what", "do"), RefusedError),
    (BlockedError("what", "do"), BlockedError),
    (DamagedError("what", "do"), DamagedError),
    (OutcomeUnknownError("what", "do"), OutcomeUnknownError),
    (NotFoundError("lost"), RefusedError),  # a leaf with a constructor of its own comes as its branch
]


def raises_a(_: Site, fault: int) -> str:
    """By number: an error with a constructor of its own would not even reach the task. -1 is none."""
    if fault >= 0:
        raise FAULTS[fault][0]
    return "done"


def test_errors_in_spark_tasks_keep_their_kinds_and_leave_the_others_alone(place: Region, spark: SparkSession) -> None:
    outcomes = spread(spark, place.config, place.name, raises_a, [*range(len(FAULTS)), -1])
    assert outcomes.pop() == "done"
    for outcome, (fault, kind) in zip(outcomes, FAULTS, strict=True):
        with refused(kind, fault.what, fault.do):
            succeeded([outcome])
