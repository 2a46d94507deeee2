"""A cold file is written, indexed, found in and read back; whatever was changed is noticed."""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.digest import Digest
from core.errors import BlockedError, DamagedError, RefusedError
from lakehouse.coldfile import read_cold_file
from lakehouse.index import (
    MAX_GET_BYTES,
    ColdIndex,
    RowGroup,
    decode,
    encode,
    find,
    load_index,
    read_range,
    read_row_groups,
)
from lakehouse.paths import data_key, index_key
from lakehouse.writer import ColdFile, cut, row_bytes, split, write_cold_file
from schemas.tables import CANONICAL
from stores.memory import MemoryObjects

KEY = data_key(0, 2913, 5, 1, "a0")


def identifier(number: int) -> bytes:
    return number.to_bytes(16, "big")


def row(conversation: int, message: int, **given_values: Any) -> dict[str, Any]:
    return {
        "conversation_id": identifier(conversation),
        "message_id": identifier(message),
        "sender_id": -7,
        "message_type": 1,
        "body": bytes([message % 256]) * 50,
        "media_ref": None,
        "reply_to": None,
        "edit_id": None,
        "deleted": False,
        "server_ts": datetime(2025, 11, 3, 12, 0, 0, message % 1000 * 1000, UTC),
        "reactions": None,
    } | given_values


def batch(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=CANONICAL)


def busy_rows(conversations: int = 20, messages: int = 30) -> list[dict[str, Any]]:
    reactions = [{"user_id": 9, "event_id": identifier(1), "reaction": b"seen"}]
    return [
        row(
            conversation,
            conversation * 1000 + message,
            reactions=reactions if message % 3 == 0 else ([] if message % 3 == 1 else None),
            media_ref="cafe" if message % 5 == 0 else None,
            reply_to=identifier(message) if message % 4 == 0 else None,
            sender_id=None if message == 7 else conversation,
        )
        for conversation in range(conversations)
        for message in range(messages)
    ]


def write(objects: MemoryObjects, rows: Sequence[dict[str, Any]], row_group_bytes: int = 5_000) -> ColdFile:
    return write_cold_file([batch(rows)], objects, KEY, row_group_bytes)


class CountingObjects(MemoryObjects):
    def __init__(self) -> None:
        super().__init__()
        self.gets: list[tuple[str, int | None, int | None]] = []

    def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
        self.gets.append((key, start, length))
        return super().get(key, start, length)


def test_what_was_written_is_read_back() -> None:
    objects = MemoryObjects()
    rows = busy_rows()
    written = write(objects, rows)
    back = pa.Table.from_batches(list(read_cold_file(objects, KEY, written.sha256)))
    assert back.schema == CANONICAL
    assert back.to_pylist() == rows
    assert (written.rows, written.key, written.index_key) == (len(rows), KEY, index_key(KEY))
    told = objects.head(KEY)
    assert told is not None
    assert (told.size_bytes, told.sha256) == (written.size_bytes, written.sha256)


def test_batches_may_be_cut_anywhere() -> None:
    rows = busy_rows(5, 17)
    files = []
    for width in (1, 7, 1000):
        objects = MemoryObjects()
        given_batches = [batch(rows[start : start + width]) for start in range(0, len(rows), width)]
        files.append(write_cold_file([batch([]), *given_batches], objects, KEY, 2_000).sha256)
    assert len(set(files)) == 1


def test_a_slice_of_a_batch_is_written_as_the_rows_it_shows() -> None:
    rows = busy_rows(5, 17)
    objects = MemoryObjects()
    written = write_cold_file([batch(rows).slice(11, 40)], objects, KEY, 2_000)
    assert pa.Table.from_batches(list(read_cold_file(objects, KEY, written.sha256))).to_pylist() == rows[11:51]


