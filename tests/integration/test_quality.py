"""The gate over real cold files: what passes may go, what does not is named with its rule, and no row is told."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core import digest, ids, ring, weeks
from core.errors import BlockedError, DamagedError, RefusedError
from core.ledger import Part, Pointer, Verdict, fingerprint
from core.moves import COLD_FROZEN, HOT_WARM, WARM_COLD, State, Unit
from core.overlay import Reaction, Row
from core.rows import to_batch
from core.settings import Settings
from lakehouse.paths import data_path, table_root
from lakehouse.publish import cold_files, publish
from lakehouse.site import Site, opened
from lakehouse.writer import write_cold_file
from ops.services import as_environment
from quality import run as gate
from quality.suites import Judge, messages_rules
from tests.conftest import ROOT, bucket, quiet

NOW = datetime(2026, 3, 2, tzinfo=UTC)
FIRST = weeks.of_instant(datetime(2025, 11, 3, tzinfo=UTC))
SHARDS = 2
CONVERSATIONS = [ids.conversation_uuid("quality", str(number)) for number in range(12)]
OTHER_WEEK = "rows are of the file's week"


@pytest.fixture(scope="module")
def site(config: Settings, region: str) -> Iterator[Site]:
    with opened(config, region) as site:
        yield site


def message(week: int, number: int) -> Row:
    when = weeks.start(week) + timedelta(minutes=number)
    message_id = ids.imported_id(when, "quality", "", str(number))
    row = Row(CONVERSATIONS[number % 12], message_id, 7, 0, b"ciphertext", server_ts=when)
    return replace(row, reactions=(Reaction(1, message_id, b"heart"),)) if number % 5 == 0 else row


def traffic(week: int) -> list[Row]:
    return [message(week, number) for number in range(60)]


def publish_unit(site: Site, unit: Unit, rows: Sequence[Row], attempt: str = "a0") -> None:
    """Puts the rows into the unit's cold files as a move does, or as one would that forgot to look at them."""
    parts = []
    for shard in range(unit.shards):
        tokens = ring.shard_range(unit.slice, 1, shard, unit.shards)
        mine = sorted((row for row in rows if ring.token(row.conversation_id) in tokens), key=lambda row: row.key)
        path = data_path(unit.week, shard, unit.epoch, attempt)
        key = f"{table_root(unit.slice)}/{path}"
        file = write_cold_file([to_batch(mine)], site.objects, key, site.config.layout.row_group_bytes)
        part = Part(*unit.key, unit.move.source, shard, unit.epoch, digest.of_rows(mine), path)
        parts.append(replace(part, size_bytes=file.size_bytes, sha256=file.sha256))
    publish(site, unit, parts, attempt, NOW)


def switched(site: Site, week: int, rows: Sequence[Row] | None = None, **facts: Any) -> Unit:
    unit = Unit(site.region, week, 0, WARM_COLD, State.SWITCHED, epoch=1, shards=SHARDS, commits=1)
    unit = replace(unit, switched_at=NOW, **facts)
    assert site.ledger.create(unit)
    publish_unit(site, unit, traffic(week) if rows is None else rows)
    return unit


def judge(site: Site, *only: int) -> dict[str, Any]:
    report = gate.run(site.config, NOW, [site.region], only or None, quiet)
    return dict(report["regions"][site.region])


def verdict(site: Site, unit: Unit) -> Verdict:
    found = site.ledger.verdict(unit.week, unit.slice)
    assert found
    return found


def pointer(site: Site, unit: Unit, shard: int = 1) -> Pointer:
    return {one.shard: one for one in cold_files(site, unit)}[shard]


def key_of(site: Site, unit: Unit) -> str:
    return f"{table_root(unit.slice)}/{pointer(site, unit).path}"


def test_what_waits_for_a_drop_is_judged_once(site: Site) -> None:
    """First of all, because it judges all that is there."""
    going_cold = switched(site, FIRST)
    going_frozen = switched(site, FIRST + 1, move=COLD_FROZEN)
    empty = switched(site, FIRST + 2, [])
    resting = switched(site, FIRST + 3, move=COLD_FROZEN, state=State.OPEN)
    assert site.ledger.create(Unit(site.region, FIRST + 4, 0, HOT_WARM, State.SWITCHED, shards=1))
    assert site.ledger.create(Unit(site.region, FIRST + 5, 0))

    waiting = [going_cold, going_frozen, empty]
    assert judge(site) == {"passed": [unit.name for unit in waiting], "standing": 0}
    suite = Judge(messages_rules()).suite
    for unit in waiting:
        files = fingerprint(cold_files(site, unit))
        assert verdict(site, unit) == Verdict(unit.week, 0, files, suite, True, (), NOW)
    assert site.ledger.verdict(resting.week, 0) is None
    assert judge(site) == {"passed": [], "standing": 3}
    assert judge(site, resting.week) == {"passed": [resting.name], "standing": 0}


def test_other_files_are_judged_anew(site: Site) -> None:
    unit = switched(site, FIRST + 10)
    assert judge(site, unit.week)["passed"] == [unit.name]
    before = verdict(site, unit)
    unit = unit.changed(commits=2)
    publish_unit(site, unit, traffic(unit.week)[1:], "b0")
    assert judge(site, unit.week)["passed"] == [unit.name]
    assert verdict(site, unit).files != before.files


