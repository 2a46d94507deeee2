"""Canonical rows survive Arrow, and Arrow batches come out sorted."""

from hypothesis import given
from hypothesis import strategies as st

from core import digest, rows
from core.overlay import Row
from schemas.tables import CANONICAL
from tests import strategies

some_rows = st.lists(strategies.rows, max_size=12)


@given(some_rows, st.integers(1, 5))
def test_rows_come_back(found: list[Row], batch_rows: int) -> None:
    batches = list(rows.to_batches(found, batch_rows))
    assert all(batch.schema.equals(CANONICAL, check_metadata=True) for batch in batches)
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    assert [row for batch in batches for row in rows.from_batch(batch)] == found


@given(some_rows, st.integers(1, 5))
def test_sorting_keeps_every_row(found: list[Row], batch_rows: int) -> None:
    ordered = [row for batch in rows.in_key_order(rows.to_batches(found, batch_rows)) for row in rows.from_batch(batch)]
    assert [row.key for row in ordered] == sorted(row.key for row in found)
    assert digest.of_rows(ordered) == digest.of_rows(found)


def test_no_rows_are_no_batches() -> None:
    assert list(rows.to_batches([])) == []
    assert sum(batch.num_rows for batch in rows.in_key_order([])) == 0
