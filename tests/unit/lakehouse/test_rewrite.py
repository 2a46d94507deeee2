"""A rewritten cold file holds the old rows with the change merged in, and says so only when that was read back."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import digest, rows
from core.errors import DamagedError
from core.overlay import Row, laid_over, merge_all, row_of
from lakehouse import rewrite as rewriting
from lakehouse.coldfile import copy_stretch, read_cold_file
from lakehouse.index import load_index
from lakehouse.paths import data_key
from lakehouse.rewrite import Old, rewrite
from lakehouse.writer import ColdFile, write_cold_file
from schemas.events import Event
from stores.memory import MemoryObjects
from stores.objects import Objects
from tests import strategies

BEFORE, AFTER = data_key(0, 2913, 0, 1, "a"), data_key(0, 2913, 0, 2, "b")
GROUP_BYTES = 300  # a few rows
CONVERSATIONS = [bytes([number]) * 16 for number in range(3)]
crowded = strategies.crowded_events(CONVERSATIONS)


def written(objects: Objects, events: Sequence[Event], group_bytes: int = GROUP_BYTES) -> tuple[Old, list[Row]]:
    held = merge_all(map(row_of, events))
    ordered = [held[key] for key in sorted(held)]
    file = write_cold_file(rows.to_batches(ordered), objects, BEFORE, group_bytes)
    return Old(BEFORE, file.sha256, file.digest), ordered


def change_of(events: Sequence[Event]) -> pa.Table:
    return rows.one_per_key([rows.to_batch([row_of(event) for event in events])])


def read(objects: Objects, file: ColdFile) -> list[Row]:
    return [row for batch in read_cold_file(objects, file.key, file.sha256) for row in rows.from_batch(batch)]


@given(crowded, crowded)
def test_a_rewritten_file_is_the_old_one_with_the_change(before: list[Event], new: list[Event]) -> None:
    objects = MemoryObjects()
    old, held = written(objects, before)
    wanted = {row.key: row for row in laid_over(held, merge_all(map(row_of, new)))}
    file = rewrite(objects, old, change_of(new), AFTER, GROUP_BYTES)
    if file is None:
        assert [wanted[key] for key in sorted(wanted)] == held
        assert objects.head(AFTER) is None
    else:
        assert read(objects, file) == [wanted[key] for key in sorted(wanted)]
        assert file.digest == digest.of_rows(wanted.values()) == load_index(objects, AFTER).digest
        assert read(objects, ColdFile(BEFORE, 0, old.sha256, old.digest, 0, "", 0, "")) == held


@given(crowded, crowded)
def test_a_change_that_is_there_already_writes_nothing(before: list[Event], new: list[Event]) -> None:
    objects = MemoryObjects()
    old, _ = written(objects, before)
    once = rewrite(objects, old, change_of(new), AFTER, GROUP_BYTES)
    now = Old(AFTER, once.sha256, once.digest) if once else old
    assert rewrite(objects, now, change_of(new), data_key(0, 2913, 0, 3, "c"), GROUP_BYTES) is None


@given(crowded)
def test_a_first_file_is_the_change_itself(new: list[Event]) -> None:
    objects = MemoryObjects()
    file = rewrite(objects, Old(), change_of(new), AFTER, GROUP_BYTES)
    assert file is not None
    held = merge_all(map(row_of, new))
    assert read(objects, file) == [held[key] for key in sorted(held)]


@given(st.data())
def test_untouched_row_groups_keep_their_rows(data: st.DataObject) -> None:
    objects = MemoryObjects()
    events = data.draw(crowded.filter(lambda found: len(merge_all(map(row_of, found))) > 6))
    old, held = written(objects, events)
    last = [event for event in events if event.conversation_id == held[-1].conversation_id]
    before, file = load_index(objects, BEFORE), rewrite(objects, old, change_of(last), AFTER, GROUP_BYTES)
    after = load_index(objects, AFTER if file else BEFORE)
    untouched = [group for group in before.groups if group.last_key[:16] < held[-1].conversation_id]
    assert list(after.groups[: len(untouched)]) == untouched
    for group in untouched:
        assert objects.get(after.key, group.offset, group.length) == objects.get(BEFORE, group.offset, group.length)


@given(crowded, crowded, st.sampled_from([100, 300, 2000]))
def test_a_row_group_that_is_not_altered_is_copied_byte_for_byte(
    before: list[Event], new: list[Event], group_bytes: int
) -> None:
    objects = MemoryObjects()
    old, held = written(objects, before, group_bytes)
    change = change_of(new)
    file = rewrite(objects, old, change, AFTER, group_bytes)
    if file is None or not held:
        return
    was = {row.key: row for row in held}
    wanted = {row.key: row for row in laid_over(held, merge_all(map(row_of, new)))}
    altered = {b"".join(key) for key, row in wanted.items() if was.get(key) != row}
    after = {objects.get(AFTER, one.offset, one.length) for one in load_index(objects, AFTER).groups}
    index = load_index(objects, BEFORE)
    shares = rows.shares([(one.first_key, one.last_key) for one in index.groups], sorted(altered))
    for group, share in zip(index.groups, shares, strict=True):
        assert share or objects.get(BEFORE, group.offset, group.length) in after


def test_row_groups_keep_the_bound() -> None:
    objects = MemoryObjects()
    old, _ = written(objects, [])
    for number in range(1, 40):
        key = data_key(0, 2913, 0, 2, f"b{number}")
        row = Row(CONVERSATIONS[number % 3], bytes(15) + bytes([number]), 1, 0, b"x" * 40)
        file = rewrite(objects, old, rows.one_per_key([rows.to_batch([row])]), key, GROUP_BYTES)
        assert file is not None
        old = Old(key, file.sha256, file.digest)
    counts = [group.rows for group in load_index(objects, old.key).groups]
    assert sum(counts) == 39
    assert max(counts) <= 3
    assert sum(counts) / len(counts) > 1.5


def test_a_file_of_another_form_is_written_anew_whole() -> None:
    objects = MemoryObjects()
    old, held = written(objects, [])
    held = [Row(CONVERSATIONS[0], bytes(15) + bytes([number]), 1, 0, b"x" * 40) for number in range(20)]
    sink = io.BytesIO()
    table = pa.Table.from_batches([rows.to_batch(held)])
    table = table.set_column(3, pa.field("message_type", pa.int64()), table["message_type"].cast(pa.int64()))
    pq.write_table(table, sink, row_group_size=5, store_schema=False)
    file = objects.put(BEFORE, sink.getvalue())
    more = Row(CONVERSATIONS[2], bytes(16), 1, 0, b"y")
    old = Old(BEFORE, file.sha256, digest.of_rows(held))
    after = rewrite(objects, old, rows.one_per_key([rows.to_batch([more])]), AFTER, 10_000)
    assert after is not None
    assert read(objects, after) == [*held, more]
    kind = pq.ParquetFile(io.BytesIO(objects.get(AFTER))).schema_arrow.field("message_type").type
    assert kind == pa.int8()
    unchanged = rows.one_per_key([rows.to_batch(held[:1])])
    assert rewrite(objects, old, unchanged, data_key(0, 2913, 0, 3, "c"), 10_000) is None


def test_rows_in_the_wrong_row_group_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest alone cannot: it has no order."""
    objects = MemoryObjects()
    held = [Row(CONVERSATIONS[0], bytes(15) + bytes([number]), 1, 0, b"x" * 90) for number in range(20)]
    file = write_cold_file([rows.to_batch(held)], objects, BEFORE, GROUP_BYTES)
    change = rows.one_per_key([rows.to_batch([Row(CONVERSATIONS[2], bytes(16), 1, 0, b"y")])])
    monkeypatch.setattr(rewriting, "shares", lambda ends, keys: [range(len(keys)), *[range(0)] * (len(ends) - 1)])
    with pytest.raises(DamagedError, match="out of order"):
        rewrite(objects, Old(BEFORE, file.sha256, file.digest), change, AFTER, GROUP_BYTES)


