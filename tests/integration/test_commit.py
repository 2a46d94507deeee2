"""Commits to real Delta tables, in a directory and on S3: one winner, no second commit, nothing that is not checked."""

import json
import logging
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_delta
import duckdb_extension_httpfs
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from moto.server import ThreadedMotoServer

from core.errors import OutcomeUnknownError, RefusedError
from core.settings import Objects as ObjectSettings
from core.settings import Secret
from lakehouse import commit as committing
from lakehouse.coldfile import read_cold_file
from lakehouse.commit import (
    PartFile,
    SourceChangedError,
    StaleCommitError,
    checkpoint,
    commit,
    create_table,
    latest_version,
    live_files,
    transaction_version,
)
from lakehouse.deltalog import expired, log_of, removed_files, require_same
from lakehouse.paths import data_path
from lakehouse.tables import MESSAGES, TableRef, messages_table
from lakehouse.writer import ColdFile, write_cold_file
from schemas.tables import CANONICAL
from stores.buckets import open_objects

NOW = datetime(2026, 11, 1, tzinfo=UTC)
WEEK = 2913
ROUNDS = 200
ROUNDS_ON_S3 = 20  # the double needs most of a second for each; 200 were run by hand
UNIT = f"us/{WEEK}/0"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectSettings:
    if request.param == "directory":
        return ObjectSettings(url=f"file:{tmp_path}")
    return ObjectSettings(
        url=f"s3://{secrets.token_hex(5)}-",
        endpoint=request.getfixturevalue("endpoint"),
        access_key="key",
        secret_key=Secret("secret"),
    )


@pytest.fixture
def table(store: ObjectSettings) -> TableRef:
    ref = messages_table(open_objects(store, "us"), store, "us", 0)
    create_table(ref)
    return ref


def rows(count: int = 3, body: bytes = b"ciphertext") -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [
            {
                "conversation_id": number.to_bytes(16, "big"),
                "message_id": (1000 + number).to_bytes(16, "big"),
                "sender_id": number,
                "message_type": 1,
                "body": body,
                "deleted": number == 2,
                "server_ts": datetime(2025, 11, 3, 1, 2, 3, 4000, UTC),
                "reactions": [{"user_id": 5, "event_id": bytes(16), "reaction": b"r"}] if number == 1 else None,
            }
            for number in range(count)
        ],
        schema=CANONICAL,
    )


def written(table: TableRef, shard: int, attempt: str, batch: pa.RecordBatch, epoch: int = 1) -> ColdFile:
    return write_cold_file(
        [batch], table.objects, f"{table.root}/{data_path(WEEK, shard, epoch, attempt)}", row_group_bytes=1_000
    )


def part(table: TableRef, shard: int = 0, *replaces: str, batch: pa.RecordBatch | None = None) -> PartFile:
    attempt = secrets.token_hex(8)
    file = written(table, shard, attempt, rows() if batch is None else batch)
    return PartFile(data_path(WEEK, shard, 1, attempt), file.size_bytes, file.rows, (WEEK, shard), replaces)


def commit_one(table: TableRef, number: int, *parts: PartFile, attempt: str = "") -> int:
    return commit(table, parts, app_id=UNIT, number=number, attempt_id=attempt or parts[0].path, now=NOW)


def test_a_table_is_made_once(table: TableRef) -> None:
    create_table(table)
    assert latest_version(table) == 0
    assert live_files(table) == {}


def test_a_table_that_is_not_there_is_refused(store: ObjectSettings) -> None:
    with pytest.raises(RefusedError, match="does not exist"):
        latest_version(messages_table(open_objects(store, "us"), store, "us", 0))


def test_a_table_of_other_columns_is_refused(store: ObjectSettings) -> None:
    ref = messages_table(open_objects(store, "us"), store, "us", 0)
    other = pa.schema([pa.field("x", pa.int64())])
    DeltaTable.create(ref.uri, other, storage_options=ref.options)
    with pytest.raises(RefusedError, match="other columns"):
        create_table(ref)


def test_files_are_added_then_replaced(table: TableRef) -> None:
    first, other = part(table, 0), part(table, 1)
    assert commit_one(table, 1, first, other) == 1
    assert set(live_files(table, WEEK)) == {first.path, other.path}
    second = part(table, 0, first.path, batch=rows(2))
    assert commit_one(table, 2, second) == 2
    live = live_files(table)
    assert set(live) == {second.path, other.path}
    found = live[second.path]
    assert (found.size_bytes, found.rows, found.place) == (second.size_bytes, 2, (WEEK, 0))
    assert live_files(table, WEEK + 1) == {}
    assert transaction_version(table, UNIT) == 2


