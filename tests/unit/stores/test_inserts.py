"""Whole batches become the requests that the driver makes of the same rows, byte for byte."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from cassandra.policies import RoundRobinPolicy, TokenAwarePolicy
from cassandra.protocol import BatchMessage, ColumnMetadata, ProtocolHandler
from cassandra.query import BatchStatement, BatchType, PreparedStatement
from hypothesis import example, given
from hypothesis import strategies as st

from bench.pages import columns_of, driver_type
from core.overlay import Reaction, Row
from core.rows import to_batch
from core.tiers import Tier
from schemas.tables import CANONICAL, MESSAGES, REACTIONS
from stores import inserts, messages
from stores.cassandra import BATCH_BYTES, BATCH_STATEMENTS, Statement
from stores.inserts import Heads
from stores.requests import EncodedBatch, Requests
from tests import strategies
from tests.unit.core.test_digest import EXAMPLES, FULL, M

INTO = messages.inserts("eu", Tier.WARM, 2913)
QUERY_IDS = dict(zip(INTO, (bytes([number]) * 16 for number in range(4)), strict=True))
HEADS = Heads(*(inserts.head(QUERY_IDS[query], query.count("?")) for query in INTO))
few = st.lists(strategies.rows, max_size=12)
# Of few conversations, each with all its rows together, as a scan gives them.
some_rows = few.map(lambda rows: sorted(rows, key=lambda row: row.conversation_id[0] % 3)).map(
    lambda rows: [replace(row, conversation_id=bytes(15) + bytes([row.conversation_id[0] % 3])) for row in rows]
)


def prepared(query: str) -> PreparedStatement:
    """As a node would have answered."""
    columns = dict(columns_of(MESSAGES)) | dict(columns_of(REACTIONS)) | {"[timestamp]": driver_type("bigint")}
    names = [*query[query.index("(") + 1 : query.index(")")].split(", "), "[timestamp]"]
    bound = [ColumnMetadata("eu_warm", "", name, columns[name]) for name in names]
    return PreparedStatement(bound, QUERY_IDS[query], [], query, "eu_warm", 4, None, None)


PREPARED = {query: prepared(query) for query in INTO}


def by_driver(batch: Iterable[Statement], version: int) -> bytes:
    made = BatchStatement(BatchType.UNLOGGED)
    for one in batch:
        made.add(PREPARED[one.query].bind(one.params))
    return sent(ProtocolHandler, made, version)


def sent(handler: Any, batch: BatchStatement, version: int) -> bytes:
    """As the driver does with what `execute_async` is given."""
    message = BatchMessage(batch.batch_type, batch._statements_and_parameters, 6, 9, 1234)
    message.keyspace = "eu_warm" if version == 5 else None
    frame: bytes = handler.encode_message(message, 7, version, compressor=None, allow_beta_protocol_version=False)
    return frame


def encoded(rows: list[Row]) -> list[EncodedBatch]:
    return list(inserts._batches("eu_warm", HEADS, [to_batch(rows)] if rows else []))


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """Before hypothesis looks at the clock."""
    encoded([FULL])


@given(some_rows, st.sampled_from([4, 5]))
@example(list(EXAMPLES.values()), 4)
def test_each_request_is_the_drivers_own(rows: list[Row], version: int) -> None:
    expected = [by_driver(batch, version) for batch in messages.batches("eu", Tier.WARM, 2913, rows)]
    assert [sent(Requests, batch, version) for batch in encoded(rows)] == expected


@given(few, st.integers(0, 12), st.integers(0, 12))
def test_a_part_of_a_batch_is_its_rows(rows: list[Row], start: int, count: int) -> None:
    part = to_batch([FULL, *rows]).slice(start, count)
    found = inserts._batches("eu_warm", HEADS, [part])
    expected = encoded([FULL, *rows][start : start + count])
    assert [sent(Requests, one, 4) for one in found] == [sent(Requests, one, 4) for one in expected]


def test_a_batch_is_of_one_conversation_and_goes_to_its_replicas() -> None:
    rows = [replace(FULL, conversation_id=bytes([number // 3]) * 16) for number in range(9)]
    found = encoded(rows)
    assert [one.routing_key for one in found] == [bytes([number]) * 16 for number in range(3)]
    assert {one.keyspace for one in found} == {"eu_warm"}


def test_it_is_sent_to_a_replica_as_any_other_batch_is() -> None:
    """The driver looks at the key of a batch that is not empty, and at no other."""
    asked: list[Any] = []

    def replicas(*given: Any) -> list[Any]:
        asked.append(given)
        return []

    (batch,) = encoded([FULL])
    policy = TokenAwarePolicy(RoundRobinPolicy())
    policy._cluster_metadata = SimpleNamespace(get_replicas=replicas)
    list(policy.make_query_plan(None, batch))
    assert asked == [("eu_warm", FULL.conversation_id)]


def test_a_session_that_does_not_know_it_sends_nothing_valid() -> None:
    (batch,) = encoded([FULL])
    assert sent(ProtocolHandler, batch, 4)[9 + 1 : 9 + 3] == len(list(messages.statements(INTO, FULL))).to_bytes(
        2, "big"
    )


def test_rows_are_encoded_some_at_a_time_and_few_where_they_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [replace(FULL, conversation_id=number.to_bytes(16, "big")) for number in range(9000)]
    whole = [one.routing_key for one in encoded(rows)]
    assert whole == [row.conversation_id for row in rows]
    monkeypatch.setattr(inserts, "SLICE_BYTES", 10)
    assert [bytes(one.statements) for one in encoded(rows[:5])] == [bytes(one.statements) for one in encoded(rows)[:5]]


def test_a_list_that_is_null_over_values_has_none() -> None:
    batch = to_batch([replace(FULL, conversation_id=bytes(15) + bytes([number])) for number in range(3)])
    lists: Any = batch.column("reactions")
    mask = pa.array([False, True, False])
    hidden = pa.ListArray.from_arrays(lists.offsets, lists.values, type=lists.type, mask=mask)
    columns = [hidden if name == "reactions" else batch.column(name) for name in batch.schema.names]
    found = list(inserts._batches("eu_warm", HEADS, [pa.RecordBatch.from_arrays(columns, schema=CANONICAL)]))
    without = replace(FULL, reactions=())
    rows = [replace(row, conversation_id=bytes(15) + bytes([at])) for at, row in enumerate([FULL, without, FULL])]
    assert [bytes(one.statements) for one in found] == [bytes(one.statements) for one in encoded(rows)]


@pytest.mark.parametrize("column", ["conversation_id", "message_id", "reply_to", "edit_id"])
@pytest.mark.parametrize("size", [8, 24])
def test_an_id_of_another_length_is_refused(column: str, size: int) -> None:
    with pytest.raises(pa.ArrowInvalid):
        encoded([replace(FULL, **{column: bytes(size)})])  # type: ignore[arg-type]


def test_no_batch_is_too_large_unless_one_statement_is() -> None:
    reacted = replace(FULL, reactions=tuple(Reaction(user, M, b"r") for user in range(3 * BATCH_STATEMENTS)))
    large = [replace(FULL, body=bytes(size)) for size in (BATCH_BYTES // 2, BATCH_BYTES // 2, 2 * BATCH_BYTES, 9, 9)]
    rows = [reacted, *large, reacted]
    found = encoded(rows)
    for batch in found:
        count, size_bytes = batch.size, len(batch.statements)
        assert 0 < count <= BATCH_STATEMENTS
        assert size_bytes <= BATCH_BYTES or count == 1
    whole = b"".join(bytes(batch.statements) for batch in found)
    assert whole == b"".join(one for row in rows for one in alone(row))


def alone(row: Row) -> Iterator[bytes]:
    """Each statement as the driver encodes it, without what stands around it in a request."""
    for one in messages.statements(INTO, row):
        yield by_driver([one], 4)[9 + 3 : -(2 + 1 + 2 + 8)]


def test_rows_of_one_conversation_are_not_torn_apart_by_reactions() -> None:
    rows = [replace(FULL, message_id=M), FULL]
    assert [len(list(group)) for _, group in groupby(encoded(rows), key=lambda one: one.routing_key)] == [1]
