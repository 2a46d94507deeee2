"""The directory store and an import's spill on a disk that really is full: nothing half is there, and room mends it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import BlockedError
from core.settings import Objects as ObjectSettings
from lakehouse.coldfile import read_cold_file
from lakehouse.spill import Spill, notes
from lakehouse.writer import write_cold_file
from stores.buckets import open_objects
from tests.disks import Disk, mounted
from tests.unit.lakehouse.test_damaged_objects import rows

KEY = "lake/messages/s000/week=2900/shard=00000/00000001-a.parquet"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", 8) as made:
        if made is None:
            pytest.skip("nobody but root may mount a file system to be filled")
        yield made


def test_an_object_is_there_whole_or_not_at_all(disk: Disk) -> None:
    objects = open_objects(ObjectSettings(url=f"file:{disk.path}"), "us")
    before = {path for path in disk.path.rglob("*") if path.is_file()}
    disk.fill()
    with pytest.raises(BlockedError, match="no space is left on the disk of bucket") as caught:
        objects.put(KEY, bytes(100_000))
    assert "run the same command again" in caught.value.do
    assert objects.head(KEY) is None
    assert not list(objects.list("lake/"))
    disk.make_room()
    assert {path for path in disk.path.rglob("*") if path.is_file()} == before, "what was begun is gone"
    objects.put(KEY, bytes(100_000))
    assert objects.get(KEY) == bytes(100_000)


def test_a_cold_file_has_no_index_without_its_data(disk: Disk) -> None:
    objects = open_objects(ObjectSettings(url=f"file:{disk.path}"), "us")
    batch = rows()
    disk.fill()
    with pytest.raises(BlockedError, match="no space is left"):
        write_cold_file([batch], objects, KEY, row_group_bytes=5_000)
    assert not [one for home in ("lake/", "index/") for one in objects.list(home)]
    disk.make_room()
    file = write_cold_file([batch], objects, KEY, row_group_bytes=5_000)
    assert sum(one.num_rows for one in read_cold_file(objects, KEY, file.sha256)) == batch.num_rows


def test_a_spill_goes_on_from_its_last_note(disk: Disk) -> None:
    folder = disk.path / "import"
    spill = Spill(folder, {})
    spill.append("rows", b"first" * 1000)
    spill.note({"rows": spill.lengths["rows"]})
    noted = dict(spill.lengths)
    disk.fill()
    with pytest.raises(BlockedError, match="cannot be written") as caught:
        spill.append("rows", bytes(100_000))
    assert "the same again goes on" in caught.value.do
    disk.make_room()
    (last,) = notes(folder)
    again = Spill(folder, last)
    assert again.lengths == noted
    again.append("rows", b"second" * 1000)
    assert list(again.frames("rows")) == [b"first" * 1000, b"second" * 1000]
