"""One week goes all the way down, comes back tier by tier with what still happens to it, and goes down again.

After each step the checker holds what is stored against what the client was told, and every conversation is read.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from core import ids, weeks
from core.archive import Speed
from core.errors import BlockedError, RefusedError
from core.ledger import Account, Run, TableState, Verdict, fingerprint
from core.moves import COLD_FROZEN, COLD_WARM, FROZEN_COLD, HOT_WARM, WARM_COLD, WARM_HOT, Move, State, Unit, is_due
from core.overlay import Row, canonical, row_of
from core.settings import Settings
from core.tiers import Tier
from jobs import attempt as attempts
from jobs import drop, fold, maintain, move, restore, thaw
from jobs import weeks as week_tables
from jobs.imports.landing import Sinks, as_runs, load_of
from lakehouse.paths import frozen_table_root
from lakehouse.publish import cold_files
from lakehouse.reader import read_page
from lakehouse.site import Site, opened
from schemas.events import Event
from tests.checker import Checker, Final, visible
from tests.client import Client, amended, reacted, sent, written_down
from tests.conftest import quiet

START = datetime(2025, 9, 1, tzinfo=UTC)  # a Monday
WEEK = weeks.of_instant(START)
CONVERSATIONS = 5
TALK = [
    sent(talk, START + timedelta(days=1, minutes=number), number, bytes((talk, number)) * 300)
    for talk in range(CONVERSATIONS)
    for number in range(24)
]
SEED = count(1)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


@dataclass(frozen=True)
class Way:
    config: Settings
    client: Client
    checker: Checker

    @property
    def regions(self) -> tuple[str]:
        return (self.client.region,)

    @property
    def unit(self) -> Unit:
        with opened(self.config, *self.regions) as site:
            found = site.ledger.unit(WEEK, 0)
            assert found
            return found

    def amend(self, now: datetime) -> None:
        """All that can happen to messages, each time to other ones, and a message that comes late."""
        seed = next(SEED)
        late = sent(seed % CONVERSATIONS, day(2), seed, b"came late")
        events: list[Event] = [*amended(TALK[seed * 7 % 100 :], now), late, reacted(late, now, 9)]
        self.client.send(events)
        self.client.wait_until_consumed()

    def move(self, now: datetime) -> None:
        move.run(None, self.config, now, self.regions, [WEEK], quiet)

    def drop(self, now: datetime) -> list[str]:
        self.judge(now)
        done = drop.run(None, self.config, now, self.regions, [WEEK], True, quiet)
        return list(done["regions"][self.client.region]["dropped"])

    def fold(self, now: datetime) -> None:
        assert fold.run(None, self.config, now, self.regions, [WEEK], quiet)["folded"] == 1

    def judge(self, now: datetime) -> None:
        """As the quality gate writes it down."""
        with opened(self.config, *self.regions) as site:
            if files := cold_files(site, self.unit):
                site.ledger.put_verdict(Verdict(WEEK, 0, fingerprint(files), "a suite", True, (), now))

    def thaw(self, now: datetime, **more: Any) -> dict[str, Any]:
        order = thaw.Order(
            **{"week": WEEK, "to": None, "days": 3, "account": Account("a test", "to see it come up"), "apply": True}
            | more
        )
        done = thaw.run(None, self.config, now, self.regions, order, quiet)
        return dict(done["regions"][self.client.region])

    def check_stored(self) -> None:
        self.client.wait_until_consumed()
        report = self.checker.report()
        assert report.faults == ()
        assert report.digest == report.expected_digest

    def check(self, now: datetime) -> None:
        self.check_stored()
        wanted = self.checker.expected()
        with opened(self.config, *self.regions, now) as site:
            for conversation in sorted({key[0] for key in wanted}):
                assert read_all(site, conversation) == visible(wanted, conversation)

    def expect(self, move: Move, state: State, tier: Tier) -> Unit:
        unit = self.unit
        assert (unit.move, unit.state, unit.tier) == (move, state, tier)
        return unit


def read_all(site: Site, conversation_id: bytes) -> list[Final]:
    found, before = list[Row](), None
    while True:
        page = read_page(site, conversation_id, before, 30)
        assert not page.missing
        found += page.rows
        before = page.before
        if before is None:
            return [final(row) for row in found]


def final(row: Row) -> Final:
    server_us = None if row.server_ts is None else (row.server_ts - ids.UNIX_EPOCH) // timedelta(microseconds=1)
    reactions = tuple((one.user_id, one.event_id, one.reaction) for one in row.reactions)
    plain = (row.conversation_id, row.message_id, row.sender_id, row.message_type, row.body, row.media_ref)
    return Final(*plain, row.reply_to, row.edit_id, row.deleted, server_us, reactions)


@pytest.fixture(scope="module")
def way(config: Settings, client: Client, checker: Checker, consumer: None) -> Way:
    """Files this small pay for their freeze in a hundred years only, and a read of them is done at once."""
    chosen = replace(
        config,
        frozen=replace(config.frozen, horizon_months=1200),
        clocks=replace(config.clocks, longest_read_seconds=1.0),
        maintenance=replace(config.maintenance, replaced_days=0, orphan_hours=0),
    )
    return Way(chosen, client, checker)


def test_a_week_comes_back_tier_by_tier_and_goes_down_again(way: Way) -> None:
    all_the_way_down(way)
    frozen_to_cold(way)
    cold_to_warm(way)
    warm_to_hot(way)
    down_again(way)


def all_the_way_down(way: Way) -> None:
    """With a frozen generation, a second one, and a supplement in cold that is not frozen yet."""
    week_tables.run(way.config, day(7), way.regions, quiet)
    way.client.send(TALK)
    way.amend(day(8))
    week_tables.run(way.config, day(14), way.regions, quiet)
    way.move(day(14))
    way.drop(day(15))
    way.move(day(37))
    way.drop(day(38))
    way.amend(day(39))
    way.fold(day(40))
    for later in (372, 380):
        freeze(way, day(later))
        assert way.drop(day(later + 1)) == [f"{way.unit.name}/cold"]
        way.amend(day(later + 2))
        way.fold(day(later + 3))
        way.check_stored()
    assert way.expect(COLD_FROZEN, State.OPEN, Tier.FROZEN).generation == 2
    assert way.unit.shards > 1


def freeze(way: Way, now: datetime) -> None:
    """A supplement as small as this never pays for its freeze."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(move, "why_not_freeze", lambda *_: None)
        way.move(now)


