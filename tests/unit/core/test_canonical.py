"""The digest of whole batches: that of their rows, whatever slices and chunks they come in."""

from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core import canonical, digest
from core.digest import Tally
from core.overlay import Row
from core.rows import to_batch
from schemas.tables import CANONICAL
from tests import strategies
from tests.unit.core.test_digest import EXAMPLES

some_rows = st.lists(strategies.rows, max_size=12)


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """Before hypothesis looks at the clock."""
    canonical.of_batches([to_batch([EXAMPLES["full"]])])


@given(some_rows)
@example(list(EXAMPLES.values()))
def test_the_encoded_rows_are_those_of_the_digest_of_rows(rows: list[Row]) -> None:
    encoded, ends = canonical.encode(to_batch(rows))
    found = [encoded[start:end].tobytes() for start, end in pairwise(ends.tolist())]
    assert found == [digest.encode(row) for row in rows]


@given(some_rows, st.integers(0, 12), st.integers(0, 12))
def test_a_part_of_a_batch_has_the_digest_of_its_rows(rows: list[Row], start: int, count: int) -> None:
    part = to_batch(rows).slice(start, count)
    assert canonical.of_batches([part]) == digest.of_rows(rows[start : start + count])


@given(some_rows, st.integers(0, 12))
def test_a_table_of_chunks_and_what_passes_through(rows: list[Row], at: int) -> None:
    table = pa.Table.from_batches([to_batch(rows[:at]), to_batch(rows[at:])], CANONICAL)
    by_rows, by_batches = Tally(), Tally()
    assert list(by_rows.through(rows)) == rows
    assert list(canonical.tallied([table, table.slice(at)], by_batches)) == [table, table.slice(at)]
    list(by_rows.through(rows[at:]))
    assert (by_batches.digest, by_batches.size_bytes) == (by_rows.digest, by_rows.size_bytes)


@given(some_rows)
def test_times_in_milliseconds_are_the_same_times(rows: list[Row]) -> None:
    table = pa.Table.from_batches([to_batch(rows)])
    at = CANONICAL.get_field_index("server_ts")
    coarse = table.set_column(
        at,
        pa.field("server_ts", pa.timestamp("ms", "UTC")),
        table["server_ts"].cast(pa.timestamp("ms", "UTC"), safe=False),
    )
    assert canonical.of_batches([coarse]) == canonical.of_batches([coarse.cast(CANONICAL)])


@pytest.mark.parametrize("name", ["conversation_id", "message_id", "deleted"])
def test_a_null_where_there_can_be_none_is_no_row(name: str) -> None:
    batch = to_batch([EXAMPLES["full"]])
    at = CANONICAL.get_field_index(name)
    columns = [pa.nulls(1, field.type) if place == at else batch.column(place) for place, field in enumerate(CANONICAL)]
    with pytest.raises(ValueError, match="a null where"):
        canonical.of_batches([pa.RecordBatch.from_arrays(columns, schema=CANONICAL)])
    with pytest.raises(ValueError, match="field names"):
        canonical.of_batches([batch.drop_columns([name])])
