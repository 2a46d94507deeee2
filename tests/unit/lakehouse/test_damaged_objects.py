"""Each kind of object that the lake is made of, altered, cut short, emptied and gone: found, and named by kind.

Over the directory store; none of it needs a service.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from core.errors import BlockedError, DamagedError, FirnError
from core.rows import ID_BYTES
from core.settings import Objects as ObjectSettings
from lakehouse import deltalog
from lakehouse.coldfile import read_cold_file
from lakehouse.commit import PartFile, checkpoint, commit, create_table, live_files
from lakehouse.index import require_readable
from lakehouse.paths import data_path, index_key
from lakehouse.tables import TableRef, frozen_table, messages_table, quarantine_table
from lakehouse.writer import ColdFile, write_cold_file
from schemas.tables import CANONICAL
from stores.buckets import open_objects

WEEK = 2900
NOW = datetime(2026, 1, 1, tzinfo=UTC)
COMMITS = 3


def rows(count: int = 200) -> pa.RecordBatch:
    plain = {"message_type": 1, "deleted": False, "server_ts": NOW, "reactions": None}
    return pa.RecordBatch.from_pylist(
        [
            {
                "conversation_id": (number // 20).to_bytes(ID_BYTES, "big"),
                "message_id": (1000 + number).to_bytes(ID_BYTES, "big"),
                "sender_id": number,
                "body": secrets.token_bytes(200),
                **plain,
            }
            for number in range(count)
        ],
        schema=CANONICAL,
    )


@dataclass(frozen=True)
class Lake:
    bucket: Path
    table: TableRef
    key: str
    file: ColdFile

    def path(self, key: str) -> Path:
        return self.bucket / key

    def read(self) -> int:
        return sum(batch.num_rows for batch in read_cold_file(self.table.objects, self.key, self.file.sha256))

    def read_by_index(self) -> None:
        require_readable(self.table.objects, self.key, self.file.sha256)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    settings = ObjectSettings(url=f"file:{tmp_path}")
    table = messages_table(open_objects(settings, "us"), settings, "us", 0)
    create_table(table)
    last: tuple[str, ...] = ()
    for number in range(1, COMMITS + 1):
        path = data_path(WEEK, 0, number, secrets.token_hex(8))
        file = write_cold_file([rows()], table.objects, f"{table.root}/{path}", row_group_bytes=5_000)
        part = PartFile(path, file.size_bytes, file.rows, (WEEK, 0), last)
        commit(table, [part], app_id="unit", number=number, attempt_id=path, now=NOW)
        last = (path,)
    (bucket,) = (path for path in tmp_path.iterdir() if (path / "lake").is_dir())
    return Lake(bucket, table, f"{table.root}/{last[0]}", file)


def flipped(path: Path) -> None:
    """One bit, in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    """By as many other bytes."""
    path.write_bytes(bytes(path.stat().st_size))


TORN = (cut, halved, emptied, replaced)
Harm = Callable[[Path], None]


def found(kind: type[FirnError], act: Callable[[], object], *words: str) -> None:
    with pytest.raises(kind) as caught:
        act()
    text = str(caught.value)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("harm", [flipped, *TORN])
def test_a_data_file(lake: Lake, harm: Harm) -> None:
    assert lake.read() == 200
    harm(lake.path(lake.key))
    found(
        DamagedError, lake.read, f"cold file {lake.key} is damaged", "from a copy of the bucket", "nothing was dropped"
    )
    if harm is not cut:  # whose last bytes are Parquet's own tail, which an index has, too
        found(DamagedError, lake.read_by_index, f"cold file {lake.key} is damaged")


@pytest.mark.parametrize("harm", [*TORN, Path.unlink])
def test_an_index(lake: Lake, harm: Harm) -> None:
    lake.read_by_index()
    harm(lake.path(index_key(lake.key)))
    words = (f"the index of cold file {lake.key}", f"bring {index_key(lake.key)} back", "nothing was dropped")
    found(DamagedError, lake.read_by_index, *words)