def test_no_rows_make_an_empty_file() -> None:
    objects = MemoryObjects()
    written = write_cold_file([], objects, KEY, 1_000)
    assert (written.rows, written.row_groups) == (0, 0)
    assert list(read_cold_file(objects, KEY, written.sha256)) == []
    assert read_range(objects, load_index(objects, KEY), identifier(1)).num_rows == 0


@pytest.mark.parametrize(
    "rows",
    [
        [row(1, 2), row(1, 1)],
        [row(2, 1), row(1, 2)],
        [row(1, 1), row(1, 1)],
        [row(1, 1 << 64), row(1, (1 << 64) - 1)],
        [row(1 << 127, 1), row(1, 1)],
    ],
)
@pytest.mark.parametrize("one_by_one", [True, False])
def test_rows_out_of_order_or_twice_are_refused(rows: list[dict[str, Any]], one_by_one: bool) -> None:
    objects = MemoryObjects()
    batches = [batch([one]) for one in rows] if one_by_one else [batch(rows)]
    with pytest.raises(RefusedError, match="row 1 of the input"):
        write_cold_file(batches, objects, KEY, 1_000)
    assert list(objects.list("")) == []


@pytest.mark.parametrize(
    "fault", [{"conversation_id": b"short"}, {"message_id": b"x" * 17}, {"message_id": None}, {"deleted": None}]
)
def test_rows_that_are_not_canonical_are_refused(fault: dict[str, Any]) -> None:
    objects = MemoryObjects()
    loose = pa.schema([field.with_nullable(True) for field in CANONICAL])
    wrong = pa.RecordBatch.from_pylist([row(1, 1, **fault)], schema=loose)
    with pytest.raises(RefusedError, match="not canonical"):
        write_cold_file([wrong], objects, KEY, 1_000)
    with pytest.raises(RefusedError, match="not canonical"):
        write_cold_file([batch([row(1, 1)]).drop_columns(["body"])], objects, KEY, 1_000)
    assert list(objects.list("")) == []


def test_a_time_that_is_finer_than_a_millisecond_is_refused() -> None:
    """It is stored in milliseconds, and nothing is rounded."""
    with pytest.raises(RefusedError, match="not canonical"):
        write(MemoryObjects(), [row(1, 1, server_ts=datetime(2025, 11, 3, 12, 0, 0, 1001, UTC))])


def test_a_retry_of_the_same_attempt_finds_its_own_file() -> None:
    objects = MemoryObjects()
    assert write(objects, busy_rows()) == write(objects, busy_rows())
    with pytest.raises(BlockedError, match="another try"):
        write(objects, busy_rows(3))


@given(
    bodies=st.lists(st.integers(0, 400), min_size=1, max_size=60),
    limit=st.integers(60, 900),
    width=st.integers(1, 61),
)
@settings(deadline=None)
def test_row_groups_keep_the_limit_and_are_not_cut_early(bodies: list[int], limit: int, width: int) -> None:
    rows = [row(1, number, body=b"x" * length) for number, length in enumerate(bodies)]
    groups = list(cut((batch(rows[at : at + width]) for at in range(0, len(rows), width)), limit))
    assert [one for group in groups for one in group.to_pylist()] == rows
    weights = [[int(size) for part in group.to_batches() for size in row_bytes(part)] for group in groups]
    assert all(sum(weight) <= limit or len(weight) == 1 for weight in weights)
    assert all(sum(this) + after[0] > limit for this, after in pairwise(weights))


@given(bodies=st.lists(st.integers(0, 400), min_size=1, max_size=60), limit=st.integers(60, 900))
@settings(deadline=None)
def test_a_row_group_that_outgrew_the_limit_is_split_evenly(bodies: list[int], limit: int) -> None:
    rows = [row(1, number, body=b"x" * length) for number, length in enumerate(bodies)]
    parts = list(split(pa.Table.from_batches([batch(rows)]), limit))
    assert [one for part in parts for one in part.to_pylist()] == rows
    weights = [[int(size) for piece in part.to_batches() for size in row_bytes(piece)] for part in parts]
    assert all(sum(weight) <= limit or len(weight) == 1 for weight in weights)
    largest = max(map(max, weights))
    assert len(parts) == 1 or all(sum(weight) >= limit / 3 - largest for weight in weights)


