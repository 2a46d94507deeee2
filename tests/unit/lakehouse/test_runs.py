"""A run gives back every stretch of the ring, whole, and nothing that is not what was written."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import ids, ring, rows
from core.digest import Digest, of_rows
from core.errors import BlockedError, DamagedError, RefusedError
from core.ledger import Run
from core.overlay import Row
from lakehouse import runs
from lakehouse.runs import read_run, write_run
from stores.memory import MemoryObjects
from stores.objects import NotFoundError

WEEK = 2913
WHEN = datetime(2025, 11, 3, 12, tzinfo=UTC)


def place(row: Row) -> tuple[int, bytes, bytes]:
    return ring.token(row.conversation_id), *row.key


def messages(conversations: int = 30, each: int = 5) -> list[Row]:
    found = [
        Row(
            ids.conversation_uuid("runs", str(conversation)),
            ids.imported_id(WHEN, "runs", str(conversation), str(number)),
            sender_id=number,
            message_type=0,
            body=bytes([number]) * 100,
            server_ts=WHEN,
        )
        for conversation in range(conversations)
        for number in range(each)
    ]
    return sorted(found, key=place)


ROWS = messages()


def write(objects: MemoryObjects, ordered: Sequence[Row], row_group_bytes: int = 2000, batch_rows: int = 7) -> Run:
    batches = rows.to_batches(ordered, batch_rows)
    return write_run(batches, objects, WEEK, 3, "0abc", of_rows(ordered), row_group_bytes)


def read(objects: MemoryObjects, run: Run, tokens: ring.Range = ring.WHOLE) -> list[Row]:
    return [row for batch in read_run(objects, run, tokens) for row in rows.from_batch(batch)]


def test_a_run_is_what_was_written() -> None:
    objects = MemoryObjects()
    run = write(objects, ROWS)
    assert read(objects, run) == ROWS
    there = objects.head(run.path)
    assert there is not None
    assert (run.size_bytes, run.sha256) == (there.size_bytes, there.sha256)
    assert run.path == f"runs/s003/week={WEEK}/0abc.parquet"
    assert (run.week, run.slice, run.name, run.digest, run.folded) == (WEEK, 3, "0abc", of_rows(ROWS), False)


@pytest.mark.parametrize("shards", [1, 2, 8, 64])
def test_shards_of_any_number_together_are_the_run(shards: int) -> None:
    objects = MemoryObjects()
    run = write(objects, ROWS)
    found = [read(objects, run, ring.cut(shard, shards)) for shard in range(shards)]
    assert [row for shard in found for row in shard] == ROWS
    assert all(ring.shard_of(place(row)[0], 1, shards) == shard for shard, held in enumerate(found) for row in held)


@given(st.lists(st.sampled_from([place(row)[0] for row in ROWS]), min_size=2, max_size=2).map(sorted))
@settings(max_examples=20)
def test_a_range_begins_after_its_start_and_holds_its_end(ends: list[int]) -> None:
    objects = MemoryObjects()
    run = write(objects, ROWS)
    tokens = ring.Range(*ends)
    assert read(objects, run, tokens) == [row for row in ROWS if place(row)[0] in tokens]


def test_every_conversation_is_found_by_its_token_alone() -> None:
    objects = MemoryObjects()
    run = write(objects, ROWS)
    for token in sorted({place(row)[0] for row in ROWS}):
        assert read(objects, run, ring.Range(token - 1, token)) == [row for row in ROWS if place(row)[0] == token]


def test_only_what_the_range_touches_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = MemoryObjects()
    run = write(objects, ROWS)
    decoded: list[int] = []
    real = runs._within

    def within(table: pa.Table, tokens: ring.Range) -> pa.Table:
        decoded.append(table.num_rows)
        return real(table, tokens)

    monkeypatch.setattr(runs, "_within", within)
    assert read(objects, run) == ROWS
    groups = len(decoded)
    assert groups > 5
    decoded.clear()
    one = place(ROWS[70])[0]
    assert read(objects, run, ring.Range(one - 1, one))
    assert 1 <= len(decoded) <= 2


def test_batches_may_be_cut_anywhere() -> None:
    shas = {write(MemoryObjects(), ROWS, batch_rows=width).sha256 for width in (1, 10, 1000)}
    assert len(shas) == 1


@pytest.mark.parametrize("batch_rows", [1, 1000])
def test_rows_out_of_order_or_twice_are_refused(batch_rows: int) -> None:
    by_key = sorted(ROWS, key=lambda row: row.key)
    assert by_key != ROWS
    for wrong in (by_key, [ROWS[0], ROWS[0]], [ROWS[1], ROWS[0]]):
        objects = MemoryObjects()
        with pytest.raises(RefusedError, match="out of order or repeats"):
            write(objects, wrong, batch_rows=batch_rows)
        assert list(objects.list("")) == []


def test_a_retry_finds_its_own_file_and_nobody_elses() -> None:
    objects = MemoryObjects()
    run = write(objects, ROWS)
    assert write(objects, ROWS) == run
    with pytest.raises(BlockedError, match="another try"):
        write(objects, ROWS[:-1])
    assert read(objects, run) == ROWS


def test_damage_is_found_before_a_row_comes_back() -> None:
    objects = MemoryObjects()
    run = write(objects, ROWS)
    data = bytearray(objects.get(run.path))
    data[len(data) // 2] ^= 1
    objects.put(run.path, bytes(data))
    batches = read_run(objects, run, ring.WHOLE)
    with pytest.raises(DamagedError, match="SHA-256 differs"):
        next(batches)


@pytest.mark.parametrize("data", [b"", b"PAR1 and so on", b"x" * 1000])
def test_what_is_no_run_is_damaged(data: bytes) -> None:
    objects = MemoryObjects()
    there = objects.put("runs/s000/week=1/x.parquet", data)
    run = Run(1, 0, "x", there.key, Digest(), there.size_bytes, there.sha256)
    with pytest.raises(DamagedError, match="do not decode"):
        list(read_run(objects, run, ring.WHOLE))


def test_a_parquet_file_without_tokens_is_damaged() -> None:
    objects = MemoryObjects()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([rows.to_batch(ROWS)]), sink)
    there = objects.put("runs/s000/week=1/x.parquet", sink.getvalue().to_pybytes())
    with pytest.raises(DamagedError, match="do not decode"):
        list(read_run(objects, Run(1, 0, "x", there.key, Digest(), 0, there.sha256), ring.WHOLE))


def test_a_run_that_is_gone_is_named() -> None:
    with pytest.raises(NotFoundError, match="runs/"):
        list(read_run(MemoryObjects(), Run(1, 0, "x", "runs/x", Digest(), 0, ""), ring.WHOLE))
