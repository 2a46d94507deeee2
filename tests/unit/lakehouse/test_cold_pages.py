"""Paging through one conversation of a cold file, however many row groups it spans."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from core import ids
from core.overlay import Row
from core.rows import to_batches
from lakehouse.reader import newest_group
from lakehouse.writer import write_cold_file
from stores.memory import MemoryObjects

KEY = "lake/messages/s000/week=1/shard=00000/00000001-a.parquet"
BEFORE, MINE, AFTER = (bytes([number]) * 16 for number in (1, 2, 3))
WHEN = datetime(2026, 1, 5, tzinfo=UTC)


def row(conversation_id: bytes, number: int) -> Row:
    return Row(conversation_id, ids.compose(number, 0, 0), 1, 0, bytes(100), server_ts=WHEN)


@given(st.integers(0, 40), st.integers(0, 7), st.integers(0, 7), st.integers(150, 2000))
def test_pages_join_to_the_whole_conversation(mine: int, lower: int, upper: int, row_group_bytes: int) -> None:
    rows = [row(BEFORE, n) for n in range(lower)] + [row(MINE, n) for n in range(mine)]
    rows += [row(AFTER, n) for n in range(upper)]
    objects = MemoryObjects()
    write_cold_file(to_batches(rows), objects, KEY, row_group_bytes)

    found: list[Row] = []
    before = None
    for _ in range(mine + 2):
        stretch = newest_group(objects, KEY, MINE, before)
        found += stretch.rows
        before = stretch.from_id
        if before is None:
            break
    assert before is None, "paging does not come to an end"
    assert found == [row(MINE, n) for n in reversed(range(mine))]
