"""Purging a region that was folded, frozen and killed in between: every row stays, only what nothing names goes.

The tests go on from each other: each begins with what the one before has left.
"""

import json
import multiprocessing
import os
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from core import weeks
from core.digest import of_rows
from core.errors import DamagedError
from core.ledger import Verdict, fingerprint, lease_name
from core.overlay import row_of
from core.rows import to_batch
from core.settings import Maintenance, Settings
from jobs import drop, fold, maintain, move
from jobs import weeks as week_tables
from lakehouse.commit import latest_version
from lakehouse.deltalog import log_of
from lakehouse.maintenance import tables_of
from lakehouse.paths import data_key, index_key, table_root
from lakehouse.publish import cold_files
from lakehouse.runs import write_run
from lakehouse.site import Site, opened
from ops.cli import main
from ops.services import as_environment
from schemas.events import MessageSent
from stores.leases import keeping
from tests import checker as checking
from tests.client import Client, amended, sent, until, written_down
from tests.conftest import bucket, quiet
from tests.engines import through_delta_rs, through_duckdb, through_spark
from tests.killing import die

NOW = datetime(2026, 3, 2, tzinfo=UTC)
OLD = datetime(2024, 9, 2, tzinfo=UTC)  # a Monday, of a week that never had a table
FIRST = weeks.of_instant(OLD)
WEEKS = 4
CONVERSATIONS = 6
LEASE_SECONDS = 3.0
CHILD_SECONDS = 60
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.killing"])


def day(number: int) -> datetime:
    return NOW + timedelta(days=number)


def week_of(number: int) -> list[MessageSent]:
    """Enough of them that a week has two shards."""
    start = OLD + timedelta(days=7 * number, hours=9)
    return [
        sent(one, start + timedelta(days=extra), number, bytes([one]) * 3000)
        for one in range(CONVERSATIONS)
        for extra in range(4)
    ]


@dataclass(frozen=True)
class Scene:
    config: Settings
    client: Client
    checker: checking.Checker
    bucket: Path

    @property
    def region(self) -> str:
        return self.client.region

    def amend(self, now: datetime, *numbers: int) -> None:
        for number in numbers:
            self.client.send(amended(week_of(number)[now.day % 7 :], now))
        self.client.wait_until_consumed()

    def fold(self, now: datetime, *numbers: int) -> list[str]:
        only = [FIRST + number for number in numbers] or None
        return list(fold.run(None, self.config, now, (self.region,), only, quiet)["regions"][self.region]["folded"])

    def maintain(self, now: datetime, apply: bool = True, **policy: int) -> dict[str, Any]:
        config = replace(self.config, maintenance=replace(self.config.maintenance, **policy))
        report = maintain.run(config, now, (self.region,), apply, quiet)
        assert report["applied"] is apply
        return dict(report["regions"][self.region])

    def killed(self, job: str, now: datetime, point: str, number: int = 0, **policy: int) -> None:
        """The job in a process of its own, dead at its point; then its leases run out."""
        config = replace(self.config, maintenance=replace(self.config.maintenance, **policy))
        log = self.client.log.with_name(f"{point}.log")
        child = FORKS.Process(target=die, args=(point, job, config, now, FIRST + number, log))
        child.start()
        child.join(CHILD_SECONDS)
        assert ended(child) == -9, log.read_text()[-1500:]
        until(lambda: not self.leases(), "a lease of a dead process does not run out")

    def leases(self) -> list[str]:
        rows = self.checker.session.execute(f"SELECT name, expires_at FROM {self.region}_meta.leases")
        now = datetime.now(UTC)
        return [name for name, expires_at in rows if expires_at.replace(tzinfo=UTC) > now]

    def held(self) -> set[str]:
        """All that lies in the bucket but the logs' files and what maintain asks the time by."""
        files = (path for path in self.bucket.rglob("*") if path.is_file())
        found = {str(path.relative_to(self.bucket)) for path in files}
        return {key for key in found if not key.startswith((".firn-", "maintenance/")) and "/_delta_log/" not in key}

    def age(self, *keys: str) -> None:
        """As if they had been written two days before."""
        for key in keys:
            path = self.bucket / key
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 2 * 86_400))

    def check(self, behind: int = 0) -> str:
        """`behind` weeks have a commit that their pointers do not know of yet."""
        report = self.checker.report()
        assert (
            len([fault for fault in report.faults if ": the Delta log has " in fault]) == len(report.faults) == behind
        )
        assert report.digest == report.expected_digest
        return report.digest

    def sent_by_import(self, message: MessageSent) -> None:
        with self.client.log.open("a") as log:
            log.write(json.dumps(written_down(message)) + "\n")

    def files(self, number: int) -> set[str]:
        """The keys that the ledger's pointers name, with their indexes."""
        with opened(self.config, self.region) as site:
            unit = site.ledger.unit(FIRST + number, 0)
            assert unit
            keys = [f"{table_root(0)}/{pointer.path}" for pointer in cold_files(site, unit)]
        return {*keys, *map(index_key, keys)}


