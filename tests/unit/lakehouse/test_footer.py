"""A footer comes back as it was read, whatever stands in it."""

import io
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thrift.Thrift import TType

from core.rows import to_batches
from lakehouse import footer
from lakehouse.coldfile import tail_of
from lakehouse.footer import Field, Items, Pairs, Struct, read, read_tail, write, write_tail
from lakehouse.writer import write_cold_file
from schemas.tables import CANONICAL
from stores.memory import MemoryObjects
from tests import strategies

KEY = "lake/messages/s000/week=1/shard=00000/00000001-a.parquet"
_ATOMS: dict[int, st.SearchStrategy[Any]] = {
    TType.BOOL: st.booleans(),
    TType.BYTE: st.integers(-(2**7), 2**7 - 1),
    TType.I16: st.integers(-(2**15), 2**15 - 1),
    TType.I32: st.integers(-(2**31), 2**31 - 1),
    TType.I64: st.integers(-(2**63), 2**63 - 1),
    TType.DOUBLE: st.floats(allow_nan=False),
    TType.STRING: st.binary(max_size=40),
    TType.UUID: st.builds(lambda data: uuid.UUID(bytes=data), st.binary(min_size=16, max_size=16)),
}
_kinds = st.sampled_from([*_ATOMS, TType.STRUCT, TType.LIST, TType.SET, TType.MAP])


def values(kind: int, depth: int) -> st.SearchStrategy[Any]:
    if kind in _ATOMS:
        return _ATOMS[kind]
    if kind == TType.STRUCT:
        return structs(depth - 1)
    if kind == TType.MAP:
        return maps(depth - 1)
    return kinds(depth).flatmap(
        lambda held: st.builds(Items, st.just(held), st.lists(values(held, depth - 1), max_size=17).map(tuple))
    )


def kinds(depth: int) -> st.SearchStrategy[int]:
    return _kinds if depth > 0 else st.sampled_from(list(_ATOMS))


def maps(depth: int) -> st.SearchStrategy[Pairs]:
    """An empty one does not say of what."""

    def of(key: int, held: int) -> st.SearchStrategy[Pairs]:
        pairs = st.lists(st.tuples(values(key, depth), values(held, depth)), min_size=1, max_size=3).map(tuple)
        return st.builds(Pairs, st.just(key), st.just(held), pairs)

    return st.tuples(kinds(depth), kinds(depth)).flatmap(lambda both: of(*both))


def structs(depth: int = 3) -> st.SearchStrategy[Struct]:
    fields = kinds(depth).flatmap(lambda kind: st.builds(Field, st.just(kind), values(kind, depth)))
    return st.dictionaries(st.integers(1, 2**15 - 1), fields, max_size=5)


@given(structs())
def test_any_struct_is_read_as_it_was_written(struct: Struct) -> None:
    assert read(write(struct)) == struct
    assert list(read(write(struct))) == list(struct), "in the same order"
    assert read_tail(write_tail(struct)) == struct


@given(
    st.lists(strategies.rows, max_size=12, unique_by=lambda row: row.key),
    st.integers(200, 3000),
    st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=2),
    st.booleans(),
)
def test_what_pyarrow_wrote_is_the_same_for_pyarrow(
    rows: list[Any], row_group_bytes: int, metadata: dict[str, str], is_rich: bool
) -> None:
    """Byte for byte, which is more than that it says the same."""
    ordered = sorted(rows, key=lambda row: row.key)
    if is_rich:
        sink = io.BytesIO()
        table = pa.Table.from_batches(list(to_batches(ordered)) or [], schema=CANONICAL)
        table = table.replace_schema_metadata(metadata)
        bloom: Any = {"sender_id": {"ndv": 10, "fpp": 0.1}}
        pq.write_table(table, sink, row_group_size=7, write_page_index=True, bloom_filter_options=bloom)
        data = sink.getvalue()
    else:
        objects = MemoryObjects()
        write_cold_file(to_batches(ordered), objects, KEY, row_group_bytes)
        data = objects.get(KEY)
    tail = tail_of(io.BytesIO(data))
    again = write_tail(read_tail(tail))
    assert again == tail
    assert pq.read_metadata(io.BytesIO(footer.MAGIC + again)).equals(pq.read_metadata(io.BytesIO(data)))


@pytest.mark.parametrize("cut_off", [1, 5, 9, 100])
def test_a_torn_tail_is_told(cut_off: int) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(9))}), sink)
    with pytest.raises(ValueError, match="Parquet"):
        read_tail(sink.getvalue()[:-cut_off])


def test_what_is_no_thrift_is_told() -> None:
    whole = write({1: Field(TType.I64, 5), 2: Field(TType.STRING, b"abc")})
    for wrong in (whole[:-1], whole[:-3], whole + b"\x00", b"\x1e\x00", b""):
        with pytest.raises(ValueError, match="Thrift"):
            read(wrong)