def test_stretches_that_are_copied_wrong_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = MemoryObjects()
    held = [Row(CONVERSATIONS[0], bytes(15) + bytes([number]), 1, 0, bytes([number]) * 90) for number in range(20)]
    file = write_cold_file([rows.to_batch(held)], objects, BEFORE, GROUP_BYTES)
    change = rows.one_per_key([rows.to_batch([Row(CONVERSATIONS[2], bytes(16), 1, 0, b"y")])])
    monkeypatch.setattr(rewriting, "copy_stretch", lambda local, start, *rest: copy_stretch(local, start + 1, *rest))
    with pytest.raises(DamagedError, match="do not decode"):
        rewrite(objects, Old(BEFORE, file.sha256, file.digest), change, AFTER, GROUP_BYTES)


def some(objects: Objects) -> tuple[Old, pa.Table]:
    row = Row(CONVERSATIONS[0], bytes(8) + b"\x80" + bytes(7), sender_id=1, message_type=0, body=b"x" * 40)
    other = Row(CONVERSATIONS[1], row.message_id, sender_id=2, message_type=0, body=b"y" * 40)
    file = write_cold_file([rows.to_batch([row])], objects, BEFORE, GROUP_BYTES)
    return Old(BEFORE, file.sha256, file.digest), rows.one_per_key([rows.to_batch([other])])


def test_an_altered_old_file_is_not_rewritten() -> None:
    objects = MemoryObjects()
    old, change = some(objects)
    objects.put(BEFORE, objects.get(BEFORE)[:-1] + b"X")
    with pytest.raises(DamagedError, match="SHA-256 differs"):
        rewrite(objects, old, change, AFTER, GROUP_BYTES)
    assert objects.head(AFTER) is None


def test_a_file_that_lost_a_row_on_its_way_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that drops what no row of the change touches."""
    objects = MemoryObjects()
    old, change = some(objects)
    monkeypatch.setattr(rewriting, "merged", lambda _, change: change)
    with pytest.raises(DamagedError, match="does not read back as the old file with the change"):
        rewrite(objects, old, change, AFTER, GROUP_BYTES)


def test_a_file_that_the_store_changed_is_seen() -> None:
    class Bad(MemoryObjects):
        def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
            data = super().get(key, start, length)
            return data[:20] + b"!" + data[21:] if key == AFTER else data

    objects = Bad()
    old, change = some(objects)
    with pytest.raises(DamagedError, match="SHA-256 differs"):
        rewrite(objects, old, change, AFTER, GROUP_BYTES)