def test_reactions_and_references_weigh_too() -> None:
    bare = int(row_bytes(batch([row(1, 1)]))[0])
    reactions = [{"user_id": 1, "event_id": identifier(1), "reaction": b"12345"}] * 2
    heavy = row(1, 1, media_ref="abc", reply_to=identifier(1), edit_id=identifier(2), reactions=reactions)
    assert int(row_bytes(batch([heavy]))[0]) - bare == 3 + 16 + 16 + 2 * (8 + 16 + 5)


def test_parquet_is_plain_and_tells_nothing_of_people() -> None:
    objects = MemoryObjects()
    write(objects, busy_rows())
    file = pq.ParquetFile(io.BytesIO(objects.get(KEY)))
    assert set(file.metadata.metadata or {}) == set()
    told = set()
    for number in range(file.metadata.row_group(0).num_columns):
        column = file.metadata.row_group(0).column(number)
        if column.is_stats_set:
            told.add(column.path_in_schema)
        is_body = column.path_in_schema == "body"
        assert column.compression == ("UNCOMPRESSED" if is_body else "ZSTD"), column.path_in_schema
        is_length_first = is_body or column.path_in_schema == "reactions.list.element.reaction"
        assert set(column.encodings) == {"RLE", "DELTA_LENGTH_BYTE_ARRAY" if is_length_first else "PLAIN"}
    assert told == {"conversation_id", "message_id"}
    assert file.schema_arrow.field("server_ts").type == pa.timestamp("ms", "UTC")
    assert file.schema.column(0).physical_type == "BYTE_ARRAY"


def test_an_index_survives_its_encoding() -> None:
    objects = MemoryObjects()
    written = write(objects, busy_rows())
    index = load_index(objects, KEY)
    assert (index.key, index.size_bytes, index.sha256) == (KEY, written.size_bytes, written.sha256)
    assert (index.rows, len(index.groups)) == (written.rows, written.row_groups)
    assert decode(KEY, encode(index)) == index
    file = pq.ParquetFile(io.BytesIO(objects.get(KEY)))
    assert index.metadata.equals(file.metadata)
    ends = [group.offset + group.length for group in index.groups]
    assert [group.offset for group in index.groups] == [4, *ends[:-1]]
    assert ends[-1] + len(index.footer) == written.size_bytes


def test_one_get_reads_one_row_group() -> None:
    objects = CountingObjects()
    rows = busy_rows()
    written = write(objects, rows)
    assert written.row_groups > 5
    index = load_index(objects, KEY)
    seen = []
    for number, group in enumerate(index.groups):
        objects.gets.clear()
        seen += read_row_groups(objects, index, [number]).to_pylist()
        assert objects.gets == [(KEY, group.offset, group.length)]
    assert seen == rows
    objects.gets.clear()
    assert read_row_groups(objects, index, [0, 1, 3]).num_rows == sum(index.groups[n].rows for n in (0, 1, 3))
    assert len(objects.gets) == 2


