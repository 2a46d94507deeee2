"""What of a table's log may go, on real tables in a directory; a table is the same for every reader afterwards."""

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BlockedError, DamagedError, OutcomeUnknownError
from core.settings import Objects as ObjectSettings
from lakehouse.commit import PartFile, checkpoint, commit, create_table, latest_version, live_files, transaction_version
from lakehouse.deltalog import (
    Log,
    actions_of,
    base_of,
    checkpoint_key,
    commit_key,
    expired,
    hint_key,
    log_of,
    removed_files,
    require_same,
)
from lakehouse.paths import data_path
from lakehouse.tables import TableRef, messages_table
from stores.buckets import open_objects
from stores.objects import ListedObject
from tests.checker import live_paths

NOW = datetime(2026, 11, 1, tzinfo=UTC)
WEEK = 2913
KEEP = timedelta(days=7)


@pytest.fixture
def table(tmp_path: Path) -> TableRef:
    store = ObjectSettings(url=f"file:{tmp_path}")
    ref = messages_table(open_objects(store, "us"), store, "us", 0)
    create_table(ref)
    return ref


def replace_file(table: TableRef, number: int, shard: int = 0) -> str:
    """A commit that puts another file in the place of the shard's; nobody reads its bytes here."""
    path, data = data_path(WEEK, shard, 1, secrets.token_hex(8)), b"bytes"
    table.objects.put(f"{table.root}/{path}", data)
    old = tuple(known for known, file in live_files(table, WEEK).items() if file.place == (WEEK, shard))
    part = PartFile(path, len(data), 1, (WEEK, shard), old)
    commit(table, [part], app_id="us/unit", number=number, attempt_id=path, now=NOW + timedelta(hours=number))
    return path


def history(table: TableRef, *numbers: int) -> list[str]:
    return [replace_file(table, number, number % 2) for number in numbers]


def clean(table: TableRef, keep: timedelta = timedelta(), limit: int | None = None) -> int:
    """As maintain does, or as one that is killed after `limit` files."""
    log, later = log_of(table), datetime.now(UTC) + timedelta(minutes=1)
    base = base_of(log, later, keep)
    gone = expired(log, base)
    if gone and base is not None:
        require_same(table, log, base)
    for one in gone[:limit]:
        table.objects.delete(one.key)
    return len(gone[:limit])


def root(table: TableRef) -> Path:
    return Path(table.uri)


def stored(version: int, kind: str, age: timedelta) -> ListedObject:
    return ListedObject(f"t/_delta_log/{version:020d}{kind}", 1, "STANDARD", NOW - age)


ages = st.timedeltas(timedelta(), timedelta(days=30))


@st.composite
def logs(draw: st.DrawFn) -> Log:
    last = draw(st.integers(0, 30))
    held = draw(st.sets(st.integers(0, last)))
    commits = {version: stored(version, ".json", draw(ages)) for version in range(last + 1)}
    checkpoints = {version: stored(version, ".checkpoint.parquet", draw(ages)) for version in held}
    return Log(commits, checkpoints, draw(st.sampled_from([None, *sorted(held)])))


@given(logs(), ages)
def test_a_reader_finds_a_checkpoint_and_all_that_came_after_it(log: Log, keep: timedelta) -> None:
    base = base_of(log, NOW, keep)
    gone = {one.key for one in expired(log, base)}
    if base is None:
        assert not gone
        return
    assert NOW - log.checkpoints[base].modified_at >= keep
    assert log.hint is not None
    assert log.hint >= base
    kept = [*log.commits.items(), *log.checkpoints.items()]
    assert gone.isdisjoint(one.key for version, one in kept if version >= base)
    assert gone == {one.key for version, one in kept if version < base}


@given(logs(), ages)
def test_the_oldest_goes_first(log: Log, keep: timedelta) -> None:
    gone = [one.key for one in expired(log, base_of(log, NOW, keep))]
    assert gone == sorted(gone)


def test_a_young_checkpoint_is_no_reason_to_forget() -> None:
    log = Log(
        {0: stored(0, ".json", KEEP), 1: stored(1, ".json", KEEP)}, {1: stored(1, ".checkpoint.parquet", KEEP)}, 1
    )
    assert [one.key for one in expired(log, base_of(log, NOW, KEEP))] == [log.commits[0].key]
    assert base_of(log, NOW, KEEP + timedelta(seconds=1)) is None


def test_the_log_tells_what_was_replaced_and_when(table: TableRef) -> None:
    first, second, third = history(table, 2, 4, 6)
    assert removed_files(table, log_of(table)) == {
        first: NOW + timedelta(hours=4),
        second: NOW + timedelta(hours=6),
    }
    assert set(live_files(table)) == {third}
    stale = log_of(table)
    table.objects.delete(commit_key(table, 2))
    assert removed_files(table, stale) == {second: NOW + timedelta(hours=6)}


