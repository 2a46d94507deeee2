"""Files of an import: what they are, what is wrong with them, and that reading can go on anywhere it stopped."""

import json
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core import imports
from core.errors import DamagedError, RefusedError
from lakehouse import incoming
from lakehouse.incoming import CUT_OFF, TOO_LONG, Bad, Form, HistoryFile, Place, inspect, read, require_unchanged

PLAIN = imports.parse_map([])
NOW = datetime(2026, 3, 2, tzinfo=UTC)
START = datetime(2020, 1, 1, tzinfo=UTC)


def row(number: int, **changes: Any) -> dict[str, Any]:
    when = START + timedelta(minutes=number)
    return {"conversation": f"c{number % 3}", "sender": number % 5, "sent_at": when, "body": f"b{number}"} | changes


ROWS = [row(number) for number in range(100)]


def as_json(rows: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(one, default=lambda when: when.isoformat()).encode() + b"\n" for one in rows)


def ndjson(folder: Path, data: bytes | None = None, name: str = "a.ndjson") -> Path:
    path = folder / name
    path.write_bytes(as_json(ROWS) if data is None else data)
    return path


def parquet(folder: Path, rows: Sequence[dict[str, Any]] = ROWS, row_group_size: int = 40) -> Path:
    path = folder / "a.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group_size)
    return path


def opened(path: Path) -> HistoryFile:
    ((file,), _) = inspect([path], PLAIN)
    return file


BEGINNING = Place()


def found(path: Path, place: Place = BEGINNING) -> tuple[list[int], list[Bad], list[Place]]:
    """Lines of good rows, bad rows, and where chunks end."""
    chunks = list(read(opened(path), PLAIN, NOW, place))
    lines = [int(line) for chunk in chunks for line in np.asarray(chunk.good["line"])]
    bad = [one for chunk in chunks for one in chunk.bad]
    assert sum(chunk.rows for chunk in chunks) == len(lines) + len(bad)
    return lines, bad, [chunk.next for chunk in chunks]


def refused(*paths: Path) -> str:
    with pytest.raises(RefusedError) as fault:
        inspect(paths, PLAIN)
    return fault.value.what


def test_both_forms_are_known_by_their_bytes(tmp_path: Path) -> None:
    assert (opened(ndjson(tmp_path)).form, opened(parquet(tmp_path)).form) == (Form.NDJSON, Form.PARQUET)
    assert opened(parquet(tmp_path)).rows == 100
    assert opened(ndjson(tmp_path)).names == ("conversation", "sender", "sent_at", "body")


def test_files_come_in_an_order_of_their_own_and_equal_ones_once(tmp_path: Path) -> None:
    a, b = ndjson(tmp_path), parquet(tmp_path)
    c = ndjson(tmp_path, name="c.ndjson")
    files, same = inspect([a, b, c], PLAIN)
    others, _ = inspect([b, c, a], PLAIN)
    assert [file.digest for file in files] == [file.digest for file in others]
    assert len(files) == 2
    assert same == [c]


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    a, b = ndjson(tmp_path), ndjson(tmp_path / "x", as_json(ROWS[:1]))
    assert {file.label for file in inspect([a, b], PLAIN)[0]} == {str(a), str(b)}


def test_all_faults_of_all_files_are_told_at_once_with_what_was_found(tmp_path: Path) -> None:
    wrong = parquet(tmp_path, [{"conversation": 1.5, "sender": 1, "sent_at": START, "text": "x"}])
    without = ndjson(tmp_path, as_json([{"conversation": "a", "sender": "x", "body": "b"}]))
    told = refused(wrong, without, tmp_path / "gone", tmp_path)
    for sentence in (
        "a.parquet: conversation is double, not text",
        "a.parquet: body is missing, and so is body_bytes",
        "a.parquet: found conversation double, sender int64, sent_at timestamp[us, tz=UTC], text string",
        "a.ndjson: sent_at is missing",
        "a.ndjson: sender is never a 64-bit number",
        "a.ndjson: found conversation, sender, body",
        "gone: it cannot be read (No such file or directory)",
        "it cannot be read (Is a directory)",
    ):
        assert sentence in told


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    assert "neither Parquet nor NDJSON" in refused(ndjson(tmp_path, b"a,b,c\n1,2,3\n"))
    assert "neither Parquet nor NDJSON" in refused(ndjson(tmp_path, bytes(range(256)) * 10))


@pytest.mark.parametrize("kept", [5, 100, -1, -8])
def test_parquet_that_was_cut_off_is_refused(tmp_path: Path, kept: int) -> None:
    path = parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "cut off or damaged" in refused(path)


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert found(ndjson(tmp_path, b"")) == ([], [], [])
    assert found(ndjson(tmp_path, b"\n\n")) == ([], [], [])
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), empty)
    assert found(empty) == ([], [], [])


def test_rows_are_numbered_from_one_and_blank_lines_count(tmp_path: Path) -> None:
    lines = as_json(ROWS[:3]).split(b"\n")
    path = ndjson(tmp_path, b"\xef\xbb\xbf" + lines[0] + b"\r\n\n  \n" + lines[1] + b"\n" + lines[2])
    assert found(path)[:2] == ([1, 4, 5], [])
    assert found(parquet(tmp_path))[0] == list(range(1, 101))


