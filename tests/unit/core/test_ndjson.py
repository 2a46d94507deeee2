"""Lines of NDJSON in our columns, and what is wrong with the others; Parquet says the same by the same rules."""

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids, imports, mapped, ndjson
from core.intake import MEDIA_REF_MAX, REACTION_BYTES_MAX
from schemas.events import BODY_BYTES_MAX
from tests.strategies import instants, texts, users

PLAIN = imports.parse_map([])
NOW = datetime(2041, 1, 1, tzinfo=UTC)
ROW: dict[str, Any] = {"conversation": "a", "sender": 7, "sent_at": "2020-01-01T00:00:00Z", "body": "hi"}
SENT_US = 1_577_836_800_000_000


def one(**changes: Any) -> dict[str, Any]:
    return ROW | changes


def of_json(row: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = ndjson.as_batch([ndjson.mapped_of(dict(row), PLAIN.theirs) | {"line": 1}]).to_pylist()
    return found


def reason(row: Mapping[str, Any], now: datetime = NOW) -> str:
    """What becomes of a line: empty when it is good."""
    try:
        record = ndjson.record_of(json.dumps(row).encode())
        batch = ndjson.as_batch([ndjson.mapped_of(record, PLAIN.theirs) | {"line": 1}])
    except ndjson.BadLineError as fault:
        return str(fault)
    return mapped.reasons(1, mapped.plausible(batch, now))[0]


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (one(), "name", b"a"),
        (one(conversation=12), "name", b"12"),
        (one(), "sent_us", SENT_US),
        (one(sent_at="2020-01-01T01:30:00.000001+01:30"), "sent_us", SENT_US + 1),
        (one(sent_at=SENT_US // 10**6), "sent_us", SENT_US),
        (one(sent_at=SENT_US / 10**6 + 0.25), "sent_us", SENT_US + 250_000),
        (one(), "body", b"hi"),
        (one(body="ü"), "body", "ü".encode()),
        (one(body=""), "body", b""),
        (one(body=None), "body", None),
        (one(body={"base64": b64encode(b"\xff\x00").decode()}), "body", b"\xff\x00"),
        (one(body_bytes=9), "body_bytes", None),
        (one(body=None, body_bytes=9), "body_bytes", 9),
        (one(id="x"), "own", b"x"),
        (one(id=5), "own", b"5"),
        (one(id=""), "own", None),
        (one(media="f"), "media", b"f"),
        (one(media=3), "media", b"3"),
        (one(media=[3, "f", None]), "media", b"3,f"),
        (one(media=[]), "media", None),
        (one(media=""), "media", None),
        (one(edited_at="2020-01-02T00:00:00Z"), "edited_us", SENT_US + 86_400_000_000),
        (one(), "deleted", False),
        (one(deleted=True), "deleted", True),
        (one(deleted=None), "deleted", False),
        (one(), "reactions", None),
        (
            one(reactions=[{"user": 1, "reaction": "+"}, {"user": 2, "reaction": None, "at": SENT_US // 10**6}]),
            "reactions",
            [{"user_id": 1, "reaction": b"+", "at_us": None}, {"user_id": 2, "reaction": None, "at_us": SENT_US}],
        ),
    ],
)
def test_values(row: dict[str, Any], column: str, value: Any) -> None:
    assert reason(row) == ""
    assert of_json(row)[column] == value


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"", "it is not JSON"),
        (b'{"sender": ', "it is not JSON"),
        (b'{"sender": NaN}', "it is not JSON"),
        (b'{"sender": ' + b"9" * 5000 + b"}", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b'{"body": "\xff"}', "it is not UTF-8"),
        (b"[1]", "it is no JSON object"),
        (b"null", "it is no JSON object"),
    ],
)
def test_a_line_that_is_no_record(line: bytes, told: str) -> None:
    with pytest.raises(ndjson.BadLineError) as bad:
        ndjson.record_of(line)
    assert str(bad.value) == told


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("conversation", [True, 1.5, [], {}, "\ud800"]),
        ("sender", ["7", 7.0, True, 2**63, -(2**63) - 1]),
        ("sent_at", ["2020-01-01T00:00:00", "yesterday", True, [], 1e300, 2**70]),
        ("body", [1, ["x"], {"base64": "?"}, {"base64": 1}, {"hex": ""}, "\ud800"]),
        ("body_bytes", ["9", 1.5, 2**63]),
        ("id", [1.5, [], True]),
        ("media", [1.5, [[]], [True], {}]),
        ("edited_at", ["2020-01-01", False]),
        ("deleted", [1, "true", []]),
        ("reactions", ["x", [1], [{"user": 1}], [{"user": "1", "reaction": "x"}], [{"user": 1, "reaction": 1}]]),
    ],
)
def test_a_value_of_another_kind_is_named_by_its_column(column: str, values: list[Any]) -> None:
    for value in values:
        assert reason(one(**{column: value})) == f"{column} is not {imports.KINDS[column]}", value


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"conversation": None}, "conversation is missing"),
        ({"conversation": ""}, "conversation is missing"),
        ({"sender": None}, "sender is missing"),
        ({"sender": -1}, "sender is below 0"),
        ({"sent_at": None}, "sent_at is missing"),
        ({"sent_at": "1970-01-04T23:59:59.999999Z"}, "sent_at is before the first week (1970-01-05)"),
        ({"sent_at": "1969-01-01T00:00:00Z"}, "sent_at is before the first week (1970-01-05)"),
        ({"sent_at": "2041-01-02T00:00:00.000001Z"}, "sent_at is in the future"),
        ({"body": "x" * (BODY_BYTES_MAX + 1)}, "its body is over the cap"),
        ({"body": None, "body_bytes": BODY_BYTES_MAX + 1}, "its body is over the cap"),
        ({"body": None, "body_bytes": -1}, "body_bytes is below 0"),
        ({"media": "x" * (MEDIA_REF_MAX + 1)}, "its media reference is over the cap"),
        ({"edited_at": "2019-12-31T23:59:59Z"}, "edited_at is before sent_at"),
        ({"edited_at": "2041-01-03T00:00:00Z"}, "edited_at is in the future"),
        ({"reactions": [{"user": -1, "reaction": "x"}]}, "a reaction has a user below 0"),
        ({"reactions": [{"user": 1, "reaction": "x" * (REACTION_BYTES_MAX + 1)}]}, "a reaction is over the cap"),
        (
            {"reactions": [{"user": 1, "reaction": "x", "at": 0}]},
            "a reaction is from before the first week (1970-01-05)",
        ),
        ({"reactions": [{"user": 1, "reaction": "x", "at": "2050-01-01T00:00:00Z"}]}, "a reaction is from the future"),
        ({"sender": None, "body": "x" * (BODY_BYTES_MAX + 1)}, "sender is missing"),
    ],
)
def test_what_cannot_be_true_is_told(changes: dict[str, Any], told: str) -> None:
    assert reason(one(**changes)) == told