def ended(child: ForkServerProcess) -> int | None:
    code = child.exitcode
    if code is None:
        child.terminate()
    return code


def went(report: dict[str, Any], *but: str) -> dict[str, int]:
    return {kind: one["objects"] for kind, one in report["goes"].items() if one["objects"] and kind not in but}


@pytest.fixture(scope="module")
def scene(config: Settings, region: str, client: Client, checker: checking.Checker, consumer: None) -> Scene:
    short = replace(
        config,
        clocks=replace(config.clocks, lease_seconds=LEASE_SECONDS, longest_read_seconds=0.2),
        maintenance=Maintenance(checkpoint_commits=1_000),
        frozen=replace(config.frozen, horizon_months=1200),  # these files are small: it takes that long to pay
    )
    made = Scene(short, client, checker, bucket(config, region))
    week_tables.run(short, NOW, (region,), quiet)
    client.send(event for number in range(WEEKS) for event in week_of(number))
    client.wait_until_consumed()
    assert len(made.fold(day(0))) == WEEKS
    return made


def test_where_all_is_named_nothing_goes(scene: Scene) -> None:
    before = scene.held()
    assert len(before) == WEEKS * 2 * 2, "two shards and their indexes"
    report = scene.maintain(day(9))
    assert went(report) == {}
    assert report["kept"] == {"named": len(before), "too_young": 0, "being_written": 0, "of_no_known_unit": 0}
    assert scene.held() == before
    scene.check()


def test_what_a_fold_replaced_goes_a_day_later_and_a_dry_run_takes_nothing(scene: Scene) -> None:
    old = {number: scene.files(number) for number in range(WEEKS)}
    scene.amend(day(1), 0, 1)
    assert len(scene.fold(day(1))) == 2
    before, digest = scene.held(), scene.check()
    replaced = (old[0] | old[1]) - scene.files(0) - scene.files(1)
    assert replaced
    assert went(scene.maintain(day(1) + timedelta(hours=23))) == {}

    dry = scene.maintain(day(2), apply=False)
    assert went(dry) == {"replaced": len(replaced)}
    told = dry["goes"]["replaced"]
    assert set(told["names"]) == replaced
    assert told["size_bytes"] == sum((scene.bucket / key).stat().st_size for key in replaced)
    assert scene.held() == before

    assert scene.maintain(day(2))["goes"] == dry["goes"]
    assert scene.held() == before - replaced
    assert scene.check() == digest
    assert went(scene.maintain(day(2))) == {}


def test_a_killed_fold_leaves_an_orphan_and_a_pointer_to_repair(scene: Scene) -> None:
    """Week 0 dies with files that nothing will ever name, week 1 between its commit and its pointers."""
    old, before = scene.files(1), scene.held()
    scene.amend(day(3), 0, 1)
    scene.killed("fold", day(3), "folding, file written", 0)
    orphans = scene.held() - before
    assert len(orphans) == 2
    scene.killed("fold", day(3), "folding, committed, before the pointers", 1)
    new = scene.held() - before - orphans
    digest = scene.check(behind=1)

    report = scene.maintain(day(5), apply=False)
    assert went(report) == {}, "an orphan is young, and a pointer names what was replaced"
    assert (report["units_astray"], report["kept"]["too_young"]) == (1, 2)
    scene.age(*orphans)
    assert went(scene.maintain(day(5), apply=False)) == {"orphans": 2}

    scene.killed("maintain", day(5), "purging, pointer repaired")
    assert scene.held() == before | orphans | new
    scene.killed("maintain", day(5), "purging, index gone")
    report = scene.maintain(day(5))
    assert new <= scene.files(1)
    assert scene.held() == (before | new) - (old - scene.files(1))
    assert report["units_astray"] == 0
    assert scene.check() == digest
    assert len(scene.fold(day(5))) == 2, "what was in the lane is there still"
    assert scene.check() == digest


def test_a_unit_in_other_hands_is_left_to_them(scene: Scene) -> None:
    scene.amend(day(6), 2)
    old = scene.files(2)
    scene.killed("fold", day(6), "folding, committed, before the pointers", 2)
    with opened(scene.config, scene.region) as site, keeping(site.ledger, "another", 30) as keeper:
        unit = site.ledger.unit(FIRST + 2, 0)
        assert unit
        assert keeper.take(lease_name(unit))
        report = scene.maintain(day(9))
        assert (report["units_astray"], report["held_elsewhere"]) == (0, 1)
        assert old <= scene.held(), "its pointers name them"
        keeper.give_up(lease_name(unit))
    assert scene.maintain(day(9))["units_astray"] == 1
    replaced = old - scene.files(2)
    assert replaced
    assert replaced.isdisjoint(scene.held())
    assert scene.fold(day(9), 2)
    scene.check()


