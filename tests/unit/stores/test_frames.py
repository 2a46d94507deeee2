"""Pages become the Arrow that the driver's rows would make, and a page that is not whole and right is refused."""

import struct
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from cassandra import cqltypes
from cassandra.protocol import ProtocolHandler, _ProtocolHandler
from cassandra.util import sortedset
from hypothesis import given
from hypothesis import strategies as st

from bench import pages
from bench.pages import Columns, Driver, arrow, body, driver_type, frame, segmented
from core.errors import BlockedError, DamagedError, FirnError, RefusedError
from schemas.tables import MESSAGES, REACTIONS
from stores import envelopes, frames, kernels
from stores.pages import kind_of

EARLIEST, LATEST = datetime(1700, 1, 1), datetime(9000, 1, 1)  # naive, as the driver gives them
_moments = st.integers(0, (LATEST - EARLIEST) // timedelta(milliseconds=1)).map(
    lambda number: EARLIEST + timedelta(milliseconds=number)
)
_timeuuids = st.builds(
    lambda a, b: UUID(bytes=a[:6] + bytes([0x10 | a[6] & 15]) + a[7:] + b), *[st.binary(min_size=8, max_size=8)] * 2
)
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "blob": st.binary(max_size=20),
    "boolean": st.booleans(),
    "double": st.floats(allow_nan=False),
    "float": st.floats(allow_nan=False, width=32),
    "int": st.integers(-(2**31), 2**31 - 1),
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "text": st.text(st.characters(codec="utf-8"), max_size=9),
    "timestamp": _moments,
    "timeuuid": _timeuuids,
    "tinyint": st.integers(-128, 127),
    "uuid": st.uuids(),
    "varchar": st.text(st.characters(codec="utf-8"), max_size=9),
}
"""What each decodable type may hold, and how the driver wants to be given it."""
Typed = tuple[Any, st.SearchStrategy[Any]]  # a type of the driver, and its values
EXACT_KEYS = [name for name in SIMPLE if name not in ("float", "double")]  # -0.0 and 0.0 are one key to Python
_simple: st.SearchStrategy[Typed] = st.sampled_from(sorted(SIMPLE)).map(lambda n: (driver_type(n), SIMPLE[n]))
_keys: st.SearchStrategy[Typed] = st.sampled_from(EXACT_KEYS).map(lambda n: (driver_type(n), SIMPLE[n]))


def _tuple(inner: list[Typed]) -> Typed:
    """Trailing fields may be left out, as they are after a type has grown."""
    values = st.tuples(*[st.none() | one for _, one in inner]).flatmap(
        lambda whole: st.integers(1, len(whole)).map(lambda kept: whole[:kept])
    )
    return cqltypes.TupleType.apply_parameters([cql for cql, _ in inner]), values


def _list(inner: Typed) -> Typed:
    return cqltypes.ListType.apply_parameters([inner[0]]), st.lists(inner[1], max_size=3)


def _set(inner: Typed) -> Typed:
    return cqltypes.SetType.apply_parameters([inner[0]]), st.lists(inner[1], max_size=3, unique=True).map(sortedset)


def _map(key: Typed, value: Typed) -> Typed:
    return cqltypes.MapType.apply_parameters([key[0], value[0]]), st.dictionaries(key[1], value[1], max_size=3)


_nested = st.one_of(
    st.lists(_simple, min_size=1, max_size=3).map(_tuple),
    _simple.map(_list),
    _keys.map(_set),
    st.builds(_map, _keys, _simple),
    st.builds(_map, _keys, _simple.map(_list)),
    st.lists(_simple.map(_list) | _simple, min_size=1, max_size=2).map(_tuple),
)
Case = tuple[Columns, list[tuple[Any, ...]]]


def _rows(types: list[Typed]) -> st.SearchStrategy[Case]:
    columns = [(f"c{number}", cql) for number, (cql, _) in enumerate(types)]
    row = st.tuples(*[st.none() | values for _, values in types])
    return st.tuples(st.just(columns), st.lists(row, max_size=12))


cases = st.lists(_simple | _nested, min_size=1, max_size=6).flatmap(_rows)
_message_types: list[Typed] = [
    (
        cql,
        st.tuples(_timeuuids, st.none() | st.binary(max_size=9))
        if cql.cassname == "TupleType"
        else SIMPLE[cql.typename],
    )
    for _, cql in pages.columns_of(MESSAGES)
]
message_rows = _rows(_message_types).map(lambda case: (pages.columns_of(MESSAGES), case[1]))
ways = st.tuples(st.sampled_from([4, 5]), st.booleans(), st.booleans())


