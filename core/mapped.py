"""Rows of a source's file in our columns, and the reasons why some of them cannot be kept.

Whole columns at a time. A null that must not be there stays null until `plausible` names it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core import ids
from core.imports import FIRST_US, KINDS, is_bytes, is_list, is_text, plain_type
from core.intake import CLOCK_SKEW_US, MEDIA_REF_MAX, REACTION_BYTES_MAX
from schemas.events import BODY_BYTES_MAX

ID_BYTES = 16
REACTION = pa.struct([("user_id", pa.int64()), ("reaction", pa.binary()), ("at_us", pa.int64())])
# `name` is what the source calls the conversation; where it gave the id itself, `conversation_id` is set and `name` is
# its hex. `body_bytes` only where the body is not known. Times are microseconds since 1970.
_COLUMNS: dict[str, pa.DataType] = {
    "line": pa.int64(),
    "name": pa.binary(),
    "conversation_id": pa.binary(ID_BYTES),
    "sender_id": pa.int64(),
    "sent_us": pa.int64(),
    "body": pa.binary(),
    "body_bytes": pa.int64(),
    "own": pa.binary(),
    "media": pa.binary(),
    "edited_us": pa.int64(),
    "deleted": pa.bool_(),
    "reactions": pa.list_(REACTION),
}
MAPPED = pa.schema(_COLUMNS)
# Reasons that a later time would take away.
IN_FUTURE = ("sent_at is in the future", "edited_at is in the future", "a reaction is from the future")
Mask = NDArray[np.bool_]
Check = tuple[Mask, str]
_NO_NUMBER = pa.scalar(None, pa.int64())
_INT64_MAX = np.iinfo(np.int64).max
_LATEST_US = (datetime(9999, 1, 1, tzinfo=ids.UNIX_EPOCH.tzinfo) - ids.UNIX_EPOCH) // timedelta(microseconds=1)
_PER_UNIT = {"s": 1_000_000, "ms": 1000, "us": 1}


def from_arrow(
    batch: pa.RecordBatch, used: Mapping[str, Sequence[str]], first_line: int
) -> tuple[pa.RecordBatch, list[Check]]:
    """All rows, bad ones too. `used` are the source's columns by our name; their types were checked."""
    given = {ours: [_plain(batch.column(name)) for name in names] for ours, names in used.items()}
    numbers = [ours for ours in ("sender", "body_bytes") if ours in given]
    checks = [(_too_large(given[ours][0]), f"{ours} is not {KINDS[ours]}") for ours in numbers]
    name, conversation_id = _conversation(given["conversation"], checks)
    columns = {
        "line": pa.array(np.arange(first_line, first_line + batch.num_rows)),
        "name": name,
        "conversation_id": conversation_id,
        "sender_id": _number(given["sender"][0]),
        "sent_us": micros(given["sent_at"][0]),
    }
    makers = {"body": _bytes, "body_bytes": _number, "media": _media, "edited_at": micros, "reactions": _reactions}
    named = {"edited_at": "edited_us"}
    for ours, make in makers.items():
        if ours in given:
            columns[named.get(ours, ours)] = make(given[ours][0])
    if "body" in given and "body_bytes" in given:
        columns["body_bytes"] = pc.if_else(columns["body"].is_null(), columns["body_bytes"], _NO_NUMBER)
    if "id" in given:
        columns["own"] = _empty_as_null(_names(given["id"]))
    if "deleted" in given:
        columns["deleted"] = pc.fill_null(given["deleted"][0].cast(pa.bool_()), False)
    return as_mapped(columns, batch.num_rows), checks


def as_mapped(columns: Mapping[str, Any], rows: int) -> pa.RecordBatch:
    """A column that is left out is null, or false."""
    absent: dict[str, Any] = {field.name: pa.nulls(rows, field.type) for field in MAPPED} | {
        "deleted": pa.array(np.zeros(rows, dtype=bool))
    }
    return pa.RecordBatch.from_arrays([(absent | dict(columns))[name] for name in MAPPED.names], schema=MAPPED)


