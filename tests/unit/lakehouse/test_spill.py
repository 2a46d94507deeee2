"""What lies on local disk meanwhile: only what was noted counts, and what is not whole is found."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BlockedError
from lakehouse.spill import LostSpillError, Spill, alone, discard, notes


def test_frames_come_back_in_order(tmp_path: Path) -> None:
    spill = Spill(tmp_path, {})
    for payload in (b"one", b"", b"three"):
        spill.append("a/b", payload)
    assert list(spill.frames("a/b")) == [b"one", b"", b"three"]
    assert list(spill.frames("a/c")) == []


def test_batches_come_back(tmp_path: Path) -> None:
    spill = Spill(tmp_path, {})
    batches = [pa.RecordBatch.from_pydict({"x": pa.array(values)}) for values in ([1, 2], [3])]
    for batch in batches:
        spill.append_batch("x", batch)
    assert list(spill.batches("x")) == batches


@given(payloads=st.lists(st.binary(max_size=8), max_size=6), data=st.data())
def test_going_on_sees_what_was_noted_and_no_more(
    payloads: list[bytes], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spill")
    noted = data.draw(st.integers(0, len(payloads)))
    spill = Spill(folder, {})
    lengths: dict[str, int] = {}
    for number, payload in enumerate(payloads, 1):
        spill.append("x", payload)
        spill.append(f"y/{number}", payload)
        if number == noted:
            lengths = dict(spill.lengths)
    again = Spill(folder, lengths)
    assert list(again.frames("x")) == payloads[:noted]
    assert [list(again.frames(f"y/{number}")) for number in range(1, len(payloads) + 1)] == [
        [payload] if number <= noted else [] for number, payload in enumerate(payloads, 1)
    ]
    again.append("x", b"new")
    assert list(again.frames("x")) == [*payloads[:noted], b"new"]


def test_a_file_that_is_gone_or_too_short_is_lost(tmp_path: Path) -> None:
    spill = Spill(tmp_path, {})
    spill.append("x", b"payload")
    lengths = dict(spill.lengths)
    os.truncate(tmp_path / "x", lengths["x"] - 1)
    with pytest.raises(LostSpillError, match="damaged"):
        Spill(tmp_path, lengths)
    (tmp_path / "x").unlink()
    with pytest.raises(LostSpillError):
        Spill(tmp_path, lengths)


@pytest.mark.parametrize("at", [0, 7, 8, 15, 16, -1])
def test_a_changed_byte_is_found(tmp_path: Path, at: int) -> None:
    spill = Spill(tmp_path, {})
    spill.append("x", b"payload")
    data = bytearray((tmp_path / "x").read_bytes())
    data[at] ^= 1
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(LostSpillError):
        list(spill.frames("x"))


def test_a_dropped_file_is_gone(tmp_path: Path) -> None:
    spill = Spill(tmp_path, {})
    spill.append("x", b"1")
    spill.drop("x")
    spill.drop("never there")
    assert list(spill.frames("x")) == []
    spill.append("x", b"2")
    assert list(spill.frames("x")) == [b"2"]


def test_a_torn_note_was_never_written(tmp_path: Path) -> None:
    assert notes(tmp_path) == []
    spill = Spill(tmp_path, {})
    spill.note({"n": 1})
    spill.note({"n": 2})
    path = tmp_path / "notes.ndjson"
    whole = path.read_bytes()
    for torn in (whole[:-1], whole[:-3], whole[:-1] + b"\0", whole + b'{"n": 3'):
        path.write_bytes(torn)
        found = notes(tmp_path)
        assert found == ([{"n": 1}, {"n": 2}] if torn.startswith(whole) else [{"n": 1}])
        Spill(tmp_path, {}).note({"n": 9})
        assert notes(tmp_path) == [*found, {"n": 9}]


def test_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "imports" / "x"
    Spill(folder, {}).append("x", b"1")
    assert folder.stat().st_mode & 0o077 == 0


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "imports" / "x"
    with alone(folder):
        with pytest.raises(BlockedError, match="runs already"), alone(folder):
            pass
        Spill(folder, {})
    with alone(folder):
        discard(folder)
    assert list(folder.parent.iterdir()) == []


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    spill = Spill(tmp_path, {})
    (tmp_path / "x").symlink_to("/dev/full")
    with pytest.raises(BlockedError, match="No space left on device"):
        spill.append("x", b"payload")
