"""One conversation's week is walked through every tier, and `firn explain` is asked at each stop."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from core import weeks
from core.archive import Speed
from core.ledger import Verdict, fingerprint, lease_name
from core.moves import State, born_cold
from core.settings import Settings
from jobs import drop, fold, move, restore
from jobs import weeks as week_tables
from jobs.attempt import attempt
from lakehouse.index import load_index, read_row_groups
from lakehouse.publish import cold_files
from lakehouse.site import Site, opened
from ops.cli import main
from ops.explain import Explanation, NextTry, Step, explained
from ops.services import as_environment
from ops.whereabouts import gather, known_of
from stores import conversations
from tests.client import Client, conversation_uuid, edited, sent
from tests.conftest import quiet

START = datetime(2025, 11, 3, tzinfo=UTC)  # a Monday
WEEK = weeks.of_instant(START)
MESSAGES = 40
CONVERSATION = conversation_uuid(1)
Asking = Callable[..., Any]
_BYTES = random.Random(7)
TALK = [
    sent(talk, START + timedelta(days=1, minutes=number), number, _BYTES.randbytes(1000))
    for talk in range(1, 4)
    for number in range(MESSAGES)
]
MINE = [message for message in TALK if message.conversation_id == CONVERSATION]


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def instant(number: int) -> str:
    return f"{day(number):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True)
class Way:
    config: Settings
    client: Client
    site: Site

    @property
    def regions(self) -> tuple[str]:
        return (self.client.region,)

    def ask(self, now: datetime) -> Explanation:
        here = replace(self.site, now=now)
        known = known_of(here, conversations.weeks_of(here.db.hot, here.region, CONVERSATION))
        facts = gather(here, CONVERSATION, WEEK, now, known)
        return explained(facts, CONVERSATION, now, here.config.tiers, datetime.now(UTC))

    def amend(self, now: datetime, number: int) -> None:
        self.client.send([edited(MINE[number], now)])
        self.client.wait_until_consumed()

    def move(self, now: datetime) -> dict[str, Any]:
        report = move.run(None, self.config, now, self.regions, [WEEK], quiet)
        return dict(report["regions"][self.client.region])

    def drop(self, now: datetime) -> int:
        return int(drop.run(None, self.config, now, self.regions, [WEEK], True, quiet)["dropped"])

    def fold(self, now: datetime) -> None:
        assert fold.run(None, self.config, now, self.regions, [WEEK], quiet)["folded"] == 1

    def expect(self, now: datetime, step: Step, *, kept: str = "", **facts: Any) -> Explanation:
        """`kept` is a part of what keeps the step; nothing keeps it where that is empty."""
        found = self.ask(now)
        assert (found.step, kept in found.kept, bool(found.kept)) == (step, True, bool(kept)), found
        assert {name: getattr(found, name) for name in facts} == facts
        return found


@pytest.fixture(scope="module")
def small(config: Settings) -> Iterator[Settings]:
    """Files this small pay for their freeze in a hundred years only, and a read of them is done at once."""
    clocks = replace(config.clocks, longest_read_seconds=0.3)
    chosen = replace(config, frozen=replace(config.frozen, horizon_months=1200), clocks=clocks)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in as_environment(chosen).items():
            patch.setenv(name, value)
        week_tables.run(chosen, day(7), chosen.regions, quiet)
        yield chosen


@pytest.fixture
def site(small: Settings, region: str) -> Iterator[Site]:
    with opened(small, region) as here:
        yield here


@pytest.fixture
def asking(small: Settings, capsys: pytest.CaptureFixture[str]) -> Asking:
    def ask(*words: str, now: datetime = START, code: int = 0, conversation: bytes = CONVERSATION) -> Any:
        assert main(["explain", str(UUID(bytes=conversation)), *words, "--now", now.isoformat()]) == code
        shown = capsys.readouterr()
        return json.loads(shown.out) if "--json" in words else shown.out + shown.err

    return ask


@pytest.fixture
def way(small: Settings, client: Client, site: Site) -> Way:
    return Way(small, client, site)


def test_a_gate_that_no_consumer_opens_names_its_partitions(way: Way, site: Site) -> None:
    """First of all, before there is a consumer."""
    site.db.hot.write([[conversations.present(site.region, CONVERSATION, WEEK)]])
    unit = site.ledger.unit(WEEK, 0)
    assert unit
    assert site.ledger.change(unit, replace(unit.to(State.SEALED, 1), shards=2))
    route = site.ledger.next_route()
    found = way.expect(day(14), Step.COPY, kept=f"writers have not all obeyed route {route}: messages.")
    assert len(found.gate) == 2 * way.config.kafka.partitions
    sealed = site.ledger.unit(WEEK, 0)
    assert sealed
    assert site.ledger.change(sealed, replace(unit, revision=sealed.revision + 1))


def test_every_stop_is_explained(way: Way, site: Site, consumer: None) -> None:
    way.client.send(TALK)
    way.client.wait_until_consumed()
    hot_to_warm(way, site)
    warm_to_cold(way, site)
    late_changes_and_a_freeze(way, site)
    a_frozen_week(way)


def hot_to_warm(way: Way, site: Site) -> None:
    young = way.expect(day(8), Step.WAIT, kept="it leaves hot for warm", target="hot", actual="hot", state="open")
    assert young.next_try == NextTry(day(14), "tier")
    assert [place.name for place in young.places] == [f"{site.region}_hot.messages_w{WEEK}"]
    week_tables.run(way.config, day(14), way.regions, quiet)
    due = way.expect(day(14), Step.SEAL, target="warm", actual="hot", due_since=day(14))
    assert due.next_try.when == day(15)
    words = f"./firn move --now {instant(14)} --region {site.region} --week {weeks.label(WEEK)}"
    assert due.next_try.command == words

    with attempt(None, way.config, site.region, day(14), quiet) as run:
        units, _ = run.take(move.due_units(run, [WEEK]), lambda _: True)
        lease = site.ledger.lease(lease_name(units[0]))
        assert lease
        held = {"holder": lease.holder, "epoch": lease.epoch}
        units = move.seal(run, units)
        way.amend(day(14), 0)
        sealed = way.expect(day(14), Step.COPY, kept=lease.holder, lane_events=1, shards=2, gate=(), **held)
        assert sealed.next_try.when == sealed.held_until
        assert sealed.fold == "warm takes it in when the switch is settled"
        units = move.copy(run, units)
        way.expect(day(14), Step.VERIFY, kept=lease.holder, copied=2, verified=0, actual="hot")
        units = move.verify(run, units)
        way.expect(day(14), Step.SWITCH, kept=lease.holder, copied=2, verified=2, actual="hot")
        move.switch(run, units)
        switched = way.expect(day(14), Step.SETTLE, kept=lease.holder, actual="warm")
        assert [place.tier for place in switched.places] == ["hot", "warm"]
    way.expect(day(14), Step.SETTLE, holder="", lane_events=1)

    way.move(day(14))
    waits = way.expect(day(14), Step.DROP, kept="is in grace until", lane_events=0)
    assert waits.next_try == NextTry(day(15), "drop")
    way.expect(day(15), Step.DROP)
    assert way.drop(day(15)) == 1
    way.expect(day(15), Step.WAIT, kept="it leaves warm for cold", actual="warm", state="dropped")


def warm_to_cold(way: Way, site: Site) -> None:
    way.expect(day(37), Step.SEAL, target="cold", actual="warm")
    way.move(day(37))
    switched = way.expect(day(37), Step.DROP, kept="is in grace until", actual="cold")
    assert [place.tier for place in switched.places] == ["warm", "cold"]
    unjudged = way.expect(day(38), Step.JUDGE, kept="the quality gate has not judged its cold files yet")
    assert unjudged.next_try.dag == "tier"
    judge(site, day(38), "sent_at lies in its week")
    failed = way.expect(day(38), Step.JUDGE, kept="its cold files break: sent_at lies in its week")
    assert failed.verdict.startswith("failed at")
    judge(site, day(38))
    passed = way.expect(day(38), Step.DROP)
    assert passed.verdict.startswith("passed at")
    with cut_short(site, max(one.key for one in site.objects.list("lake/messages/s000/_delta_log/"))):
        way.expect(day(38), Step.REPAIR, kept="_delta_log", places=passed.places)
    way.expect(day(38), Step.DROP)
    assert way.drop(day(38)) == 1
    rest = way.expect(day(38), Step.WAIT, kept="it leaves cold for frozen", actual="cold", state="dropped")
    rows_are_where_it_says(site, rest)


@contextmanager
def cut_short(site: Site, key: str) -> Iterator[None]:
    whole = site.objects.get(key)
    site.objects.put(key, whole[: len(whole) // 2])
    yield
    site.objects.put(key, whole)


def judge(site: Site, now: datetime, *failed: str) -> None:
    """As the quality gate writes it down."""
    unit = site.ledger.unit(WEEK, 0)
    assert unit
    files = fingerprint(cold_files(site, unit))
    site.ledger.put_verdict(Verdict(WEEK, 0, files, "a suite", not failed, failed, now))


def rows_are_where_it_says(site: Site, found: Explanation) -> None:
    """All of the conversation's messages are in the bytes that it names, and in no fewer row groups."""
    (place,) = found.places
    index = load_index(site.objects, place.name)
    rows = read_row_groups(site.objects, index, place.groups)
    assert rows["conversation_id"].to_pylist().count(CONVERSATION) == MESSAGES
    assert rows.num_rows == place.rows
    data = site.objects.get(place.name)
    for number in place.groups:
        group = index.groups[number]
        assert place.offset <= group.offset
        assert group.offset + group.length <= place.offset + place.length_bytes <= len(data)