def frozen_to_cold(way: Way) -> None:
    now = day(390)
    dry = way.thaw(now, apply=False)
    assert (dry["to"], dry["thawed"]) == ("cold", [])
    assert "is frozen and not restored: ./firn restore 2025-W36" in dry["later"][way.unit.name]
    before = way.unit
    with pytest.raises(BlockedError, match="not restored"):
        way.thaw(now)
    assert replace(way.unit, epoch=0, revision=0) == replace(before, epoch=0, revision=0), "nothing was begun"
    restore.run(way.config, now, WEEK, way.regions, Speed.BULK, 3, False, quiet)
    with pytest.raises(BlockedError, match="on its way back, there by 2026-09-26T12:00Z"):
        way.thaw(now)
    now += timedelta(hours=12)
    way.amend(now)
    assert way.thaw(now)["thawed"] == [way.unit.name]
    thawed = way.expect(FROZEN_COLD, State.SWITCHED, Tier.COLD)
    assert (thawed.settled, thawed.generation) == (True, 0)
    way.check(day(400))  # the restored copies have gone since; nobody needs them
    assert way.thaw(now)["there"] == [thawed.name]
    assert "when that move has dropped its source" in way.thaw(now, to=Tier.WARM)["later"][thawed.name]
    assert way.drop(day(391)) == []
    frozen = [one[5] for one in way.checker.frozen()]
    assert way.drop(day(392)) == [f"{thawed.name}/frozen"]
    way.expect(FROZEN_COLD, State.DROPPED, Tier.COLD)
    assert way.checker.frozen() == []
    way.check(day(400))
    with opened(way.config, *way.regions) as site:
        assert all(site.objects.head(key) for key in frozen), "the bytes stay until maintain"
        maintain.run(way.config, day(393), way.regions, True, quiet)
        assert [site.objects.head(key) for key in frozen] == [None] * len(frozen)
        assert not [one.key for one in site.objects.list(f"{frozen_table_root(0)}/week={WEEK}/")]
    way.check(day(400))


