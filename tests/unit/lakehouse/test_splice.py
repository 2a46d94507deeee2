"""Row groups of two files, in any order, are a file that every reader reads as those rows."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thrift.Thrift import TType

from lakehouse import splice
from lakehouse.coldfile import tail_of
from lakehouse.footer import Field, Items, changed, read, read_tail, value, write_tail
from lakehouse.splice import Piece, Source, Stretch, offset_indexes, source_of, spliced

REACTIONS = pa.list_(pa.struct([("user_id", pa.int64()), ("reaction", pa.binary())]))
_TYPES: dict[str, pa.DataType] = {
    "id": pa.binary(),
    "sender": pa.int64(),
    "text": pa.string(),
    "reactions": REACTIONS,
}
SCHEMA = pa.schema(_TYPES)

_reaction = st.fixed_dictionaries({"user_id": st.integers(0, 3), "reaction": st.binary(max_size=4)})
_rows = st.fixed_dictionaries(
    {
        "id": st.sampled_from([b"abcd", b"bcde", b"zzzz"]),
        "sender": st.none() | st.integers(0, 5),
        "text": st.none() | st.sampled_from(["", "a", "word", "ä"]),
        "reactions": st.none() | st.lists(_reaction, max_size=3),
    }
)
_options = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["none", "zstd", "snappy"]),
        "use_dictionary": st.booleans(),
        "write_page_index": st.booleans(),
        "write_page_checksum": st.booleans(),
        "write_statistics": st.booleans(),
        "data_page_size": st.sampled_from([40, 10_000]),
        "bloom_filter_options": st.none() | st.just({"id": {"ndv": 50, "fpp": 0.1}}),
        "sorting_columns": st.none() | st.just([pq.SortingColumn(0)]),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "version": st.sampled_from(["1.0", "2.6"]),
    }
)


def file_of(groups: list[list[dict[str, Any]]], options: dict[str, Any], metadata: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, SCHEMA, store_schema=False, **options) as writer:
        writer.add_key_value_metadata(metadata)
        for rows in groups:
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), row_group_size=len(rows))
    return sink.getvalue()


files = st.builds(
    file_of,
    st.lists(st.lists(_rows, min_size=1, max_size=5), max_size=3),
    _options,
    st.dictionaries(st.sampled_from("ab"), st.sampled_from(["", "ä"]), max_size=2),
)


def source(data: bytes) -> Source:
    found = source_of(tail_of(io.BytesIO(data)))
    return replace(found, offsets={one.start: data[one.start : one.end] for one in offset_indexes(found)})


def joined(files: list[bytes], pieces: list[Piece]) -> bytes:
    return b"".join(files[one.file][one.start : one.end] if isinstance(one, Stretch) else one for one in pieces)


def spliced_file(held: list[bytes], order: list[tuple[int, int]]) -> bytes:
    return joined(held, spliced([source(data) for data in held], order))


def groups_of(data: bytes) -> int:
    return int(pq.read_metadata(io.BytesIO(data)).num_row_groups)


def facts(column: pq.ColumnChunkMetaData) -> dict[str, Any]:
    """All that does not say where it lies."""
    return {name: told for name, told in column.to_dict().items() if not name.endswith("offset")}


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[bytes], list[tuple[int, int]]]:
    held = [draw(files), draw(files)]
    places = [(file, number) for file in (0, 1) for number in range(groups_of(held[file]))]
    return held, draw(st.lists(st.sampled_from(places), max_size=6)) if places else []


@given(orders())
@settings(deadline=None)
def test_the_rows_are_those_of_the_row_groups(given_files: tuple[list[bytes], list[tuple[int, int]]]) -> None:
    held, order = given_files
    made = pq.ParquetFile(io.BytesIO(spliced_file(held, order)), page_checksum_verification=True)
    parts = [pq.ParquetFile(io.BytesIO(data)) for data in held]
    assert made.num_row_groups == len(order)
    for number, (file, group) in enumerate(order):
        assert made.read_row_group(number).equals(parts[file].read_row_group(group))
        was, now = parts[file].metadata.row_group(group), made.metadata.row_group(number)
        assert [facts(now.column(n)) for n in range(now.num_columns)] == [
            facts(was.column(n)) for n in range(was.num_columns)
        ]
        assert now.sorting_columns == was.sorting_columns
    assert made.metadata.metadata == parts[0].metadata.metadata
    assert made.metadata.created_by == parts[0].metadata.created_by
    assert made.schema.equals(parts[0].schema)


@given(orders())
@settings(deadline=None)
def test_page_indexes_point_at_pages(given_files: tuple[list[bytes], list[tuple[int, int]]]) -> None:
    """An offset index says where each page begins and how long it is, header included; a header says how long a page
    is without it. What lies there must be the page of the file that it was copied from."""
    held, order = given_files
    made = spliced_file(held, order)
    for group, (file, number) in zip(source(made).groups, order, strict=True):
        old = source(held[file]).groups[number]
        for new_chunk, old_chunk in zip(value(group, 1).values, value(old, 1).values, strict=True):
            assert pages(made, new_chunk) == pages(held[file], old_chunk)
            assert bounds(made, new_chunk) == bounds(held[file], old_chunk)
            assert bloom(made, new_chunk) == bloom(held[file], old_chunk)


def pages(data: bytes, chunk: Any) -> list[bytes]:
    if splice.OFFSETS_PLACE not in chunk:
        return []
    place, length = value(chunk, splice.OFFSETS_PLACE), value(chunk, splice.OFFSETS_LENGTH)
    found = value(read(data[place : place + length]), 1).values
    return [data[value(page, 1) : value(page, 1) + value(page, 2)] for page in found]


def bounds(data: bytes, chunk: Any) -> bytes:
    place = value(chunk, splice.BOUNDS_PLACE)
    return data[place : place + value(chunk, splice.BOUNDS_LENGTH)] if place else b""


def bloom(data: bytes, chunk: Any) -> bytes:
    place = value(value(chunk, splice.CHUNK_FACTS), splice.FACTS_BLOOM)
    length = value(value(chunk, splice.CHUNK_FACTS), splice.FACTS_BLOOM_LENGTH)
    return data[place : place + length] if place else b""


@given(orders())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_duckdb_reads_the_same(tmp_path: Path, given_files: tuple[list[bytes], list[tuple[int, int]]]) -> None:
    held, order = given_files
    path = tmp_path / "spliced.parquet"
    path.write_bytes(spliced_file(held, order))
    wanted = pq.read_table(path)
    with duckdb.connect() as engine:
        found = engine.execute(f"SELECT * FROM read_parquet('{path}')").to_arrow_table()
        assert found.to_pylist() == wanted.to_pylist()
        if wanted.num_rows:
            sought = wanted["id"][0].as_py()
            (count,) = engine.execute(
                f"SELECT count(*) FROM read_parquet('{path}') WHERE id = ?", [sought]
            ).fetchone() or (0,)
            assert count == wanted["id"].to_pylist().count(sought)  # which asks the Bloom filters


def test_neighbours_are_one_stretch() -> None:
    data = file_of([[row(n)] for n in range(6)], {}, {})
    pieces = spliced([source(data)], [(0, 0), (0, 1), (0, 2), (0, 4), (0, 5)])
    assert [isinstance(one, Stretch) for one in pieces] == [False, True, True, False]


def test_what_nobody_knows_is_kept() -> None:
    """A later Parquet, in the footer, a row group, a chunk and its facts."""
    data = file_of([[row(n)] for n in range(3)], {}, {})
    tail = tail_of(io.BytesIO(data))
    new = Field(TType.STRUCT, {1: Field(TType.LIST, Items(TType.DOUBLE, (1.5, -2.0))), 9: Field(TType.BOOL, True)})
    footer = dict(read_tail(tail)) | {77: new}
    groups = []
    for group in value(footer, splice.FILE_GROUPS).values:
        chunks = [
            {**chunk, splice.CHUNK_FACTS: Field(TType.STRUCT, {**value(chunk, splice.CHUNK_FACTS), 301: new}), 302: new}
            for chunk in value(group, splice.GROUP_CHUNKS).values
        ]
        kept = Field(TType.LIST, Items(TType.STRUCT, tuple(chunks)))
        groups.append({**group, splice.GROUP_CHUNKS: kept, 303: new})
    footer = dict(changed(footer, {splice.FILE_GROUPS: Items(TType.STRUCT, tuple(groups))}))
    later = data[: -len(tail)] + write_tail(footer)
    made = spliced_file([later, file_of([[row(9)]], {}, {})], [(0, 2), (1, 0), (0, 0)])
    told = read_tail(tail_of(io.BytesIO(made)))
    assert told[77] == new
    first, second, third = value(told, splice.FILE_GROUPS).values
    assert first[303] == third[303] == new
    assert 303 not in second
    for chunk in value(first, splice.GROUP_CHUNKS).values:
        assert chunk[302] == value(chunk, splice.CHUNK_FACTS)[301] == new
    assert pq.read_table(io.BytesIO(made))["sender"].to_pylist() == [2, 9, 0]


def row(number: int) -> dict[str, Any]:
    return {"id": bytes([number]) * 4, "sender": number, "text": "t" * number, "reactions": []}


def test_more_row_groups_than_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a row group has sixteen bits, and may be left out."""
    monkeypatch.setattr(splice, "_NUMBER_MAX", 2)
    plain = source(file_of([[row(1)]], {}, {}))
    numbered = {**plain.groups[0], splice.GROUP_NUMBER: Field(TType.I16, 7)}
    of_others = Source(changed(plain.footer, {splice.FILE_GROUPS: Items(TType.STRUCT, (numbered,))}))
    tail = spliced([of_others], [(0, 0)] * 5)[-1]
    assert isinstance(tail, bytes)
    assert [value(group, splice.GROUP_NUMBER) for group in source_of(tail).groups] == [0, 1, 2, None, None]


def test_files_of_other_schemas_are_not_spliced() -> None:
    other = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([1])}), other)
    with pytest.raises(ValueError, match="schemas differ"):
        spliced_file([file_of([[row(1)]], {}, {}), other.getvalue()], [(0, 0), (1, 0)])


def test_what_is_encrypted_is_not_spliced() -> None:
    footer = read_tail(tail_of(io.BytesIO(file_of([[row(1)]], {}, {}))))
    encrypted = {**footer, splice.FILE_ENCRYPTION: Field(TType.STRUCT, {})}
    with pytest.raises(ValueError, match="encrypted"):
        source_of(write_tail(encrypted))