def late_changes_and_a_freeze(way: Way, site: Site) -> None:
    way.amend(day(40), 1)
    late = way.expect(day(40), Step.FOLD, lane_events=1, fold="the next fold takes it in")
    assert late.next_try.command.startswith("./firn fold ")
    way.fold(day(40))
    way.expect(day(40), Step.WAIT, lane_events=0, kept="it leaves cold for frozen")
    stingy = replace(way.config, frozen=replace(way.config.frozen, horizon_months=12))
    dear = replace(way, site=replace(site, config=stingy)).expect(
        day(372), Step.SEAL, kept="so it stays in cold", target="frozen", actual="cold"
    )
    assert dear.next_try == NextTry(day(373), "tier")
    way.expect(day(372), Step.SEAL)
    way.move(day(372))
    way.amend(day(372), 2)
    waits = way.expect(day(372), Step.DROP, kept="is in grace until", actual="cold", state="switched")
    assert waits.fold.endswith("it is folded when that move has dropped its source")
    judged_before = way.expect(day(373), Step.JUDGE, kept="not judged its cold files yet")
    assert judged_before.verdict.startswith("of other files")
    judge(site, day(373))
    assert way.drop(day(373)) == 1


def a_frozen_week(way: Way) -> None:
    frozen = way.expect(day(374), Step.FOLD, target="frozen", actual="frozen", state="dropped", lane_events=1)
    (place,) = frozen.places
    assert (place.storage_class, place.generation) == ("GLACIER", 0)
    assert place.restore == "frozen, and nobody has asked for it: ./firn restore brings it back"
    assert place.length_bytes > 0
    restore.run(way.config, day(374), WEEK, way.regions, Speed.BULK, 3, False, quiet)
    states = [way.ask(day(at)).places[0].restore_state for at in (374.2, 374.5, 379)]
    assert states == ["under way", "restored", "not asked"]
    way.fold(day(380))
    supplement = way.expect(
        day(380), Step.SEAL, kept="so it stays in cold", generation=1, state="open", actual="frozen"
    )
    assert [place.tier for place in supplement.places] == ["cold", "frozen"]