@pytest.mark.parametrize("form", [ndjson, parquet])
@pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
def test_reading_goes_on_where_it_stopped(
    tmp_path: Path, form: Any, chunk_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "CHUNK_ROWS", chunk_rows)
    path = form(tmp_path)
    whole, _, ends = found(path)
    assert whole == list(range(1, 101))
    for place in ends[:: max(1, len(ends) // 5)]:
        assert found(path, place)[0] == whole[place.line :]
    assert found(path, ends[-1])[0] == []


def test_chunks_keep_to_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "CHUNK_BYTES", 1000)
    for path in (ndjson(tmp_path), parquet(tmp_path, [row(n, body=f"{n:0100}") for n in range(100)])):
        assert len(found(path)[2]) >= 8


def test_a_place_within_a_chunk_is_found_too(tmp_path: Path) -> None:
    assert found(parquet(tmp_path), Place(57, 57))[0] == list(range(58, 101))


def test_bad_lines_are_told_with_what_they_said(tmp_path: Path) -> None:
    lines = as_json([row(0), row(1, sender="x"), row(2, sender=None), row(3)]).splitlines()
    path = ndjson(tmp_path, b"\n".join([lines[0], b"{", *lines[1:], b'{"body": "\xff"}', b"[]", b""]))
    good, bad, _ = found(path)
    assert good == [1, 5]
    assert bad == [
        Bad(2, "it is not JSON", b"{"),
        Bad(3, "sender is not a 64-bit number", lines[1]),
        Bad(4, "sender is missing", lines[2]),
        Bad(6, "it is not UTF-8", b'{"body": "\xff"}'),
        Bad(7, "it is no JSON object", b"[]"),
    ]


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_file_that_ends_within_a_row_says_so_and_loses_only_that(tmp_path: Path, cut: int) -> None:
    data = as_json(ROWS)[: -cut - 1]
    good, bad, _ = found(ndjson(tmp_path, data))
    assert good == list(range(1, 100))
    assert bad == [Bad(100, CUT_OFF, data.splitlines()[-1])]


def test_a_file_that_ends_without_a_line_end_is_whole(tmp_path: Path) -> None:
    assert found(ndjson(tmp_path, as_json(ROWS)[:-1]))[:2] == (list(range(1, 101)), [])


def test_a_line_that_is_too_long_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "ROW_BYTES_MAX", 500)
    monkeypatch.setattr(incoming, "_BUFFER_BYTES", 64)
    lines = as_json([row(0), row(1, body="x" * 5000), row(2)]).splitlines(keepends=True)
    good, bad, _ = found(ndjson(tmp_path, b"".join(lines)))
    assert good == [1, 3]
    assert bad == [Bad(2, TOO_LONG, lines[1][:500])]
    good, bad, _ = found(ndjson(tmp_path, lines[0] + lines[1].rstrip()))
    assert (good, [one.reason for one in bad]) == ([1], [TOO_LONG])


def test_bad_rows_of_parquet_are_kept_as_json(tmp_path: Path) -> None:
    rows = [row(0), row(1, conversation=None), row(2, sent_at=datetime(2050, 1, 1, tzinfo=UTC)), row(3)]
    good, bad, _ = found(parquet(tmp_path, rows))
    assert good == [1, 4]
    assert [(one.line, one.reason) for one in bad] == [(2, "conversation is missing"), (3, "sent_at is in the future")]
    assert json.loads(bad[0].row) == {
        "conversation": None,
        "sender": 1,
        "sent_at": "2020-01-01T00:01:00+00:00",
        "body": "b1",
    }


def test_what_no_json_can_say_is_kept_all_the_same() -> None:
    text: Any = pa.array([b"\xff"]).view(pa.string())
    when: Any = pa.array([2**62], pa.int64()).cast(pa.timestamp("s"))
    batch = pa.record_batch({"conversation": text, "sent_at": when, "body": pa.array([b"\xff\x00"])})
    kept = json.loads(incoming._as_json(batch))
    assert kept["body"] == {"base64": "/wA="}
    for column in ("conversation", "sent_at"):
        with pa.ipc.open_stream(b64decode(kept[column]["arrow"])) as stream:
            (back,) = stream
        assert back.column("value").equals(batch.column(column))


def test_pages_that_were_changed_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [row(number, body=f"{number:01000}") for number in range(200)]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="none", write_page_checksum=True, row_group_size=50)
    data = bytearray(path.read_bytes())
    data[data.index(b"0000150") - 100] ^= 1
    path.write_bytes(data)
    chunks = read(opened(path), PLAIN, NOW, Place())
    with pytest.raises(DamagedError, match=r"a\.parquet does not decode beyond row group 3"):
        list(chunks)


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path = ndjson(tmp_path)
    file = opened(path)
    require_unchanged(file)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(RefusedError, match="changed while it was read"):
        require_unchanged(file)


def test_columns_that_nobody_asked_for_are_not_read(tmp_path: Path) -> None:
    path = parquet(tmp_path, [row(0, other=b"\xff", conversation=None), row(1)])
    (bad,) = found(path)[1]
    assert "other" not in json.loads(bad.row)