def test_a_verdict_by_other_rules_is_void(site: Site) -> None:
    unit = switched(site, FIRST + 11)
    judge(site, unit.week)
    good = verdict(site, unit)
    site.ledger.put_verdict(replace(good, suite="older rules"))
    assert judge(site, unit.week) == {"passed": [unit.name], "standing": 0}
    assert verdict(site, unit) == good


def test_a_bad_file_stops_the_drop_and_only_its_own(site: Site) -> None:
    bad_week, good_week = FIRST + 20, FIRST + 21
    stray = replace(message(bad_week + 1, 3), conversation_id=CONVERSATIONS[0])
    bad = switched(site, bad_week, [*traffic(bad_week), stray])
    good = switched(site, good_week)
    lines: list[str] = []
    with pytest.raises(DamagedError, match="the quality gate stops the drop of") as caught:
        gate.run(site.config, NOW, [site.region], [bad_week, good_week], lines.append)
    assert f"{bad.name} ({OTHER_WEEK})" in caught.value.what
    assert good.name not in caught.value.what
    assert (verdict(site, bad).passed, verdict(site, bad).failed) == (False, (OTHER_WEEK,))
    assert verdict(site, good).passed
    shard = ring.shard_of(ring.token(stray.conversation_id), 1, SHARDS)
    assert f"{bad.name} shard {shard}: {OTHER_WEEK}" in lines
    with pytest.raises(DamagedError):  # until it is mended it is judged at each run
        judge(site, bad_week)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("harm", [damage, remove, cut])
def test_a_file_that_is_not_as_it_was_written_is_not_whole(site: Site, harm: Any) -> None:
    week = FIRST + 30 + [damage, remove, cut].index(harm)
    unit = switched(site, week, [*traffic(week), message(week + 1, 3)])
    harm(bucket(site.config, site.region) / key_of(site, unit))
    with pytest.raises(DamagedError, match="file is whole"):
        judge(site, week)
    assert verdict(site, unit).failed[0] == gate.WHOLE


def test_a_shard_without_its_file_is_seen(site: Site) -> None:
    unit = switched(site, FIRST + 40)
    assert site.ledger.retire(pointer(site, unit), 99)
    with pytest.raises(DamagedError, match=gate.COMPLETE):
        judge(site, unit.week)
    supplement = switched(site, FIRST + 41, move=COLD_FROZEN, generation=1)
    assert site.ledger.retire(pointer(site, supplement), 99)
    assert judge(site, supplement.week)["passed"] == [supplement.name]


def test_a_unit_that_cannot_be_read_now_is_set_aside(site: Site) -> None:
    unit, good = switched(site, FIRST + 50), switched(site, FIRST + 51)
    key = key_of(site, unit)
    site.objects.put(key, site.objects.get(key), storage_class="GLACIER")
    with pytest.raises(BlockedError, match="frozen"):
        judge(site, unit.week, good.week)
    assert site.ledger.verdict(unit.week, 0) is None
    assert verdict(site, good).passed


def test_a_week_that_nobody_knows_is_refused(site: Site) -> None:
    with pytest.raises(RefusedError, match="knows no week 2031-W01"):
        judge(site, weeks.parse("2031-W01"))


# As a process


def command(site: Site, *options: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | as_environment(site.config) | {"PYTHONPATH": str(ROOT), "TMPDIR": str(cwd)}
    words = [sys.executable, "-m", "quality.run", *options]
    return subprocess.run(words, env=environment, capture_output=True, text=True, cwd=cwd, check=False)


CANARY = b"CANARYBYTES"


def test_neither_output_nor_verdict_holds_anything_of_a_row(site: Site, tmp_path: Path) -> None:
    week = FIRST + 60
    number = 7_313_131_313_131_313
    when = datetime(1999, 12, 31, 23, 59, 58, tzinfo=UTC)
    rest = (number, -101, CANARY, CANARY.decode(), CANARY, CANARY, True, when)
    bad = Row(CANARY + b"conve", CANARY + b"messa", *rest, (Reaction(number, CANARY, CANARY),))
    unit = switched(site, week, [*traffic(week), bad])
    done = command(site, "--now", "2026-03-02T00:00:00Z", "--week", weeks.label(week), cwd=tmp_path)
    assert done.returncode == DamagedError.exit_code, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    found = verdict(site, unit)
    assert told["error"] == "DamagedError"
    assert found.failed
    assert all(rule in told["what"] for rule in (unit.name, *found.failed))
    assert "a deleted row holds nothing" in found.failed
    traces = ("CANARY", CANARY.hex(), str(number), "-101", "1999", "23:59", str(int(when.timestamp())))
    everything = done.stdout + done.stderr + repr(found)
    assert [trace for trace in traces if trace in everything] == []
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_passed_and_what_is_wrong_with_its_options(site: Site) -> None:
    passed = command(site, "--now", "2026-03-02T00:00:00Z", "--region", site.region, "--week", weeks.label(FIRST))
    assert passed.returncode == 0, passed.stderr
    report = {"passed": 0, "regions": {site.region: {"passed": [], "standing": 1}}}
    assert json.loads(passed.stdout.splitlines()[-1]) == report
    for options in (["--now", "yesterday"], ["--now", "2026-03-02"], ["--now", "2026-03-02T00:00:00Z", "--week", "W8"]):
        refused = command(site, *options)
        assert refused.returncode == RefusedError.exit_code
        assert json.loads(refused.stdout.splitlines()[-1])["error"] == "RefusedError"
