"""Batches are cut where Cassandra would refuse them, and lose nothing by it."""

from hypothesis import given
from hypothesis import strategies as st

from stores.cassandra import BATCH_BYTES, BATCH_STATEMENTS, Statement, bounded

payloads = st.lists(st.integers(0, BATCH_BYTES).map(bytes), max_size=8)
many = st.integers(0, 3 * BATCH_STATEMENTS).map(lambda count: [b"small"] * count)


def statement(payload: bytes) -> Statement:
    """Half of them as a tuple, as edits and reactions are."""
    return Statement("INSERT", (1, payload) if len(payload) % 2 else (1, (None, payload)))


@given(payloads | many)
def test_every_statement_is_in_one_batch_in_order(found: list[bytes]) -> None:
    statements = [statement(payload) for payload in found]
    batches = list(bounded(statements))
    assert [one for batch in batches for one in batch] == statements
    assert all(batches)


@given(payloads | many)
def test_no_batch_is_too_large_unless_one_statement_is(found: list[bytes]) -> None:
    for batch in bounded(map(statement, found)):
        size_bytes = sum(len(one.params[1][1] if isinstance(one.params[1], tuple) else one.params[1]) for one in batch)
        assert len(batch) <= BATCH_STATEMENTS
        assert size_bytes <= BATCH_BYTES or len(batch) == 1