@pytest.mark.parametrize(
    "changes",
    [
        {"sent_at": "1970-01-05T00:00:00Z"},
        {"sent_at": "2041-01-02T00:00:00Z"},
        {"body": "x" * BODY_BYTES_MAX},
        {"media": "ü" * MEDIA_REF_MAX},
        {"edited_at": ROW["sent_at"]},
        {"sender": 0},
    ],
)
def test_the_edge_of_what_can_be_true(changes: dict[str, Any]) -> None:
    assert reason(one(**changes)) == ""


def test_joined_names_are_those_of_the_sample_and_never_become_one() -> None:
    joined = imports.parse_map(["conversation=a+b"])

    def name(a: Any, b: Any) -> bytes:
        return bytes(ndjson.mapped_of({"a": a, "b": b}, joined.theirs)["name"])

    assert name(3, 14) == b"3/14"
    assert len({name("x/y", "z"), name("x", "y/z"), name("x%2Fy", "z"), name("x", "y")}) == 4
    assert "name" not in ndjson.mapped_of({"a": 1, "b": None}, joined.theirs)
    pairs = [("x/y", 3), ("x%y", 14), (None, 1), ("x", 0)]
    batch = pa.RecordBatch.from_pylist(
        [{"a": a, "b": b, "sender": 1, "sent_at": datetime(2020, 1, 1, tzinfo=UTC)} for a, b in pairs]
    )
    by_arrow, _ = mapped.from_arrow(batch, imports.used(batch.schema.names, joined), 1)
    by_json = [ndjson.mapped_of({"a": a, "b": b}, joined.theirs).get("name") for a, b in pairs]
    assert by_arrow["name"].to_pylist() == by_json == [b"x%2Fy/3", b"x%25y/14", None, b"x/0"]