def test_an_index_of_another_file(lake: Lake) -> None:
    other = f"{lake.table.root}/{data_path(WEEK, 0, 9, 'other')}"
    write_cold_file([rows()], lake.table.objects, other, row_group_bytes=5_000)
    theirs = lake.table.objects.get(index_key(other))
    lake.table.objects.delete(index_key(lake.key))
    lake.table.objects.put(index_key(lake.key), theirs)
    found(DamagedError, lake.read_by_index, f"the index of cold file {lake.key} is damaged")


@pytest.mark.parametrize("harm", [cut, halved, replaced, Path.unlink])
def test_a_commit(lake: Lake, harm: Harm) -> None:
    """A table is not opened at an older version of itself, nor taken for one that is merely away."""
    for version in (1, COMMITS - 1):
        key = deltalog.commit_key(lake.table, version)
        good = lake.path(key).read_bytes()
        harm(lake.path(key))
        found(
            DamagedError,
            lambda: live_files(lake.table),
            f"table {lake.table.root}",
            f"commit {version}",
            f"bring {key}",
        )
        lake.path(key).write_bytes(good)
    assert len(live_files(lake.table)) == 1


def test_a_commit_that_is_empty(lake: Lake) -> None:
    """Which an engine takes for one that did nothing. Every drop asks for it."""
    deltalog.require_legible(lake.table)
    emptied(lake.path(deltalog.commit_key(lake.table, 1)))
    words = (f"commit 1 in the log of table {lake.table.root} is damaged", "nothing was dropped")
    found(DamagedError, lambda: deltalog.require_legible(lake.table), *words)


@pytest.mark.parametrize("harm", TORN)
def test_a_checkpoint(lake: Lake, harm: Harm) -> None:
    version = checkpoint(lake.table)
    key = deltalog.checkpoint_key(lake.table, version)
    good = lake.path(key).read_bytes()
    harm(lake.path(key))
    words = (
        f"the checkpoint of version {version} in the log of table {lake.table.root} is damaged",
        f"bring {key} back",
    )
    found(DamagedError, lambda: live_files(lake.table), *words)
    log = deltalog.log_of(lake.table)
    found(DamagedError, lambda: deltalog.require_same(lake.table, log, version), *words)
    lake.path(key).write_bytes(good)
    assert len(live_files(lake.table)) == 1


@pytest.mark.parametrize("harm", TORN)
def test_the_note_of_the_last_checkpoint(lake: Lake, harm: Harm) -> None:
    checkpoint(lake.table)
    key = deltalog.hint_key(lake.table)
    harm(lake.path(key))
    found(DamagedError, lambda: deltalog.log_of(lake.table), "_last_checkpoint in the log of", f"bring {key} back")


@pytest.mark.parametrize("make", [frozen_table, quarantine_table], ids=["the manifest", "the quarantine"])
@pytest.mark.parametrize("harm", TORN)
def test_the_log_of_another_table(tmp_path: Path, make: Callable[..., TableRef], harm: Harm) -> None:
    settings = ObjectSettings(url=f"file:{tmp_path}")
    objects = open_objects(settings, "us")
    table = make(objects, settings, "us", *(() if make is quarantine_table else (0,)))
    create_table(table)
    (bucket,) = (path for path in tmp_path.iterdir() if (path / "lake").is_dir())
    harm(bucket / deltalog.commit_key(table, 0))
    found(DamagedError, lambda: live_files(table), f"commit 0 in the log of table {table.root} is damaged")


def test_a_store_that_is_away_is_no_damage(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakehouse.commit.DeltaTable", _away)
    found(BlockedError, lambda: live_files(lake.table), "cannot be loaded", "check the object store")


def _away(*_: object, **__: object) -> None:
    raise OSError("no answer")