def test_what_a_live_process_writes_stays_however_old_it_looks(scene: Scene) -> None:
    with opened(scene.config, scene.region) as site, keeping(site.ledger, "another", 30) as keeper:
        unit = site.ledger.unit(FIRST + 2, 0)
        assert unit
        lease = keeper.take(lease_name(unit))
        assert lease
        mine, older = (data_key(0, unit.week, 0, epoch, "a0") for epoch in (lease.epoch, lease.epoch - 1))
        for key in (mine, older):
            site.objects.put(key, b"not committed yet")
        scene.age(mine, older)
        report = scene.maintain(day(9))
        assert report["kept"]["being_written"] == 1
        assert report["goes"]["orphans"]["names"] == [older]
        keeper.give_up(lease_name(unit))
        assert scene.maintain(day(9))["goes"]["orphans"]["names"] == [mine]


def add_run(scene: Scene, site: Site, number: int, name: str, known: bool) -> tuple[str, MessageSent]:
    """A run of one more message, registered or as an import leaves it that dies before."""
    message = sent(number, OLD + timedelta(days=7 * number + 6), 99, name.encode())
    rows = [row_of(message)]
    run = write_run([to_batch(rows)], site.objects, FIRST + number, 0, name, of_rows(rows), 20_000)
    if known:
        assert site.ledger.add_run(run)
    return run.path, message


def test_a_run_goes_when_it_is_folded_and_is_known_for_ever(scene: Scene) -> None:
    with opened(scene.config, scene.region) as site:
        waiting, message = add_run(scene, site, 3, "a0", known=True)
        stray, _ = add_run(scene, site, 3, "a1", known=False)
        assert went(scene.maintain(day(9))) == {}
        scene.age(waiting, stray)
        assert scene.maintain(day(9))["goes"]["orphans"]["names"] == [stray]
        assert waiting in scene.held()
        assert scene.fold(day(9), 3)
        scene.sent_by_import(message)
        digest = scene.check()
        report = scene.maintain(day(9))
        assert report["goes"]["folded_runs"]["names"] == [waiting]
        assert went(report) == {"folded_runs": 1}
        assert waiting not in scene.held()
        assert [(run.name, run.folded) for run in site.ledger.runs(FIRST + 3, 0)] == [("a0", True)]
    assert scene.check() == digest
    assert scene.fold(day(9), 3) == []