def cold_to_warm(way: Way) -> None:
    """Held first: no move takes it down before the hold has ended, and a person who names it is told so."""
    now = day(393)
    way.amend(now)
    way.fold(now)
    assert way.unit.hold_until == day(393.5)
    assert not is_due(way.unit, now, way.config.tiers)
    assert is_due(way.unit, day(393.5), way.config.tiers)
    with pytest.raises(RefusedError, match="is held in cold until 2026-09-29T12:00Z"):
        way.move(now)
    way.amend(now + timedelta(minutes=1))
    history = import_while_it_thaws(way)
    assert way.thaw(now)["to"] == "warm"
    way.expect(COLD_WARM, State.SWITCHED, Tier.WARM)
    assert way.checker.in_lane(WEEK) == 0
    assert f"warm.messages_w{WEEK}" in way.checker.tables()
    assert table(way, Tier.WARM).generation == 2
    assert all(run.folded for run in runs(way))
    assert history.digest.rows == 3
    way.amend(now + timedelta(hours=1))
    assert way.checker.in_lane(WEEK) == 0, "warm takes writes in place"
    way.check(now)
    assert way.drop(day(394)) == [f"{way.unit.name}/cold"]
    way.expect(COLD_WARM, State.DROPPED, Tier.WARM)
    way.check(now)


def import_while_it_thaws(way: Way) -> Run:
    """A run that is registered after the seal, which no fold will come for."""
    messages = [sent(1, day(3), 900 + number, b"imported") for number in range(3)]
    load = load_of((WEEK, 0), "part", [canonical(row_of(message)) for message in messages])
    seal = move.seal

    def sealed(run: attempts.Attempt, units: list[Unit]) -> list[Unit]:
        done = seal(run, units)
        site = run.site
        write, send = site.db.hot.write, way.client.send
        as_runs(Sinks("i", "a" * 8, site.ledger, site.objects, write, send, 2000), [load])  # type: ignore[arg-type]
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(move, "seal", sealed)
        way.thaw(day(393))
    with way.client.log.open("a") as log:
        log.writelines(json.dumps(written_down(message)) + "\n" for message in messages)
    (run,) = runs(way)
    return run


def runs(way: Way) -> list[Run]:
    with opened(way.config, *way.regions) as site:
        return site.ledger.runs(WEEK, 0)


def table(way: Way, tier: Tier) -> Any:
    with opened(way.config, *way.regions) as site:
        (found,) = [one for one in site.ledger.tables() if (one.week, one.tier) == (WEEK, tier)]
        return found


def warm_to_hot(way: Way) -> None:
    now = day(395)
    assert way.thaw(now)["to"] == "hot"
    way.expect(WARM_HOT, State.SWITCHED, Tier.HOT)
    way.amend(now)
    way.check(now)
    assert way.drop(day(396)) == [f"{way.client.region}/2025-W36/warm"]
    assert table(way, Tier.WARM).state is TableState.DROPPED
    way.expect(WARM_HOT, State.DROPPED, Tier.HOT)
    assert way.thaw(now)["there"] == [way.unit.name], "no tier is above"
    way.check(now)


def down_again(way: Way) -> None:
    """As if it had never come up; a second freeze begins with the first generation."""
    assert way.thaw(day(396), to=Tier.HOT, days=0)["there"] == [way.unit.name]
    way.move(day(397))
    way.expect(HOT_WARM, State.SWITCHED, Tier.WARM)
    assert table(way, Tier.WARM).generation == 3
    way.drop(day(398))
    way.move(day(398))
    way.expect(WARM_COLD, State.SWITCHED, Tier.COLD)
    way.drop(day(399))
    freeze(way, day(399))
    assert way.drop(day(400)) == [f"{way.unit.name}/cold"]
    way.expect(COLD_FROZEN, State.DROPPED, Tier.FROZEN)
    assert {one[2] for one in way.checker.frozen()} == {0}
    way.check_stored()