def test_neighbours_share_a_get_only_up_to_the_bound() -> None:
    objects = CountingObjects()
    rows = [row(1, number, body=bytes(MAX_GET_BYTES // 3)) for number in range(5)]
    write(objects, rows, row_group_bytes=1)
    index = load_index(objects, KEY)
    objects.gets.clear()
    assert read_range(objects, index, identifier(1)).to_pylist() == rows
    assert len(objects.gets) == 3
    assert all(length is not None and length <= MAX_GET_BYTES for _, _, length in objects.gets)


def test_a_range_of_a_conversation_is_exact() -> None:
    objects = MemoryObjects()
    rows = busy_rows()
    write(objects, rows)
    index = load_index(objects, KEY)
    got = read_range(objects, index, identifier(7), identifier(7010), identifier(7019)).to_pylist()
    assert got == [one for one in rows if 7010 <= int.from_bytes(one["message_id"], "big") <= 7019]
    assert read_range(objects, index, identifier(99)).num_rows == 0


@given(
    keys=st.sets(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=15),
    width=st.integers(1, 4),
    conversation=st.integers(0, 2),
    bounds=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_find_agrees_with_a_naive_scan(
    keys: set[tuple[int, int]], width: int, conversation: int, bounds: tuple[int, int]
) -> None:
    packed = [identifier(one) + identifier(two) for one, two in sorted(keys)]
    pieces = [packed[at : at + width] for at in range(0, len(packed), width)]
    groups = tuple(RowGroup(piece[0], piece[-1], 0, 0, len(piece)) for piece in pieces)
    index = ColdIndex(KEY, 0, "", Digest(), groups, b"")
    low, high = identifier(conversation) + identifier(bounds[0]), identifier(conversation) + identifier(bounds[1])
    found = find(index, identifier(conversation), identifier(bounds[0]), identifier(bounds[1]))
    holding = [number for number, piece in enumerate(pieces) if any(low <= key <= high for key in piece)]
    spanning = [number for number, piece in enumerate(pieces) if piece[0] <= high and piece[-1] >= low and low <= high]
    assert set(holding) <= set(found)
    assert list(found) == spanning or bounds[0] > bounds[1]


def test_every_flipped_byte_of_a_row_group_is_noticed() -> None:
    objects = MemoryObjects()
    rows = busy_rows(4, 10)
    write(objects, rows, row_group_bytes=100_000)
    index = load_index(objects, KEY)
    whole = objects.get(KEY)
    group = index.groups[0]
    harmless = 0
    for at in range(group.offset, group.offset + group.length, 7):
        data = bytearray(whole)
        data[at] ^= 0x40
        objects.put(KEY, bytes(data))
        # A page header has no checksum: a flip there may be of no consequence, but never make a wrong row.
        with suppress(DamagedError):
            assert read_row_groups(objects, index, [0]).to_pylist() == rows
            harmless += 1
    assert harmless < group.length / 7 / 4


@pytest.mark.parametrize("cut_off", [1, 5_000, 20_000])
def test_a_truncated_file_is_damage(cut_off: int) -> None:
    objects = MemoryObjects()
    written = write(objects, busy_rows())
    index = load_index(objects, KEY)
    objects.put(KEY, objects.get(KEY)[:-cut_off])
    with pytest.raises(DamagedError, match=KEY):
        list(read_cold_file(objects, KEY, written.sha256))
    if cut_off > len(index.footer):
        with pytest.raises(DamagedError, match=KEY):
            read_row_groups(objects, index, range(len(index.groups)))


def test_a_file_of_other_rows_does_not_pass_for_the_indexed_one() -> None:
    objects = MemoryObjects()
    write(objects, busy_rows())
    index = load_index(objects, KEY)
    wrong_first = replace(index, groups=(replace(index.groups[0], first_key=b"\x01" * 32), *index.groups[1:]))
    with pytest.raises(DamagedError, match="keys are not those"):
        read_row_groups(objects, wrong_first, [0])
    wrong_count = replace(index, groups=(replace(index.groups[0], rows=3), *index.groups[1:]))
    with pytest.raises(DamagedError, match="rows are not as many"):
        read_row_groups(objects, wrong_count, [0])


def test_a_damaged_or_strange_index_is_named() -> None:
    objects = MemoryObjects()
    write(objects, busy_rows())
    data = objects.get(index_key(KEY))
    for wrong in (b"", data[:-20], b"x" * 100):
        with pytest.raises(DamagedError, match="index of cold file"):
            decode(KEY, wrong)
    with pytest.raises(DamagedError, match="index of cold file"):
        decode("lake/other.parquet", data)