def test_what_is_named_while_the_purge_waits_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by an import that is run again after days and takes its file as it finds it."""
    with opened(scene.config, scene.region) as site:
        path, message = add_run(scene, site, 2, "a2", known=False)
        scene.age(path)
        monkeypatch.setattr(maintain, "_wait_for_readers", lambda _: add_run(scene, site, 2, "a2", known=True))
        assert went(scene.maintain(day(9))) == {}
        assert path in scene.held()
        assert scene.fold(day(9), 2)
    scene.sent_by_import(message)
    scene.check()


def test_frozen_orphans_go_with_what_the_vault_knows_of_them(scene: Scene) -> None:
    """Week 3 dies with an object that nothing will name, is frozen then, and its cold files go a day after."""
    before, cold = scene.held(), scene.files(3)
    scene.killed("move", day(10), "freezing, object put", 3)
    orphans = scene.held() - before
    (key,) = (key for key in orphans if key.startswith("frozen/"))
    assert references(scene, key)
    assert move.run(None, scene.config, day(10), (scene.region,), [FIRST + 3], quiet)["moved"] == 1
    scene.age(*(scene.held() - before))
    digest = scene.check()

    dry = scene.maintain(day(10), apply=False)
    assert set(dry["goes"]["orphans"]["names"]) == orphans == {key, index_key(key)}
    going = orphans.union(*(dry["goes"][kind]["names"] for kind in ("replaced", "folded_runs")))
    assert dry["early_dollars"] > 0
    scene.killed("maintain", day(10), "purging, references forgotten")
    assert key in scene.held()
    assert references(scene, key) == 0
    before = scene.held()
    scene.maintain(day(10))
    assert scene.held() == before - going
    assert scene.check() == digest

    drop_cold(scene, day(11))
    assert cold <= scene.held(), "readers under way end well"
    scene.check()
    assert went(scene.maintain(day(12))) == {"replaced": len(cold)}
    assert cold.isdisjoint(scene.held())
    assert scene.check() == digest


def references(scene: Scene, key: str) -> int:
    found = scene.checker.session.execute(f"SELECT object FROM {scene.region}_vault.subjects")
    return sum(one == key for (one,) in found)


def drop_cold(scene: Scene, now: datetime) -> None:
    with opened(scene.config, scene.region) as site:
        unit = site.ledger.unit(FIRST + 3, 0)
        assert unit
        files = fingerprint(cold_files(site, unit))
        site.ledger.put_verdict(Verdict(unit.week, 0, files, "test", True, (), now))
    assert drop.run(None, scene.config, now, (scene.region,), [unit.week], True, quiet)["dropped"] == 1


def test_what_the_manifest_names_stays_though_the_ledger_forgot_it(scene: Scene) -> None:
    """As with a ledger that was brought back from a copy of before."""
    frozen = {key for key in scene.held() if "frozen/messages/" in key}
    assert frozen
    scene.age(*frozen)
    with opened(scene.config, scene.region) as site:
        files = site.ledger.frozen(FIRST + 3, 0)
        forget = f"DELETE FROM {scene.region}_meta.frozen WHERE region = %s AND week = %s AND slice = 0"
        scene.checker.session.execute(forget, (scene.region, FIRST + 3))
        assert site.ledger.frozen(FIRST + 3, 0) == []
        assert went(scene.maintain(day(13))) == {}
        assert all(site.ledger.put_frozen(file) for file in files)
    assert frozen <= scene.held()
    scene.check()


def test_a_log_is_cut_and_every_engine_reads_on(scene: Scene, spark: SparkSession) -> None:
    with opened(scene.config, scene.region) as site:
        table = tables_of(site, 0).messages
        root, commits = Path(table.uri), len(log_of(table).commits)
        before = through_delta_rs(root)
        report = scene.maintain(day(13), apply=False, checkpoint_commits=commits, log_days=0, replaced_days=0)
        assert (report["checkpoints"], log_of(table).checkpoints) == ([table.root], {})
        report = scene.maintain(day(13), checkpoint_commits=commits)
        assert (report["checkpoints"], went(report)) == ([table.root], {})
        assert log_of(table).since_checkpoint == 0

        cut: dict[str, Any] = {"checkpoint_commits": commits, "log_days": 0, "replaced_days": 0}
        assert went(scene.maintain(day(13), apply=False, **cut)) == {"log": commits - 1}
        scene.killed("maintain", day(13), "purging, some of the log gone", **cut)
        assert len(log_of(table).commits) == commits - 3
        assert went(scene.maintain(day(13), **cut)) == {"log": commits - 4}
        assert list(log_of(table).commits) == [commits - 1]
        assert through_delta_rs(root) == through_duckdb(root) == through_spark(spark, root) == before
        digest = scene.check()

        scene.amend(day(14), 0)
        assert scene.fold(day(14), 0)
        assert latest_version(table) == commits
        assert scene.check() != digest
        assert through_delta_rs(root) == through_duckdb(root) != before


def test_two_at_once_do_no_harm(scene: Scene) -> None:
    scene.amend(day(15), 1, 2)
    assert len(scene.fold(day(15))) == 2
    old, digest, failed = scene.held(), scene.check(), []

    def work() -> None:
        try:
            scene.maintain(day(17))
        except BaseException as fault:
            failed.append(fault)
            raise

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CHILD_SECONDS)
    assert failed == []
    assert scene.held() < old
    assert scene.check() == digest
    assert went(scene.maintain(day(17))) == {}


def test_of_a_log_that_is_lost_nothing_follows(scene: Scene) -> None:
    """Pointers do not name all that a log holds, and a log that begins anew would retire them."""
    scene.maintain(day(20))
    log, before = scene.bucket / table_root(0) / "_delta_log", scene.held()
    scene.age(*before)
    log.rename(log.with_name("_away"))
    with pytest.raises(DamagedError, match="whose log ends at -1"):
        scene.maintain(day(20))
    assert scene.held() - {key for key in scene.held() if "/_away/" in key} == before
    log.with_name("_away").rename(log)
    assert went(scene.maintain(day(20))) == {}
    scene.check()


def test_the_command_line_says_what_would_go_before_it_goes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in as_environment(scene.config).items():
        monkeypatch.setenv(name, value)

    def shown(*words: str) -> str:
        assert main(["maintain", "--now", day(22).isoformat(), "--region", scene.region, *words]) == 0
        return capsys.readouterr().out

    scene.amend(day(21), 0)
    old = scene.files(0)
    assert scene.fold(day(21))
    going = old - scene.files(0)
    dry = shown()
    assert all(key in dry for key in going)
    for text in ("replaced files", "out of its table for 1 day", "would be purged", "to purge: the same command"):
        assert text in dry
    assert going <= scene.held()
    told = json.loads(shown("--apply", "--json"))
    assert (told["applied"], told["objects"]) == (True, len(going))
    assert going.isdisjoint(scene.held())
    assert f"{scene.region}: nothing to purge" in shown("--apply")
    scene.check()