def test_a_file_may_go_without_one_in_its_place(table: TableRef) -> None:
    first, other = part(table, 0), part(table, 1)
    commit_one(table, 1, first, other)

    def remove(number: int, *paths: str) -> int:
        return commit(table, [], app_id=UNIT, number=number, attempt_id="away", now=NOW, removes=paths)

    assert [remove(2, first.path), remove(2, first.path)] == [2, 2]
    assert set(live_files(table)) == {other.path}
    with pytest.raises(SourceChangedError, match="not live any more"):
        remove(3, first.path)
    with pytest.raises(RefusedError, match="one new file"):
        remove(3)


def test_more_shards_take_the_place_of_fewer(table: TableRef) -> None:
    coarse = [part(table, 0), part(table, 1)]
    commit_one(table, 1, *coarse)
    fine = [part(table, shard, coarse[shard // 2].path) for shard in range(4)]
    commit_one(table, 2, *fine)
    assert set(live_files(table)) == {one.path for one in fine}
    back = [part(table, shard, fine[2 * shard].path, fine[2 * shard + 1].path) for shard in range(2)]
    commit_one(table, 3, *back)
    assert set(live_files(table)) == {one.path for one in back}


def test_a_dead_source_path_means_derive_anew(table: TableRef) -> None:
    first = part(table)
    commit_one(table, 1, first)
    commit_one(table, 2, part(table, 0, first.path))
    with pytest.raises(SourceChangedError, match="not live any more"):
        commit_one(table, 3, part(table, 0, first.path))
    assert latest_version(table) == 2
    assert transaction_version(table, UNIT) == 2


def test_a_first_file_is_first_only_once(table: TableRef) -> None:
    commit_one(table, 1, part(table))
    with pytest.raises(SourceChangedError, match="does not replace it"):
        commit_one(table, 2, part(table))
    assert latest_version(table) == 1


def test_a_call_whose_reply_was_lost_is_made_again_without_harm(table: TableRef) -> None:
    first = part(table)
    assert commit_one(table, 1, first) == 1
    assert commit_one(table, 1, first) == 1
    commit(table, [part(table, 1)], app_id="us/other", number=9, attempt_id="x", now=NOW)
    second = part(table, 0, first.path)
    assert commit_one(table, 2, second) == 3
    assert commit_one(table, 2, second) == 3
    assert commit_one(table, 1, first) == 1
    assert latest_version(table) == 3


def test_another_attempt_with_a_used_number_is_stale(table: TableRef) -> None:
    first = part(table)
    commit_one(table, 5, first)
    for number in (4, 5):
        with pytest.raises(StaleCommitError):
            commit_one(table, number, part(table, 0, first.path))
    assert latest_version(table) == 1


@pytest.mark.parametrize("landed", [True, False])
def test_a_lost_reply_inside_is_looked_up(table: TableRef, monkeypatch: pytest.MonkeyPatch, landed: bool) -> None:
    write = committing._write
    fallen: list[int] = []

    def lossy(*arguments: Any) -> None:
        if fallen:
            return write(*arguments)
        fallen.append(1)
        if landed:
            write(*arguments)
        raise OSError("the line went dead")

    monkeypatch.setattr(committing, "_write", lossy)
    assert commit_one(table, 1, part(table)) == 1
    assert latest_version(table) == 1


def test_a_store_that_never_answers_leaves_it_unknown(table: TableRef, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: Any) -> None:
        raise OSError("the line went dead")

    first = part(table)
    with monkeypatch.context() as patch:
        patch.setattr(committing, "_write", dead)
        with pytest.raises(OutcomeUnknownError, match="run the same again"):
            commit_one(table, 1, first)
    assert commit_one(table, 1, first) == 1


def slip_in(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Runs `action` between the next load and its commit."""
    write = committing._write

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(committing, "_write", write)
        action()
        write(*arguments)

    monkeypatch.setattr(committing, "_write", late)


def test_a_stranger_between_load_and_commit_only_costs_a_try(table: TableRef, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = part(table, 0), part(table, 1)
    slip_in(monkeypatch, lambda: commit(table, [theirs], app_id="us/x", number=1, attempt_id="theirs", now=NOW))
    assert commit_one(table, 1, mine) == 2
    assert set(live_files(table)) == {mine.path, theirs.path}


def test_a_rival_between_load_and_commit_wins_alone(table: TableRef, monkeypatch: pytest.MonkeyPatch) -> None:
    first = part(table)
    commit_one(table, 1, first)
    theirs = part(table, 0, first.path)
    slip_in(monkeypatch, lambda: commit(table, [theirs], app_id="us/x", number=1, attempt_id="theirs", now=NOW))
    with pytest.raises(SourceChangedError):
        commit_one(table, 2, part(table, 0, first.path))
    assert set(live_files(table)) == {theirs.path}
    slip_in(monkeypatch, lambda: commit_one(table, 3, part(table, 0, theirs.path)))
    with pytest.raises(StaleCommitError):
        commit_one(table, 3, part(table, 0, theirs.path), attempt="mine")


def test_the_same_attempt_twice_at_once_commits_once(table: TableRef, monkeypatch: pytest.MonkeyPatch) -> None:
    one = part(table)
    slip_in(monkeypatch, lambda: commit_one(table, 1, one))
    assert commit_one(table, 1, one) == 1
    assert latest_version(table) == 1


def test_what_was_not_written_is_not_committed(table: TableRef) -> None:
    real = part(table)
    ghost = PartFile(data_path(WEEK, 0, 1, "ghost"), 10, 1, (WEEK, 0))
    short = PartFile(real.path, real.size_bytes - 1, real.rows, (WEEK, 0))
    for wrong in (ghost, short):
        with pytest.raises(RefusedError, match="data file"):
            commit_one(table, 1, wrong)
    assert latest_version(table) == 0


def test_a_commit_touches_each_place_once(table: TableRef) -> None:
    one, two = part(table), part(table)
    stray = PartFile(one.path, one.size_bytes, one.rows, (WEEK, 1))
    itself = PartFile(one.path, one.size_bytes, one.rows, (WEEK, 0), (one.path,))
    for wrong in ([one, two], [stray], [itself], []):
        with pytest.raises(RefusedError, match="one new file for each"):
            commit(table, wrong, app_id=UNIT, number=1, attempt_id="a", now=NOW)


def test_the_log_holds_counts_and_nothing_of_rows(table: TableRef) -> None:
    first = part(table)
    commit_one(table, 1, first)
    commit_one(table, 2, part(table, 0, first.path))
    names = [listed.key for listed in table.objects.list(f"{table.root}/_delta_log/")]
    assert [name.rpartition("/")[2] for name in names] == [f"{version:020d}.json" for version in range(3)]
    actions = [json.loads(line) for line in table.objects.get(names[2]).splitlines()]
    (add,) = [action["add"] for action in actions if "add" in action]
    (remove,) = [action["remove"] for action in actions if "remove" in action]
    assert json.loads(add["stats"]) == {"numRecords": 3}
    assert add["partitionValues"] == remove["partitionValues"] == {"week": str(WEEK), "shard": "0"}
    assert remove["deletionTimestamp"] == int(NOW.timestamp() * 1000)
    (protocol,) = [json.loads(line) for line in table.objects.get(names[0]).splitlines() if b'"protocol"' in line[:12]]
    assert protocol["protocol"] == {"minReaderVersion": 1, "minWriterVersion": 2}


def test_a_checkpoint_is_written_when_asked_and_changes_nothing(table: TableRef) -> None:
    first = part(table)
    for number in range(1, 15):
        commit(table, [part(table, number)], app_id="us/x", number=number, attempt_id=str(number), now=NOW)
    commit_one(table, 1, first)
    before = live_files(table)
    assert not [one for one in table.objects.list(f"{table.root}/_delta_log/") if "checkpoint" in one.key]
    checkpoint(table)
    assert [one for one in table.objects.list(f"{table.root}/_delta_log/") if "checkpoint" in one.key]
    assert live_files(table) == before
    assert commit_one(table, 1, first) == 15
    for version in range(16):
        table.objects.delete(f"{table.root}/_delta_log/{version:020d}.json")
    assert live_files(table) == before
    with pytest.raises(OutcomeUnknownError, match="cleaned away"):
        commit_one(table, 1, first)


def test_a_log_is_cut_and_the_table_goes_on(table: TableRef, store: ObjectSettings) -> None:
    first = part(table, 0, batch=rows(40, b"old"))
    commit_one(table, 1, first)
    second = part(table, 0, first.path, batch=rows(35, b"new"))
    commit_one(table, 2, second)
    assert checkpoint(table) == 2
    log = log_of(table)
    assert (log.hint, log.since_checkpoint, list(log.commits), list(log.checkpoints)) == (2, 0, [0, 1, 2], [2])
    require_same(table, log, 2)
    for one in expired(log, 2):
        table.objects.delete(one.key)
    assert list(log_of(table).commits) == [2]
    create_table(table)
    assert commit_one(table, 2, second) == 2
    with pytest.raises(OutcomeUnknownError, match="cleaned away"):
        commit_one(table, 1, first)
    third = part(table, 0, second.path, batch=rows(30, b"newer"))
    assert commit_one(table, 3, third) == 3
    assert removed_files(table, log_of(table)) == dict.fromkeys((first.path, second.path), NOW)
    assert through_duckdb(table, store).to_pylist() == [
        row | {"week": WEEK, "shard": 0} for row in rows(30, b"newer").to_pylist()
    ]


WORKER = """
import json, sys
from datetime import UTC, datetime
from core.settings import Objects, Secret
from lakehouse.commit import PartFile, SourceChangedError, commit
from lakehouse.tables import messages_table
from stores.buckets import open_objects
given = json.loads(sys.stdin.readline())
store = Objects(given["url"], given["endpoint"], given["region"], given["access_key"], Secret(given["secret"]))
table = messages_table(open_objects(store, "us"), store, "us", 0)
print("ready", flush=True)
for line in sys.stdin:
    turn = json.loads(line)
    part = PartFile(**turn["part"] | {name: tuple(turn["part"][name]) for name in ("place", "replaces")})
    try:
        now = datetime(2026, 11, 1, tzinfo=UTC)
        version = commit(table, [part], app_id=turn["app_id"], number=turn["number"], attempt_id=part.path, now=now)
        print(json.dumps(version), flush=True)
    except SourceChangedError:
        print("null", flush=True)
"""


@pytest.fixture
def rivals(store: ObjectSettings) -> Iterator[list[subprocess.Popen[str]]]:
    given = {field: str(value) for field, value in asdict(store).items()} | {"secret": store.secret_key.reveal()}
    started = []
    for _ in range(2):
        rival = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        tell(rival, given)
        started.append(rival)
    assert [hear(rival) for rival in started] == ["ready\n"] * 2
    yield started
    for rival in started:
        assert rival.stdin is not None
        assert rival.stdout is not None
        rival.stdin.close()
        rival.wait(10)
        rival.stdout.close()


def tell(rival: subprocess.Popen[str], what: dict[str, Any]) -> None:
    assert rival.stdin is not None
    rival.stdin.write(json.dumps(what) + "\n")
    rival.stdin.flush()


def hear(rival: subprocess.Popen[str]) -> str:
    assert rival.stdout is not None
    return rival.stdout.readline()


def test_two_processes_have_one_winner_each_round(table: TableRef, rivals: list[subprocess.Popen[str]]) -> None:
    rounds, live = (ROUNDS_ON_S3 if table.options else ROUNDS), ""
    for number in range(1, rounds + 1):
        offers = [part(table, 0, *([live] if live else [])) for _ in rivals]
        for app, (rival, offer) in enumerate(zip(rivals, offers, strict=True)):
            tell(rival, {"part": asdict(offer), "app_id": f"unit-{app}", "number": number})
        answers = [json.loads(hear(rival)) for rival in rivals]
        winners = [offer.path for offer, version in zip(offers, answers, strict=True) if version is not None]
        assert winners == list(live_files(table))
        assert number in answers
        (live,) = winners
        if number % 20 == 0:  # as maintenance does, so that no load reads a long log
            checkpoint(table)
    assert latest_version(table) == rounds


def through_duckdb(table: TableRef, store: ObjectSettings) -> pa.Table:
    engine = duckdb.connect(config={"autoinstall_known_extensions": False})
    for extension in (duckdb_extension_httpfs, duckdb_extension_delta):
        (file,) = Path(str(extension.__file__)).parent.rglob("*.duckdb_extension")
        engine.sql(f"LOAD '{file}'")
    engine.sql("SET TimeZone = 'UTC'")
    if store.endpoint:
        where = store.endpoint.removeprefix("http://")
        engine.sql(
            f"CREATE SECRET lake (TYPE s3, KEY_ID 'key', SECRET 'secret', ENDPOINT '{where}', URL_STYLE 'path',"
            f" USE_SSL false, REGION '{store.region}')"
        )
    names = ", ".join(CANONICAL.names)
    order = "ORDER BY conversation_id, message_id"
    return engine.sql(f"SELECT {names}, week, shard FROM delta_scan('{table.uri}') {order}").to_arrow_table()


def test_every_engine_reads_the_same_rows(table: TableRef, store: ObjectSettings) -> None:
    first = part(table, 0, batch=rows(40, b"old"))
    commit_one(table, 1, first)
    second = part(table, 0, first.path, batch=rows(35, b"new"))
    commit_one(table, 2, second)
    expected = rows(35, b"new").to_pylist()
    key = f"{table.root}/{second.path}"
    told = table.objects.head(key)
    assert told is not None
    assert pa.Table.from_batches(list(read_cold_file(table.objects, key, told.sha256))).to_pylist() == expected
    through_delta_rs = pa.table(DeltaTable(table.uri, storage_options=table.options).scan())
    scanned = through_delta_rs.select(MESSAGES.names).cast(MESSAGES).sort_by("conversation_id")
    placed = [row | {"week": WEEK, "shard": 0} for row in expected]
    assert scanned.to_pylist() == placed
    assert through_duckdb(table, store).to_pylist() == placed