def ours(recorded: bytes, columns: Columns, version: int, lz4: bool) -> pa.RecordBatch:
    layout = frames.layout([(name, kind_of(cql)) for name, cql in columns])
    plain = envelopes.segments(recorded, lz4) if version == 5 else recorded
    (found,) = [frames.opened(envelopes.result(one), layout) for one in envelopes.frames(plain)]
    return frames.decoded(found)


def recorded(result: bytes, version: int, lz4: bool) -> bytes:
    sent = frame(result, version, lz4)
    return segmented(sent, lz4) if version == 5 else sent


@given(cases | message_rows, ways)
def test_it_is_what_the_driver_gives(case: Case, way: tuple[int, bool, bool]) -> None:
    (columns, rows), (version, lz4, named) = case, way
    sent = recorded(body(columns, rows, named), version, lz4)
    batch = ours(sent, columns, version, lz4)
    batch.validate(full=True)
    for handler in (ProtocolHandler, _ProtocolHandler):  # compiled, and plain
        assert batch.equals(arrow(columns, Driver(version, lz4, handler).rows(sent, columns)))


@given(st.lists(st.sampled_from(sorted(SIMPLE)), min_size=1, max_size=4), st.integers(1, 4))
def test_cells_without_bytes_are_what_the_driver_says(names: list[str], rows: int) -> None:
    columns = [(f"c{number}", driver_type(name)) for number, name in enumerate(names)]
    empty = body(columns, [])[:-4] + struct.pack(">i", rows) + struct.pack(">i", 0) * rows * len(names)
    batch = ours(frame(empty, 4), columns, 4, False)
    assert batch.equals(arrow(columns, Driver(4, False).rows(frame(empty, 4), columns)))
    assert [array.null_count for array in batch.columns] == [
        0 if n in ("blob", "text", "varchar") else rows for n in names
    ]


# What is not whole and right is refused, with what to do and without what anybody wrote.

SECRET = "a secret of somebody"
MESSAGE: tuple[Any, ...] = (
    UUID(int=1), UUID("2b5a1d8e-0000-1000-8000-000000000001"), 7, 1, SECRET.encode(), SECRET, None,
    (UUID("2b5a1d8e-0000-1000-8000-000000000002"), b""), True, datetime(2026, 1, 1),
)  # fmt: skip
COLUMNS = pages.columns_of(MESSAGES)
COLLECTIONS: Columns = [
    ("l", cqltypes.ListType.apply_parameters([driver_type("text")])),
    ("m", cqltypes.MapType.apply_parameters([driver_type("bigint"), driver_type("blob")])),
    ("t", driver_type("frozen<tuple<timeuuid, bigint, blob>>")),
]
COLLECTED = [(["a", "b"], {1: b"x", 2: b""}, (UUID("2b5a1d8e-0000-1000-8000-000000000001"), 5, b"y")), (None, {}, None)]


def refused(sent: bytes, columns: Columns, version: int = 4, lz4: bool = False) -> FirnError:
    with pytest.raises(FirnError) as caught:
        ours(sent, columns, version, lz4)
    assert caught.value.do
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("columns", "rows"), [(COLUMNS, [MESSAGE] * 2), (COLLECTIONS, COLLECTED)])
def test_a_body_cut_anywhere_is_refused(columns: Columns, rows: list[tuple[Any, ...]], named: bool) -> None:
    whole = body(columns, rows, named, b"more")
    for size in range(len(whole)):
        assert isinstance(refused(frame(whole[:size], 4), columns), DamagedError)
    assert isinstance(refused(frame(whole + b"\0", 4), columns), DamagedError)


@pytest.mark.parametrize(("version", "lz4"), [(4, False), (4, True), (5, False), (5, True)])
def test_a_recording_cut_anywhere_is_refused(version: int, lz4: bool) -> None:
    whole = recorded(body(COLUMNS, [MESSAGE] * 20), version, lz4)
    for size in range(1, len(whole)):
        assert isinstance(refused(whole[:size], COLUMNS, version, lz4), DamagedError)


