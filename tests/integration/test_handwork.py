"""What operators do and see: overrides with their audit, stuck units, phantoms, and guards that refuse.

A region with one week that is moved down, on the way of which things go wrong.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core import weeks
from core.errors import BlockedError, DamagedError, RefusedError
from core.ledger import OVERRIDE, Account, Verdict, fingerprint, lease_name
from core.lifecycle import Rule
from core.moves import COLD_WARM, State, Unit, born_cold
from core.settings import Settings
from core.tiers import Tier
from jobs import drop, fold, move, override, thaw
from jobs import weeks as week_tables
from jobs.attempt import attempt
from jobs.override import Order
from lakehouse.paths import index_key, table_root
from lakehouse.publish import cold_files
from lakehouse.site import Site, opened
from ops import phantoms
from ops.cli import main
from ops.services import as_environment
from stores import messages
from stores.directory import DirectoryObjects
from stores.leases import keeping
from tests.checker import Checker
from tests.client import Client, amended, sent
from tests.conftest import bucket, quiet

START = datetime(2025, 9, 1, tzinfo=UTC)  # a Monday
WEEK = weeks.of_instant(START)
TALK = [
    sent(one, START + timedelta(days=1, minutes=at), at, bytes((one, at)) * 300) for one in range(4) for at in range(20)
]
WHY = Account("someone", "a consumer stood still")
Command = Callable[..., Any]


def day(number: float) -> datetime:
    return START + timedelta(days=number)


@dataclass(frozen=True)
class Scene:
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

    def sealed(self, now: datetime, *steps: Callable[..., list[Unit]]) -> Unit:
        """As a mover that did not come further than these steps."""
        with attempt(None, self.config, *self.regions, now, quiet) as run:
            units, _ = run.take(move.due_units(run, [WEEK]), lambda _: True)
            units = move.seal(run, units)
            for step in steps:
                units = step(run, units)
        return self.unit

    def override(self, found_in: State, apply: bool = True, account: Account = WHY) -> dict[str, Any]:
        order = Order(WEEK, None, found_in, account, apply)
        return override.run(self.config, day(14), self.regions, order, quiet)

    def move(self, now: datetime) -> list[str]:
        report = move.run(None, self.config, now, self.regions, [WEEK], quiet)
        return list(report["regions"][self.client.region]["moved"])

    def drop(self, now: datetime) -> int:
        with opened(self.config, *self.regions) as site:
            if files := cold_files(site, self.unit):
                site.ledger.put_verdict(Verdict(WEEK, 0, fingerprint(files), "a suite", True, (), now))
        return int(drop.run(None, self.config, now, self.regions, [WEEK], True, quiet)["dropped"])

    def change(self, now: datetime) -> None:
        self.client.send(amended(TALK[now.day % 9 :], now))
        self.client.wait_until_consumed()

    def check(self) -> None:
        self.client.wait_until_consumed()
        report = self.checker.report()
        assert (report.faults, report.digest) == ((), report.expected_digest)


@pytest.fixture(scope="module")
def scene(config: Settings, client: Client, checker: Checker, consumer: None) -> Iterator[Scene]:
    chosen = replace(config, clocks=replace(config.clocks, longest_read_seconds=0.3))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in as_environment(chosen).items():
            patch.setenv(name, value)
        made = Scene(chosen, client, checker)
        week_tables.run(chosen, day(7), made.regions, quiet)
        week_tables.run(chosen, day(14), made.regions, quiet)
        client.send(TALK)
        client.wait_until_consumed()
        yield made


@pytest.fixture
def command(scene: Scene, capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*words: str, code: int = 0) -> Any:
        assert main(words) == code, capsys.readouterr()
        shown = capsys.readouterr()
        return json.loads(shown.out) if "--json" in words else shown.out

    return command


@pytest.fixture
def site(scene: Scene) -> Iterator[Site]:
    with opened(scene.config, *scene.regions) as opened_site:
        yield opened_site


def test_a_sealed_unit_opens_again_and_a_stale_operator_is_refused(scene: Scene, site: Site) -> None:
    sealed = scene.sealed(day(14))
    scene.change(day(14))
    assert scene.checker.in_lane(WEEK)
    with pytest.raises(RefusedError, match=r"is sealed .*, not copied: it went on since you looked"):
        scene.override(State.COPIED)
    told = scene.override(State.SEALED, apply=False)
    assert (told["applied"], told["to"]["state"], told["reroutes"]) == (False, "open", True)
    assert scene.unit == sealed, "a dry run changes nothing"
    assert site.ledger.audit() == []

    route = site.ledger.route()
    assert scene.override(State.SEALED)["to"]["state"] == "open"
    assert (scene.unit.state, scene.unit.epoch > sealed.epoch, site.ledger.route()) == (State.OPEN, True, route + 1)
    (line,) = site.ledger.audit()
    assert (line.action, line.found_in, line.became, line.applied) == (OVERRIDE, "sealed", "open", True)
    assert (line.actor, line.reason) == ("someone", "a consumer stood still")
    scene.check()
    with pytest.raises(RefusedError, match="no override leads back"):
        scene.override(State.OPEN)
    assert len(site.ledger.audit()) == 1, "what was refused is not noted"


def test_a_unit_that_a_process_holds_is_left_to_it(scene: Scene, site: Site) -> None:
    scene.sealed(day(14))
    with keeping(site.ledger, "another", 30) as keeper:
        assert keeper.take(lease_name(scene.unit))
        with pytest.raises(BlockedError, match="is held by another until"):
            scene.override(State.SEALED)
        keeper.give_up(lease_name(scene.unit))


@pytest.mark.parametrize(
    "account", [Account("", "why"), Account("x", ""), Account("x" * 65, "why"), Account("x", "a@b")]
)
def test_nobody_and_nothing_is_no_account(scene: Scene, account: Account) -> None:
    with pytest.raises(RefusedError):
        scene.override(State.SEALED, account=account)


def test_what_was_copied_is_proven_anew(scene: Scene, site: Site) -> None:
    copied = scene.sealed(day(14), move.copy)
    assert copied.state is State.COPIED
    assert scene.override(State.COPIED)["to"]["state"] == "sealed"
    assert scene.unit.epoch > copied.epoch
    assert scene.move(day(14)) == [f"{weeks.label(WEEK)}/0 hot → warm"]
    assert all(part.epoch > copied.epoch for part in site.ledger.parts(scene.unit))
    scene.check()
    with pytest.raises(RefusedError, match="no override leads back") as refusal:
        scene.override(State.SWITCHED)
    assert "./firn thaw" in refusal.value.do
    assert scene.drop(day(15)) == 1


def test_the_command_line_overrides_and_shows_who_did(scene: Scene, command: Command, region: str) -> None:
    scene.sealed(day(37))
    words = ("move", "--region", region, "--week", weeks.label(WEEK), "--from", "sealed")
    assert "would be taken back" in command(*words, "--reason", "OPS-1: tried", "--by", "an operator")
    command(*words, code=2)
    command("move", "--reason", "alone", code=2)
    assert "sealed (warm → cold) to open" in command(*words, "--reason", "OPS-1: tried", "--by", "me", "--apply")
    newest = command("audit", "--region", region, "--json")["audit"][0]
    assert (newest["actor"], newest["reason"], newest["became"]) == ("me", "OPS-1: tried", "open")
    assert "OPS-1: tried" in command("audit", "--region", region)


def test_a_stuck_unit_is_an_alarm(scene: Scene, command: Command, region: str, tmp_path: Path) -> None:
    scene.sealed(day(37))
    at, later = (f"{day(number):%Y-%m-%dT%H:%M:%SZ}" for number in (37.9, 38.1))
    stuck = f'firn_stuck_units{{region="{region}",source="warm",sink="cold"}}'
    assert f"{stuck} 0" in command("metrics", "--now", at)
    found = command("metrics", "--now", later)
    assert f"{stuck} 1" in found
    assert f'firn_stuck_seconds{{region="{region}",week="{weeks.label(WEEK)}",slice="0",source="warm"' in found
    assert "someone" not in found
    assert f"STUCK  {scene.unit.name}: sealed (warm → cold)" in command("status", "--now", later)
    assert command("status", "--now", later, "--json")["regions"][region]["stuck"][0]["state"] == "sealed"
    out = tmp_path / "firn.prom"
    assert "samples written to" in command("metrics", "--now", later, "--out", str(out))
    assert f"{stuck} 1" in out.read_text()


def test_other_columns_are_found_before_anything_is_copied(scene: Scene, site: Site) -> None:
    scene.override(State.SEALED)
    table = f"{site.region}_warm.messages_w{WEEK}"
    site.db.warm.ddl(f"ALTER TABLE {table} ADD extra text")
    with pytest.raises(DamagedError, match=f"table {table} has a column extra that is not declared"):
        scene.move(day(37))
    assert scene.unit.state is State.OPEN, "nothing was sealed"
    site.db.warm.ddl(f"ALTER TABLE {table} DROP extra")
    assert messages.drift(site.db.warm, site.region, Tier.WARM, WEEK) == []


def test_a_rule_that_reaches_for_the_lake_stops_a_move_a_fold_and_a_drop(
    scene: Scene, command: Command, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = [Rule("tidy", "lake/", ("expires",))]
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryObjects, "lifecycle", lambda _: rule)
        with pytest.raises(RefusedError, match="lifecycle rule tidy expires what lies below lake/"):
            scene.move(day(37))
        assert scene.unit.state is State.OPEN
    assert scene.move(day(37))
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryObjects, "lifecycle", lambda _: rule)
        with pytest.raises(RefusedError, match="lifecycle rule tidy"):
            scene.drop(day(38))
        found = command("phantoms", "--json", code=4)["regions"][region]["lifecycle"]
        assert found[0]["rule"] == "tidy"
        assert found[0]["objects"] > 0
    assert scene.drop(day(38)) == 1
    scene.change(day(39))
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryObjects, "lifecycle", lambda _: rule)
        with pytest.raises(RefusedError, match="lifecycle rule tidy"):
            fold.run(None, scene.config, day(40), scene.regions, [WEEK], quiet)
    assert fold.run(None, scene.config, day(40), scene.regions, [WEEK], quiet)["folded"] == 1
    scene.check()


def test_a_phantom_is_found_and_gone_once_its_file_is_back(scene: Scene, site: Site, command: Command) -> None:
    assert "phantoms   0" in command("phantoms")
    (key, *_) = [f"{table_root(0)}/{pointer.path}" for pointer in cold_files(site, scene.unit)]
    path = bucket(scene.config, site.region) / key
    away = path.with_name("away")
    path.rename(away)
    found = command("phantoms", "--json", code=4)["regions"][site.region]["phantoms"]
    assert [(one["key"], one["named_by"]) for one in found] == [(key, ["the Delta log", "a pointer"])]
    assert f"{weeks.label(WEEK)}: {key} is missing; named by the Delta log and a pointer" in command("phantoms", code=4)
    away.rename(path)
    index = bucket(scene.config, site.region) / index_key(key)
    index.rename(index.with_name("away"))
    assert "named by its data file" in command("phantoms", code=4)
    index.with_name("away").rename(index)
    (found_now,) = phantoms.gather(scene.config, day(41), scene.regions)
    assert found_now.is_sound
    scene.check()


def test_a_week_that_never_had_tables_is_thawed_into_new_ones(scene: Scene, site: Site) -> None:
    """Born cold: what came for it lies in files alone."""
    old = weeks.start(WEEK - 60) + timedelta(days=1)
    talk = [sent(one, old + timedelta(minutes=at), at, bytes((one, at)) * 50) for one in range(3) for at in range(9)]
    scene.client.send(talk)
    scene.client.wait_until_consumed()
    assert site.ledger.unit(WEEK - 60, 0) == born_cold(site.region, WEEK - 60, 0)
    order = thaw.Order(WEEK - 60, None, 9, Account("someone", "an audit"), True)
    told = thaw.run(None, scene.config, day(41), scene.regions, replace(order, apply=False), quiet)
    assert "has no file yet" in next(iter(told["regions"][site.region]["later"].values()))
    fold.run(None, scene.config, day(41), scene.regions, [WEEK - 60], quiet)
    assert thaw.run(None, scene.config, day(41), scene.regions, order, quiet)["thawed"] == 1
    unit = site.ledger.unit(WEEK - 60, 0)
    assert unit
    assert (unit.move, unit.state, unit.settled) == (COLD_WARM, State.SWITCHED, True)
    scene.check()