def plausible(mapped: pa.RecordBatch, now: datetime) -> list[Check]:
    """What `core.intake` would refuse, and what is not there at all; of a row's reasons the first one counts."""
    latest_us = (now - ids.UNIX_EPOCH) // timedelta(microseconds=1) + CLOCK_SKEW_US
    sent_us, edited_us = _ints(mapped["sent_us"], FIRST_US), _ints(mapped["edited_us"], FIRST_US)
    sizes = _ints(mapped["body_bytes"], 0)
    return [
        (_lengths(mapped["name"]) == 0, "conversation is missing"),
        (_not_utf8(mapped["name"]), "conversation is not UTF-8"),
        (_is_null(mapped["sender_id"]), "sender is missing"),
        (_ints(mapped["sender_id"], 0) < 0, "sender is below 0"),
        (_is_null(mapped["sent_us"]), "sent_at is missing"),
        (sent_us < FIRST_US, "sent_at is before the first week (1970-01-05)"),
        (sent_us > latest_us, IN_FUTURE[0]),
        (_not_utf8(mapped["own"]), "id is not UTF-8"),
        (sizes < 0, "body_bytes is below 0"),
        ((sizes > BODY_BYTES_MAX) | (_lengths(mapped["body"]) > BODY_BYTES_MAX), "its body is over the cap"),
        (_not_utf8(mapped["media"]), "media is not UTF-8"),
        (_long_media(mapped["media"]), "its media reference is over the cap"),
        (_given(mapped["edited_us"]) & (edited_us < sent_us), "edited_at is before sent_at"),
        (edited_us > latest_us, IN_FUTURE[1]),
        *_plausible_reactions(mapped["reactions"], latest_us),
    ]


def reasons(rows: int, checks: Sequence[Check]) -> list[str]:
    """One per row, empty for a good one."""
    found = np.zeros(rows, dtype=np.int64)
    for number, (mask, _) in enumerate(checks, 1):
        found[(found == 0) & mask] = number
    texts = ["", *(reason for _, reason in checks)]
    return [texts[number] for number in found]


def micros(values: Any) -> Any:
    """Of timestamps of any unit; what lies outside of what we can write ends up beyond the year 9999, or before 1."""
    if pa.types.is_null(values.type):
        return values.cast(pa.int64())
    unit = values.type.unit
    plain = _ints(pc.cast(values, pa.int64()), 0)
    if unit == "ns":
        found = plain // 1000
    else:
        bound = _LATEST_US // _PER_UNIT[unit]
        found = np.clip(plain, -bound, bound) * _PER_UNIT[unit]
    return pa.array(found, pa.int64(), mask=_is_null(values))


def _plain(values: Any) -> Any:
    return values.cast(plain_type(values.type)) if pa.types.is_dictionary(values.type) else values


def _conversation(given: Sequence[Any], checks: list[Check]) -> tuple[Any, Any]:
    """The name and, where the source gave 16 bytes, the id."""
    if len(given) > 1 or not is_bytes(given[0].type):
        return _names(given), pa.nulls(len(given[0]), pa.binary(ID_BYTES))
    values = given[0].cast(pa.binary())
    is_wrong = _given(values) & (_lengths(values) != ID_BYTES)
    checks.append((is_wrong, f"conversation is not {ID_BYTES} bytes"))
    values = pc.if_else(pa.array(is_wrong), pa.scalar(bytes(ID_BYTES), pa.binary()), values)
    uniques = values.dictionary_encode()
    names = pa.array([value.hex().encode() for value in uniques.dictionary.to_pylist()], pa.binary())
    return names.take(uniques.indices), values.cast(pa.binary(ID_BYTES))


def _names(given: Sequence[Any]) -> Any:
    """What several columns say, joined by slashes; a slash within text is escaped, or two names could become one."""
    if len(given) == 1:
        return _name(given[0])
    parts = [_escaped(_name(values)) if is_text(values.type) else _name(values) for values in given]
    return pc.binary_join_element_wise(*parts, pa.scalar(b"/", pa.binary()))


def _name(values: Any) -> Any:
    return (values if is_text(values.type) else values.cast(pa.string())).cast(pa.binary())


