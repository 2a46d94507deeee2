"""Old history on real services: both forms, every column, every kind of bad row; killed anywhere, and done twice.

What a run holds is judged by reading it back through the ledger, and what came through Kafka by the hot tables.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core import ids, imported, imports, ndjson, ring, rows, weeks
from core.digest import of_rows
from core.errors import RefusedError
from core.moves import COLD_FROZEN, State
from core.overlay import Row, merge_all
from core.settings import Settings
from core.tiers import Tier
from jobs import weeks as week_tables
from jobs.imports import job
from jobs.imports.placing import OTHER_CONTENT
from lakehouse.commit import live_files
from lakehouse.incoming import CUT_OFF
from lakehouse.runs import read_run
from lakehouse.site import Site, opened
from lakehouse.tables import quarantine_table
from ops.services import as_environment
from stores import conversations, kafka, messages
from stores.messages import existing_tables
from tests.client import Client
from tests.conftest import ROOT, quiet
from tests.killing_imports import POINTS, die

NOW = datetime(2025, 9, 15, tzinfo=UTC)  # a Monday
YOUNG = NOW - timedelta(days=10)  # in a hot week
OLD = datetime(2019, 4, 1, tzinfo=UTC)
SOURCE = "archive"
CHILD_SECONDS = 60
CHILDREN_AT_ONCE = 4
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.killing_imports"])
PLAIN = imports.parse_map([])
Record = dict[str, Any]
REACTION = pa.struct([("user", pa.int64()), ("reaction", pa.string()), ("at", pa.timestamp("us", "UTC"))])
COLUMNS: Any = [
    ("conversation", pa.string()),
    ("sender", pa.int64()),
    ("sent_at", pa.timestamp("us", "UTC")),
    ("body", pa.string()),
    ("body_bytes", pa.int64()),
    ("id", pa.string()),
    ("media", pa.list_(pa.string())),
    ("edited_at", pa.timestamp("us", "UTC")),
    ("deleted", pa.bool_()),
    ("reactions", pa.list_(REACTION)),
]
ARROW = pa.schema(COLUMNS)


def history(name: str, start: datetime, count: int = 60, days: float = 0.25) -> list[Record]:
    """Messages with every optional column somewhere; `name` keeps tests apart in one region."""
    return [
        message(name, number, start + timedelta(days=days * number, microseconds=number)) for number in range(count)
    ]


def message(name: str, number: int, when: datetime) -> Record:
    found: Record = {
        "conversation": f"{name}/{number % 7}",
        "sender": number % 5,
        "sent_at": when,
        "id": f"{name}{number}",
    }
    found |= {"body_bytes": 100 + number} if number % 4 == 0 else {"body": f"body {number} ü"}
    if number % 5 == 1:
        found["media"] = ["f", str(number)]
    if number % 6 == 2:
        found["edited_at"] = when + timedelta(hours=1)
    if number % 9 == 3:
        found["deleted"] = True
    if number % 8 == 5:
        found["reactions"] = [
            {"user": 1, "reaction": "+", "at": when + timedelta(minutes=1)},
            {"user": 2, "reaction": None},
        ]
    return found


def as_ndjson(path: Path, records: Iterable[Record]) -> Path:
    lines = [json.dumps(one, default=lambda when: when.isoformat(), ensure_ascii=False) for one in records]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def as_parquet(path: Path, records: Iterable[Record]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(records), schema=ARROW), path, row_group_size=25)
    return path


def comes_to(records: Sequence[Record]) -> dict[tuple[bytes, bytes], Row]:
    """By the pure rules alone."""
    plain = [json.loads(json.dumps(one, default=lambda when: when.isoformat())) for one in records]
    made = [ndjson.mapped_of(one, PLAIN.theirs) | {"line": line} for line, one in enumerate(plain, 1)]
    batch = imported.marked(ndjson.as_batch(made), SOURCE)
    return merge_all(imported.rows_of(batch, np.zeros(len(records), np.int32), SOURCE))


@dataclass(frozen=True)
class Scene:
    config: Settings
    region: str
    client: Client
    folder: Path
    site: Site

    def order(self, *paths: Path) -> job.Order:
        return job.Order(self.region, paths, PLAIN, SOURCE)

    def run(self, *paths: Path) -> Record:
        told = job.run(self.config, NOW, self.order(*paths), quiet)
        fates = sum(told["placed"].values()) + told["repeated"] + sum(told["quarantined"].values())
        assert told["read"] == fates
        return told

    def in_runs(self, week: int) -> Iterator[Row]:
        for run in self.site.ledger.runs(week, 0):
            held = [row for batch in read_run(self.site.objects, run, ring.WHOLE) for row in rows.from_batch(batch)]
            assert of_rows(held) == run.digest
            yield from held

    def found(self, records: Sequence[Record]) -> dict[tuple[bytes, bytes], Row]:
        """What is stored of the conversations of these records, wherever it lies."""
        self.client.wait_until_consumed()
        names = {ids.conversation_uuid(SOURCE, one["conversation"]) for one in records}
        held: list[Row] = []
        for unit in self.site.ledger.units():
            if unit.tier is Tier.HOT:
                held += messages.scan(self.site.db.hot, self.region, Tier.HOT, unit.week, ring.WHOLE)
            held += self.in_runs(unit.week)
        return merge_all(row for row in held if row.conversation_id in names)

    def quarantined(self, import_id: str) -> Counter[tuple[int, str]]:
        """Line and reason, of the committed file."""
        table = quarantine_table(self.site.objects, self.config.objects, self.region)
        live = [path for path, file in live_files(table).items() if file.place == (import_id,)]
        found = [pq.read_table(Path(table.uri) / path, partitioning=None) for path in live]
        return Counter((row["line"], row["reason"]) for one in found for row in one.to_pylist())

    def require_told(self, records: Sequence[Record]) -> None:
        """Readers know the weeks, the people since when, and the newest message of each conversation."""
        expected, db = comes_to(records).values(), self.site.db.hot
        for key in {row.conversation_id for row in expected}:
            mine = sorted((row for row in expected if row.conversation_id == key), key=lambda row: row.message_id)
            held = {weeks.of_id(row.message_id) for row in mine}
            assert held <= set(conversations.weeks_of(db, self.region, key))
            joined: dict[int, datetime] = {}
            for row in mine:
                when = ids.instant(row.message_id)
                joined.setdefault(row.sender_id or 0, when.replace(microsecond=when.microsecond // 1000 * 1000))
            assert conversations.members_of(db, self.region, key) == joined
            assert conversations.heads(db, self.region, key) == mine[-1].message_id


@pytest.fixture(scope="module")
def scene(
    config: Settings, region: str, client: Client, consumer: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("imports")
    apart = replace(config, state_dir=folder / "state")
    week_tables.run(apart, NOW - timedelta(days=7), (region,), quiet)
    with opened(apart, region) as site:
        yield Scene(apart, region, client, folder, site)


@pytest.mark.parametrize("form", [as_ndjson, as_parquet])
def test_old_weeks_become_runs_and_young_ones_go_through_kafka(scene: Scene, form: Any) -> None:
    name = form.__name__
    old, young = history(name, OLD), history(f"{name}-young", YOUNG, 25, 0.2)
    told = scene.run(form(scene.folder / name, [*young, *old]))
    assert told["placed"] == {"kafka": 25, "runs": 60}
    assert (told["read"], told["repeated"], told["quarantined"]) == (85, 0, {})
    expected = comes_to([*old, *young])
    assert scene.found([*old, *young]) == expected
    scene.require_told([*old, *young])
    unit = scene.site.ledger.unit(weeks.of_instant(OLD), 0)
    assert unit is not None
    assert (unit.move, unit.state, unit.shards) == (COLD_FROZEN, State.OPEN, 0)
    made = existing_tables(scene.site.db.hot, scene.region, Tier.HOT)
    assert f"messages_w{weeks.of_instant(OLD)}" not in made
    assert not list((scene.config.state_dir / "imports").iterdir())


def test_both_forms_of_one_history_are_one_history(scene: Scene) -> None:
    records = history("forms", OLD + timedelta(days=100))
    halves = as_ndjson(scene.folder / "f1", records[:40]), as_parquet(scene.folder / "f2", records[20:])
    told = scene.run(*halves)
    assert (told["placed"]["runs"], told["repeated"]) == (60, 20)
    assert scene.found(records) == comes_to(records)
    scene.run(as_parquet(scene.folder / "f3", records))
    assert scene.found(records) == comes_to(records)


def test_the_same_file_twice_changes_nothing(scene: Scene) -> None:
    records = [*history("twice", OLD + timedelta(days=200)), *history("twice-young", YOUNG, 5)]
    path = as_parquet(scene.folder / "twice", records)
    first = scene.run(path)

    def traces() -> Any:
        ledger = scene.site.ledger
        held = [run for unit in ledger.units() for run in ledger.runs(unit.week, unit.slice)]
        objects = [(one.key, one.modified_at) for one in scene.site.objects.list("")]
        return held, objects, kafka.end_offsets(scene.config.kafka, scene.region)

    before = traces()
    second = scene.run(path)
    assert traces() == before
    assert second | {"seconds": 0} == first | {"seconds": 0}


def test_bad_rows_of_every_kind_are_told_and_the_others_placed(scene: Scene) -> None:
    good = history("bad", OLD + timedelta(days=300), 10)

    def wrong(**changes: Any) -> Record:
        return {"conversation": "bad/0", "sender": 1, "sent_at": OLD, "body": "x"} | changes

    bad = {
        "conversation is missing": wrong(conversation=None),
        "sender is missing": wrong(sender=None),
        "sent_at is missing": wrong(sent_at=None),
        "sent_at is before the first week (1970-01-05)": wrong(sent_at=datetime(1969, 7, 20, tzinfo=UTC)),
        "sent_at is in the future": wrong(sent_at=NOW + timedelta(days=2)),
        "its body is over the cap": wrong(body="x" * (1024 * 1024 + 1)),
        "body_bytes is below 0": wrong(body=None, body_bytes=-1),
        "its media reference is over the cap": wrong(media=["x" * 300]),
        "edited_at is before sent_at": wrong(edited_at=OLD - timedelta(days=1)),
        "edited_at is in the future": wrong(edited_at=NOW + timedelta(days=2)),
        "a reaction is over the cap": wrong(reactions=[{"user": 1, "reaction": "x" * 1025}]),
        "a reaction is from the future": wrong(reactions=[{"user": 1, "reaction": "x", "at": NOW + timedelta(days=2)}]),
    }
    clash = [wrong(id="clash", body="one"), wrong(id="clash", body="two"), wrong(id="clash", body="one")]
    every = [*good, *bad.values(), *clash, good[0], good[0] | {"edited_at": good[0]["sent_at"] + timedelta(days=1)}]
    expected = {(11 + number, reason): 1 for number, reason in enumerate(bad)}
    expected |= {(line, OTHER_CONTENT): 1 for line in (23, 24, 25)}
    for form in (as_parquet, as_ndjson):
        told = scene.run(form(scene.folder / f"bad-{form.__name__}", every))
        assert told["quarantined"] == dict.fromkeys(bad, 1) | {OTHER_CONTENT: 3}
        assert (told["placed"]["runs"], told["repeated"]) == (11, 1)
        assert scene.quarantined(told["import"]) == expected
        assert [one["line"] for one in told["listed"]] == list(range(11, 26))
    assert scene.found(good) == comes_to([*good, every[-1]])
    with (scene.folder / "worse").open("wb") as file:
        file.write(as_ndjson(scene.folder / "w", good).read_bytes() + b'{"sender": "x"}\n{\n[]\n"\xff"\n')
    told = scene.run(scene.folder / "worse")
    reasons = ["sender is not a 64-bit number", "it is not JSON", "it is no JSON object", "it is not UTF-8"]
    assert scene.quarantined(told["import"]) == {(11 + at, reason): 1 for at, reason in enumerate(reasons)}


def test_columns_that_are_missing_or_of_another_kind_are_refused_before_anything_is_written(scene: Scene) -> None:
    path = scene.folder / "columns.parquet"
    pq.write_table(pa.table({"conversation": [1.5], "sender": [1], "when": [OLD]}), path)
    with pytest.raises(RefusedError) as refused:
        scene.run(path)
    for told in (
        "conversation is double",
        "sent_at is missing",
        "body is missing",
        "found conversation double, sender",
    ):
        assert told in refused.value.what
    assert "--map" in refused.value.do


def test_a_file_that_was_cut_off_and_then_comes_whole(scene: Scene) -> None:
    records = history("cut", OLD + timedelta(days=400), 30)
    whole = as_parquet(scene.folder / "cut.parquet", records)
    short = scene.folder / "short.parquet"
    short.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(RefusedError, match="cut off or damaged"):
        scene.run(short)
    assert scene.found(records) == {}
    lines = as_ndjson(scene.folder / "cut.ndjson", records)
    short = scene.folder / "short.ndjson"
    short.write_bytes(lines.read_bytes()[:-20])
    told = scene.run(short)
    assert told["quarantined"] == {CUT_OFF: 1}
    assert told["listed"] == [{"file": "short.ndjson", "line": 30, "reason": CUT_OFF}]
    assert scene.found(records) == comes_to(records[:-1])
    scene.run(lines)
    assert scene.found(records) == comes_to(records)


def test_a_young_week_without_tables_is_refused_until_they_are_made(scene: Scene) -> None:
    ahead = NOW + timedelta(days=30)
    records = [
        *history("ahead", OLD + timedelta(days=500), 5),
        *history("ahead-young", ahead - timedelta(days=2), 5, 0.1),
    ]
    path = as_parquet(scene.folder / "ahead", records)
    with pytest.raises(RefusedError, match="no tables are there yet for 2025-W42") as refused:
        job.run(scene.config, ahead, scene.order(path), quiet)
    assert "./firn weeks --region" in refused.value.do
    assert scene.found(records) == {}
    week_tables.run(scene.config, ahead, (scene.region,), quiet)
    told = job.run(scene.config, ahead, scene.order(path), quiet)
    assert told["placed"] == {"kafka": 5, "runs": 5}
    assert scene.found(records) == comes_to(records)


def test_killed_at_every_point_and_run_again(scene: Scene) -> None:
    """Each point has a history of its own. What comes out is what a calm import would have made."""
    cases = {point: killed_history(scene, number) for number, point in enumerate(POINTS)}
    waiting = list(POINTS)
    while waiting:
        batch, waiting = waiting[:CHILDREN_AT_ONCE], waiting[CHILDREN_AT_ONCE:]
        kill(scene, {point: cases[point][0] for point in batch})
    for point, (order, records) in cases.items():
        told = scene.run(*order.files)
        assert counted(told) == {"read": 74, "kafka": 10, "runs": 61, "repeated": 1, "quarantined": 2}, point
        assert scene.quarantined(told["import"]) == {(73, OTHER_CONTENT): 1, (74, OTHER_CONTENT): 1}, point
        assert scene.found(records) == comes_to(records), point
        scene.require_told(records)
    assert not list((scene.config.state_dir / "imports").glob("*/"))


def kill(scene: Scene, orders: dict[str, job.Order]) -> None:
    logs = {point: scene.folder / f"{point}.log" for point in orders}
    children = {
        point: FORKS.Process(target=die, args=(point, scene.config, NOW, order, logs[point]))
        for point, order in orders.items()
    }
    for child in children.values():
        child.start()
    for point, child in children.items():
        child.join(CHILD_SECONDS)
        assert child.exitcode == -9, f"{point}: {logs[point].read_text()[-1500:]}"


def killed_history(scene: Scene, number: int) -> tuple[job.Order, list[Record]]:
    name = f"killed{number}"
    records = [*history(name, OLD + timedelta(days=700 + 7 * number)), *history(f"{name}-young", YOUNG, 10)]
    edited = records[0] | {"edited_at": records[0]["sent_at"] + timedelta(days=2)}
    clash = [records[1] | {"id": "clash", "body": body} for body in ("one", "two")]
    path = as_parquet(scene.folder / name, [*records, edited, records[0], *clash])
    return scene.order(path), [*records, edited]


def counted(told: Record) -> dict[str, int]:
    quarantined = sum(told["quarantined"].values())
    return {"read": told["read"], **told["placed"], "repeated": told["repeated"], "quarantined": quarantined}


def test_the_command_line_imports_and_tells(scene: Scene) -> None:
    records = history("command", OLD + timedelta(days=900), 8)
    path = as_ndjson(scene.folder / "command.ndjson", [one | {"author": one["sender"]} for one in records])
    words = ["import", str(path), "--source", SOURCE, "--map", "sender=author", "--now", NOW.isoformat()]

    def firn(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ops.cli", *words, *more]
        environ = os.environ | as_environment(scene.config)
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environ, check=False)

    done = firn("--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["read"], told["placed"]["runs"]) == (8, 8)
    assert told["files"] == [{"name": "command.ndjson", "form": "ndjson", "ignored": ["sender"]}]
    assert "read 8 of 8 rows (" in done.stderr
    assert scene.found(records) == comes_to(records)
    again = firn()
    assert again.returncode == 0
    assert "was done before: nothing changes" in again.stderr
    assert "in runs: cold and frozen weeks" in again.stdout
    assert firn("--map", "id=nowhere").returncode == RefusedError.exit_code