def test_commits_are_counted_from_the_newest_checkpoint(table: TableRef) -> None:
    assert log_of(table).since_checkpoint == 1
    history(table, 1, 2)
    assert log_of(table).since_checkpoint == 3
    assert checkpoint(table) == 2
    assert (log_of(table).since_checkpoint, log_of(table).hint) == (0, 2)
    history(table, 3)
    assert log_of(table).since_checkpoint == 1


def test_a_table_that_nobody_made_has_no_log(tmp_path: Path) -> None:
    store = ObjectSettings(url=f"file:{tmp_path}")
    log = log_of(messages_table(open_objects(store, "us"), store, "us", 0))
    assert (log, expired(log, None), log.since_checkpoint) == (Log(), [], 0)


def test_a_cleaned_table_is_the_same_and_goes_on(table: TableRef) -> None:
    history(table, *range(1, 6))
    checkpoint(table)
    history(table, *range(6, 9))
    live, numbers = live_files(table), transaction_version(table, "us/unit")
    assert live_paths(root(table)) == live.keys()
    assert clean(table) == 5
    assert sorted(log_of(table).commits) == [5, 6, 7, 8]
    create_table(table)  # as every publish does: it must not begin a second history
    assert 0 not in log_of(table).commits
    assert (live_files(table), transaction_version(table, "us/unit"), latest_version(table)) == (live, numbers, 8)
    assert live_paths(root(table)) == live.keys()
    history(table, 9)
    assert latest_version(table) == 9
    assert live_paths(root(table)) == live_files(table).keys()
    assert clean(table) == 0


def test_an_attempt_from_before_is_unknown(table: TableRef) -> None:
    (path,) = history(table, 2)
    history(table, 3, 5)
    checkpoint(table)
    clean(table)
    part = PartFile(path, 5, 1, (WEEK, 0))
    with pytest.raises(OutcomeUnknownError, match="the log that tells whose is cleaned away"):
        commit(table, [part], app_id="us/unit", number=2, attempt_id=path, now=NOW)


def test_the_second_cleaning_proves_from_the_first_checkpoint_on(table: TableRef) -> None:
    for numbers in ((1, 2, 3), (4, 5), (6, 7)):
        history(table, *numbers)
        checkpoint(table)
        clean(table)
    assert sorted(log_of(table).commits) == [7]
    assert sorted(log_of(table).checkpoints) == [7]
    assert live_paths(root(table)) == live_files(table).keys()


@pytest.mark.parametrize("limit", range(9))
def test_a_killed_cleaning_goes_on(table: TableRef, limit: int) -> None:
    history(table, 1, 2, 3)
    checkpoint(table)
    history(table, 4, 5, 6)
    checkpoint(table)
    history(table, 7)
    live = live_files(table)
    done = clean(table, limit=limit)
    assert live_files(table) == live
    assert live_paths(root(table)) == live.keys()
    assert done + clean(table) == 7  # 0 to 5 and the checkpoint of 3
    assert sorted(log_of(table).commits) == [6, 7]
    assert live_files(table) == live


def other_checkpoint(table: TableRef, version: int) -> None:
    """One that lacks a file, as a broken writer would leave it."""
    key = checkpoint_key(table, version)
    rows = pa.parquet.read_table(pa.BufferReader(table.objects.get(key)))
    held = rows.to_pylist()
    kept = [row for row in held if not (row["add"] and dict(row["add"]["partitionValues"])["shard"] == "1")]
    assert len(kept) == len(held) - 1
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.Table.from_pylist(kept, schema=rows.schema), sink)
    table.objects.put(key, sink.getvalue().to_pybytes())


def test_a_checkpoint_that_is_wrong_costs_nothing(table: TableRef) -> None:
    history(table, 1, 2, 3)
    checkpoint(table)
    other_checkpoint(table, 3)
    with pytest.raises(DamagedError, match="not what its log says"):
        clean(table)
    assert len(log_of(table).commits) == 4
    table.objects.delete(checkpoint_key(table, 3))
    table.objects.delete(hint_key(table))
    assert len(live_files(table)) == 2


def test_a_checkpoint_that_forgot_a_number_costs_nothing(table: TableRef) -> None:
    history(table, 1, 2)
    checkpoint(table)
    numbers = actions_of(table, 2)["txn"]
    assert numbers == [{"appId": "us/unit", "version": 2}]
    text = table.objects.get(commit_key(table, 2)).replace(b'"version":2', b'"version":3')
    table.objects.put(commit_key(table, 2), text)
    with pytest.raises(DamagedError, match="not what its log says"):
        clean(table)


def test_a_gap_in_the_log_is_not_taken_for_proof(table: TableRef) -> None:
    history(table, 1, 2, 3)
    checkpoint(table)
    table.objects.delete(commit_key(table, 2))
    with pytest.raises(DamagedError, match="has a gap before version 3"):
        clean(table)


def test_without_a_store_no_checkpoint_is_made(table: TableRef) -> None:
    folder = root(table) / "_delta_log"
    folder.rename(folder.with_name("away"))
    folder.with_name("_delta_log").write_text("not a folder")
    with pytest.raises(BlockedError):
        checkpoint(table)