def _escaped(values: Any) -> Any:
    return pc.replace_substring(pc.replace_substring(values, b"%", b"%25"), b"/", b"%2F")


def _number(values: Any) -> Any:
    """One over 64 bits becomes null."""
    if pa.types.is_uint64(values.type):
        values = pc.if_else(pa.array(_too_large(values)), pa.scalar(None, pa.uint64()), values)
    return values.cast(pa.int64())


def _too_large(values: Any) -> Mask:
    if not pa.types.is_uint64(values.type):
        return np.zeros(len(values), dtype=bool)
    return np.asarray(pc.fill_null(values, 0)) > _INT64_MAX


def _bytes(values: Any) -> Any:
    return values.cast(pa.binary())


def _empty_as_null(values: Any) -> Any:
    is_empty = _lengths(values) == 0
    return pc.if_else(pa.array(is_empty), pa.scalar(None, pa.binary()), values)


def _media(values: Any) -> Any:
    if pa.types.is_null(values.type):
        return values.cast(pa.binary())
    if not is_list(values.type):
        return _empty_as_null(_name(values))
    items = _name(_plain(pc.list_flatten(values)))
    joined: Any = pc.binary_join(_listed(values, items), b",")
    if items.null_count:
        lists = _listed(values, items).to_pylist()
        joined = pa.array([b",".join(item for item in one if item is not None) for one in lists], pa.binary())
    return _empty_as_null(joined)


def _listed(values: Any, items: Any) -> Any:
    """`items` cut as the list column `values` is; a null becomes an empty list."""
    lengths = pc.fill_null(pc.list_value_length(values), 0)
    offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)


def _reactions(values: Any) -> Any:
    if pa.types.is_null(values.type):
        return values.cast(pa.list_(REACTION))
    items = pc.list_flatten(values)
    given = {field.name: _plain(pc.struct_field(items, field.name)) for field in items.type}
    at_us = micros(given["at"]) if "at" in given else pa.nulls(len(items), pa.int64())
    fields = [_number(given["user"]), _bytes(given["reaction"]), at_us]
    return _listed(values, pa.StructArray.from_arrays(fields, fields=list(REACTION)))


def _plausible_reactions(values: Any, latest_us: int) -> list[Check]:
    items = pc.list_flatten(values)
    rows = pc.list_parent_indices(values).to_numpy()

    def of(mask: Mask) -> Mask:
        found = np.zeros(len(values), dtype=bool)
        found[rows[mask]] = True
        return found

    at_us = _ints(pc.struct_field(items, "at_us"), FIRST_US)
    is_long = _lengths(pc.struct_field(items, "reaction")) > REACTION_BYTES_MAX
    return [
        (of(_is_null(pc.struct_field(items, "user_id"))), "a reaction has no user, or no 64-bit number"),
        (of(_ints(pc.struct_field(items, "user_id"), 0) < 0), "a reaction has a user below 0"),
        (of(is_long), "a reaction is over the cap"),
        (of(at_us < FIRST_US), "a reaction is from before the first week (1970-01-05)"),
        (of(at_us > latest_us), IN_FUTURE[2]),
    ]


def _is_null(values: Any) -> Mask:
    return np.asarray(values.is_null(), dtype=bool)


def _given(values: Any) -> Mask:
    return ~_is_null(values)


def _ints(values: Any, null: int) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(values, null), dtype=np.int64)


def _lengths(values: Any) -> NDArray[np.int64]:
    return _ints(pc.binary_length(values), 0)


def _not_utf8(values: Any) -> Mask:
    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        return np.array([_is_not_utf8(value) for value in values.to_pylist()], dtype=bool)
    return np.zeros(len(values), dtype=bool)


def _is_not_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode()
    except UnicodeDecodeError:
        return True
    return False


def _long_media(values: Any) -> Mask:
    """By characters; only what has more bytes than that is looked at."""
    found = _lengths(values) > MEDIA_REF_MAX
    for row in np.flatnonzero(found):
        found[row] = len(values[int(row)].as_py().decode(errors="replace")) > MEDIA_REF_MAX
    return found