def test_wrong_fields_are_told_from_the_first_rows() -> None:
    assert ndjson.wrong_fields([one(), one(sender=None)], PLAIN) == []
    assert ndjson.wrong_fields([one(sender="x"), one()], PLAIN) == []
    assert ndjson.wrong_fields([one(sender="x", id=1.5)] * 2, PLAIN) == [
        f"sender is never {imports.KINDS['sender']}",
        f"id is never {imports.KINDS['id']}",
    ]
    (missing,) = ndjson.wrong_fields([{name: ROW[name] for name in ("conversation", "sender", "body")}], PLAIN)
    assert missing == "sent_at is missing"


# The same rows in Parquet

zoned = st.builds(lambda when, hours: when.astimezone(timezone(timedelta(hours=hours))), instants, st.integers(-11, 11))
names = st.one_of(texts.filter(bool), st.integers(-(2**63), 2**63 - 1))
reaction_lists = st.lists(
    st.fixed_dictionaries({"user": users, "reaction": st.none() | texts, "at": st.none() | zoned}), max_size=3
)
logical_rows = st.lists(
    st.fixed_dictionaries(
        {
            "conversation": texts,
            "sender": st.none() | users,
            "sent_at": zoned,
            "body": st.none() | texts,
            "body_bytes": st.none() | st.integers(-1, 100),
            "id": st.none() | texts,
            "media": st.none() | st.lists(st.none() | texts, max_size=3),
            "edited_at": st.none() | zoned,
            "deleted": st.none() | st.booleans(),
            "reactions": st.none() | reaction_lists,
        }
    ),
    min_size=1,
    max_size=6,
)
_ARROW: Any = [
    ("conversation", pa.large_string()),
    ("sender", pa.int64()),
    ("sent_at", pa.timestamp("us", "Europe/Vienna")),
    ("body", pa.string()),
    ("body_bytes", pa.int16()),
    ("id", pa.string()),
    ("media", pa.large_list(pa.string())),
    ("edited_at", pa.timestamp("us")),
    ("deleted", pa.bool_()),
    (
        "reactions",
        pa.list_(pa.struct([("user", pa.int64()), ("reaction", pa.string()), ("at", pa.timestamp("us", "UTC"))])),
    ),
]
ARROW = pa.schema(_ARROW)


def naive(row: dict[str, Any]) -> dict[str, Any]:
    edited_at = row["edited_at"]
    return row | {"edited_at": edited_at and edited_at.astimezone(UTC).replace(tzinfo=None)}


@given(logical_rows)
def test_parquet_and_ndjson_say_the_same(rows: list[dict[str, Any]]) -> None:
    batch = pa.RecordBatch.from_pylist([naive(row) for row in rows], schema=ARROW)
    assert imports.wrong_columns(batch.schema, PLAIN) == []
    by_arrow, checks = mapped.from_arrow(batch, imports.used(batch.schema.names, PLAIN), 1)
    lines = [json.dumps(row, default=lambda when: when.isoformat()).encode() for row in rows]
    records = [ndjson.mapped_of(ndjson.record_of(line), PLAIN.theirs) for line in lines]
    by_json = ndjson.as_batch([record | {"line": line} for line, record in enumerate(records, 1)])
    plain = [
        [row | {"reactions": row["reactions"] or []} for row in found.to_pylist()] for found in (by_arrow, by_json)
    ]
    assert plain[0] == plain[1]
    reasons = [
        mapped.reasons(len(rows), [*more, *mapped.plausible(found, NOW)])
        for found, more in ((by_arrow, checks), (by_json, []))
    ]
    assert reasons[0] == reasons[1]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_every_unit(unit: Any) -> None:
    when = datetime(2020, 1, 1, 0, 0, 1, tzinfo=UTC)
    values = pa.array([when, None, ids.UNIX_EPOCH - timedelta(seconds=1)], pa.timestamp(unit, "UTC"))
    assert mapped.micros(values).to_pylist() == [SENT_US + 1_000_000, None, -1_000_000]


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("value", [2**63 - 1, -(2**63) + 1])
def test_a_time_that_nobody_can_write_is_one_that_cannot_be_true(unit: Any, value: int) -> None:
    batch = pa.RecordBatch.from_pylist(
        [one(sent_at=None)], schema=ARROW.remove(9).remove(8).remove(7).remove(6).remove(5)
    )
    times = pa.array([value], pa.int64()).cast(pa.timestamp(unit))
    batch = batch.set_column(2, "sent_at", times)
    found, _ = mapped.from_arrow(batch, imports.used(batch.schema.names, PLAIN), 1)
    (told,) = mapped.reasons(1, mapped.plausible(found, NOW))
    assert told in ("sent_at is in the future", "sent_at is before the first week (1970-01-05)")