@pytest.mark.parametrize("lz4", [False, True])
def test_a_flipped_bit_of_a_segment_is_found_by_its_checksums(lz4: bool) -> None:
    whole = recorded(body(COLUMNS, [MESSAGE] * 2), 5, lz4)
    for at in range(len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
        assert isinstance(refused(flipped, COLUMNS, 5, lz4), DamagedError)


@given(st.data())
def test_a_page_with_any_number_changed_is_refused_or_like_the_drivers(data: st.DataObject) -> None:
    """Four bytes anywhere: the kernels stay inside the page, whatever it says; -2 and less are no length to us."""
    columns, rows = data.draw(cases)
    whole = body(columns, rows)
    at = data.draw(st.integers(0, len(whole) - 4))
    lie = data.draw(st.sampled_from([0, 1, 3, 5, 2**31 - 1, -1, -2, -(2**31), len(whole)]))
    sent = frame(whole[:at] + struct.pack(">i", lie) + whole[at + 4 :], 4)
    try:
        batch = ours(sent, columns, 4, False)
    except FirnError:
        return
    batch.validate(full=True)


@pytest.mark.parametrize("length", [-2, -(2**31), 2**31 - 1, 17, 15])
def test_a_cell_that_lies_about_its_length_is_refused(length: int) -> None:
    whole = body(COLUMNS, [MESSAGE, MESSAGE], named=False)
    first = 16  # after kind, flags, columns and rows
    lying = whole[:first] + struct.pack(">i", length) + whole[first + 4 :]
    assert isinstance(refused(frame(lying, 4), COLUMNS), DamagedError)


@pytest.mark.parametrize("length", [-2, -(2**31), 2**31 - 1])
@pytest.mark.parametrize("column", range(len(COLLECTIONS)))
def test_a_cell_inside_of_another_that_lies_is_refused(column: int, length: int) -> None:
    """The first length inside: a list's and a map's come after their number of elements."""
    columns, values = [COLLECTIONS[column]], (COLLECTED[0][column],)
    whole = body(columns, [values], named=False)
    inner = 20 if column == 2 else 24
    lying = whole[:inner] + struct.pack(">i", length) + whole[inner + 4 :]
    assert isinstance(refused(frame(lying, 4), columns), DamagedError)


@pytest.mark.parametrize("length", [-2, -(2**31)])
def test_what_is_below_null_inside_of_a_cell_is_refused(length: int) -> None:
    """Where nothing is left behind it, so that only the length itself can tell."""
    for name, cql, before in (
        ("t", driver_type("frozen<tuple<bigint>>"), b""),
        ("l", cqltypes.ListType.apply_parameters([driver_type("bigint")]), struct.pack(">i", 1)),
    ):
        empty = body([(name, cql)], [], named=False)[:-4] + struct.pack(">i", 1)
        for inner in (-1, length):
            cell = before + struct.pack(">i", inner)
            sent = frame(empty + struct.pack(">i", len(cell)) + cell, 4)
            if inner == -1:
                assert ours(sent, [(name, cql)], 4, False).num_rows == 1
            else:
                refused(sent, [(name, cql)])


def test_a_name_that_reaches_into_the_values_is_not_told() -> None:
    columns, at = [("secret", driver_type("text"))], 12 + 2 + len("us_hot") + 2 + len("messages_w2913")
    whole = body(columns, [(SECRET,)] * 9)
    assert whole[at : at + 8] == b"\0\6secret"
    for length in range(len(whole) - at):
        if length != len("secret"):
            refused(frame(whole[:at] + struct.pack(">H", length) + whole[at + 2 :], 4), columns)


@pytest.mark.parametrize("rows", [-1, 1, 3, 2**31 - 1])
def test_a_page_that_lies_about_its_rows_is_refused(rows: int) -> None:
    whole = body(COLUMNS, [MESSAGE, MESSAGE], named=False)
    assert isinstance(refused(frame(whole[:12] + struct.pack(">i", rows) + whole[16:], 4), COLUMNS), DamagedError)


@pytest.mark.parametrize(("opcode", "kind"), [(0x00, BlockedError), (0x02, DamagedError), (0x0C, DamagedError)])
def test_an_answer_that_is_no_result_is_refused(opcode: int, kind: type[FirnError]) -> None:
    assert type(refused(frame(body(COLUMNS, [MESSAGE]), 4, opcode=opcode), COLUMNS)) is kind


@pytest.mark.parametrize("begin", [0x03, 0x83, 0x04, 0x86, 0x00])
def test_a_frame_of_another_protocol_is_refused(begin: int) -> None:
    sent = frame(body(COLUMNS, [MESSAGE]), 4)
    assert isinstance(refused(bytes([begin]) + sent[1:], COLUMNS), DamagedError)


@pytest.mark.parametrize("kind", [1, 3, 4, 5, 9])
def test_a_result_of_no_rows_is_refused(kind: int) -> None:
    sent = frame(struct.pack(">i", kind) + body(COLUMNS, [MESSAGE])[4:], 4)
    assert isinstance(refused(sent, COLUMNS), DamagedError)


def test_a_page_of_another_statement_is_refused() -> None:
    sent = frame(body(pages.columns_of(REACTIONS), [], named=False), 4)
    assert isinstance(refused(sent, COLUMNS), DamagedError)
    with pytest.raises(DamagedError):
        frames.opened(body(COLUMNS, [], named=False))


def test_text_that_is_no_utf8_is_refused() -> None:
    sent = frame(body(COLUMNS, [MESSAGE]).replace(SECRET.encode(), b"\xff" + SECRET.encode()[1:]), 4)
    assert "media_ref" in refused(sent, COLUMNS).what


def test_a_moment_that_is_too_far_is_refused() -> None:
    moment = struct.pack(">q", 2**62)
    whole = body([("at", driver_type("bigint"))], [(2**62,)], named=False)
    assert whole.endswith(moment)
    assert "timestamp" in refused(frame(whole, 4), [("at", driver_type("timestamp"))]).what


@pytest.mark.parametrize("cql", ["inet", "decimal", "varint", "counter", "date", "duration", "ascii", "time"])
@pytest.mark.parametrize("named", [True, False])
def test_a_column_of_another_type_is_refused_by_its_name(cql: str, named: bool) -> None:
    columns: Columns = [
        ("right", driver_type("bigint")),
        ("odd", cqltypes.ListType.apply_parameters([driver_type(cql)])),
    ]
    fault = refused(frame(body(columns, [], named), 4), columns)
    assert isinstance(fault, RefusedError)
    assert "odd" in fault.what
    assert cql in fault.what


def test_a_type_that_nobody_knows_is_refused_by_its_name() -> None:
    whole = body([("odd", driver_type("bigint"))], [])
    fault = refused(frame(whole[:-6] + struct.pack(">H", 0x30) + whole[-4:], 4), [])
    assert isinstance(fault, RefusedError)
    assert "odd" in fault.what
    assert "0x30" in fault.what
    user = cqltypes.UserType.make_udt_class("k", "bigint", ("a",), (driver_type("int"),))
    assert kind_of(user).arrow is None


# What stands around the rows


def test_trace_warnings_and_payload_are_passed_over() -> None:
    result = body(COLUMNS, [MESSAGE])
    before = (
        bytes(16) + struct.pack(">HH", 1, 3) + b"hot" + struct.pack(">HH", 1, 1) + b"k" + struct.pack(">i", 2) + b"vv"
    )
    sent = frame(before + result, 4, flags=0x02 | 0x04 | 0x08)
    assert ours(sent, COLUMNS, 4, False).equals(ours(frame(result, 4), COLUMNS, 4, False))


@pytest.mark.parametrize("named", [True, False])
def test_the_next_page_can_be_asked_for(named: bool) -> None:
    whole = body(COLUMNS, [MESSAGE], named, b"where it stopped")
    assert (
        frames.opened(whole, frames.layout([(n, kind_of(c)) for n, c in COLUMNS])).paging_state == b"where it stopped"
    )
    assert frames.paging_state(whole) == b"where it stopped"
    assert frames.paging_state(body(COLUMNS, [MESSAGE], named)) is None


def test_a_page_of_many_segments_is_one_page() -> None:
    rows = [(*MESSAGE[:4], bytes(300000), *MESSAGE[5:])] * 2
    for lz4 in (False, True):
        assert (
            ours(recorded(body(COLUMNS, rows), 5, lz4), COLUMNS, 5, lz4).column("body").to_pylist()
            == [bytes(300_000)] * 2
        )


@given(st.binary(max_size=3000) | st.integers(0, 5000).map(bytes))
def test_the_size_of_a_block_is_known_before_it_is_opened(plain: bytes) -> None:
    block = np.frombuffer(pa.compress(plain, codec="lz4_raw", asbytes=True), np.uint8)
    assert kernels.lz4_size(block) == len(plain)


def test_a_compressed_page_that_claims_more_than_it_holds_is_refused() -> None:
    sent = frame(body(COLUMNS, [MESSAGE] * 9), 4, lz4=True)
    lying = sent[:9] + struct.pack(">i", int.from_bytes(sent[9:13], "big") + 40) + sent[13:]
    assert "claims" in refused(lying, COLUMNS).what