def test_a_person_reads_the_whole_story(asking: Asking, region: str, way: Way) -> None:
    text = asking(weeks.label(WEEK), now=day(380))
    for words in ("frozen, where its age puts it", "generation 1", "next is to seal it", "nobody; the last epoch is"):
        assert words in text
    lines = asking(now=day(380)).splitlines()
    (line,) = [line for line in lines if line.startswith(weeks.label(WEEK))]
    assert "GLACIER (not asked)" in line
    assert "so it stays in cold" in line
    assert [one["week"] for one in asking("--json")["weeks"]] == [weeks.label(WEEK)]


def test_a_week_without_the_conversation_is_explained_all_the_same(asking: Asking, site: Site) -> None:
    assert site.ledger.create(replace(born_cold(site.region, WEEK - 60, 0), shards=1))
    found = asking(weeks.label(WEEK - 60), "--json")
    assert found["presence"] == "the conversation has nothing in this week"
    assert (found["step"], found["actual"]) == ("repair", "cold")
    assert "no pointer leads to a file" in found["blocking"]
    never = asking(weeks.label(WEEK - 61), "--json")
    assert (never["state"], never["actual"], never["step"]) == (None, "cold", "none")
    coming = asking(weeks.label(WEEK + 20), "--json")
    assert (coming["actual"], coming["step"], coming["next_try"]["dag"]) == (None, "tables", "weeks")


def test_an_unknown_conversation_is_refused_without_naming_it(asking: Asking) -> None:
    unknown = conversation_uuid(99)
    text = asking(weeks.label(WEEK), code=2, conversation=unknown)
    assert "no such conversation" in text
    assert str(UUID(bytes=unknown)) not in text