def arrow_reasons(**columns: pa.Array) -> list[str]:  # type: ignore[type-arg]
    rows = len(next(iter(columns.values())))
    given_columns: dict[str, Any] = {
        "conversation": pa.array(["a"] * rows),
        "sender": pa.array([7] * rows),
        "sent_at": pa.array([SENT_US] * rows, pa.timestamp("us")),
        "body": pa.array([b"x"] * rows),
    } | columns
    batch = pa.RecordBatch.from_pydict(given_columns)
    assert imports.wrong_columns(batch.schema, PLAIN) == []
    found, checks = mapped.from_arrow(batch, imports.used(batch.schema.names, PLAIN), 1)
    return mapped.reasons(rows, [*checks, *mapped.plausible(found, NOW)])


def not_utf8() -> Any:
    return pa.array([b"\xff", b"a"], pa.binary()).view(pa.string())


def test_what_only_parquet_can_get_wrong() -> None:
    too_large = pa.array([2**63, 7], pa.uint64())
    assert arrow_reasons(sender=too_large) == ["sender is not a 64-bit number", ""]
    assert arrow_reasons(body=pa.nulls(2), body_bytes=too_large) == ["body_bytes is not a 64-bit number", ""]
    assert arrow_reasons(conversation=pa.array([b"x", b"y" * 16])) == ["conversation is not 16 bytes", ""]
    assert arrow_reasons(conversation=not_utf8()) == ["conversation is not UTF-8", ""]
    assert arrow_reasons(id=not_utf8()) == ["id is not UTF-8", ""]
    assert arrow_reasons(media=not_utf8()) == ["media is not UTF-8", ""]
    assert arrow_reasons(body=not_utf8()) == ["", ""]  # a body is bytes
    users_ = pa.StructArray.from_arrays([too_large, pa.array(["x", "y"])], names=["user", "reaction"])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), users_)
    assert arrow_reasons(reactions=lists) == ["a reaction has no user, or no 64-bit number", ""]


def test_sixteen_bytes_are_an_id_already() -> None:
    key = bytes(range(16))
    batch = pa.RecordBatch.from_pydict({"conversation": pa.array([key], pa.binary(16)), "sender": pa.array([1])})
    columns = {"conversation": ("conversation",), "sender": ("sender",)}
    batch = batch.append_column("sent_at", pa.array([SENT_US], pa.timestamp("us")))
    found, _ = mapped.from_arrow(batch, columns | {"sent_at": ("sent_at",)}, 1)
    assert (found["conversation_id"][0].as_py(), found["name"][0].as_py()) == (key, key.hex().encode())


def test_slices_and_dictionaries_are_read_as_the_rows_they_show() -> None:
    rows = [one(conversation=str(number), media=[str(number)], reactions=None) for number in range(6)]
    whole = pa.RecordBatch.from_pylist(
        [row | {"sent_at": datetime(2020, 1, 1, tzinfo=UTC)} for row in rows],
        schema=pa.schema(
            [
                ("conversation", pa.dictionary(pa.int32(), pa.string())),
                ("sender", pa.int64()),
                ("sent_at", pa.timestamp("s", "UTC")),
                ("body", pa.string()),
                ("media", pa.list_(pa.string())),
            ]
        ),
    )
    found, _ = mapped.from_arrow(whole.slice(2, 3), imports.used(whole.schema.names, PLAIN), 3)
    assert found["name"].to_pylist() == found["media"].to_pylist() == [b"2", b"3", b"4"]
    assert found["line"].to_pylist() == [3, 4, 5]
