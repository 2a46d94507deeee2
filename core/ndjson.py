"""A line of NDJSON in our columns. What is wrong with it is a sentence that names the column, never the value."""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import isfinite
from typing import Any

import pyarrow as pa

from core import ids
from core.imports import KINDS, ColumnMap, absent, used
from core.mapped import MAPPED, as_mapped

Record = dict[str, Any]
_INT64 = range(-(2**63), 2**63)
_MICROSECOND = timedelta(microseconds=1)
_COLUMN_OF = {
    "conversation": "name",
    "sender": "sender_id",
    "sent_at": "sent_us",
    "id": "own",
    "edited_at": "edited_us",
}


class BadLineError(ValueError):
    """The reason, as it goes to quarantine."""


def record_of(line: bytes) -> Record:
    try:
        found = json.loads(line.decode(), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise BadLineError("it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise BadLineError("it is not JSON") from None
    if not isinstance(found, dict):
        raise BadLineError("it is no JSON object")
    return found


def mapped_of(record: Record, names: Mapping[str, Sequence[str]]) -> Record:
    """By the names of MAPPED; what is left out or null there is null here. `names`: theirs by ours."""
    found: Record = {}
    for ours, theirs in names.items():
        values = [record.get(name) for name in theirs]
        if any(value is None for value in values):
            continue
        try:
            found[_COLUMN_OF.get(ours, ours)] = _joined(values) if len(values) > 1 else _MAKERS[ours](values[0])
        except (ValueError, OverflowError):
            raise BadLineError(f"{ours} is not {KINDS[ours]}") from None
    if found.get("body") is not None:
        found.pop("body_bytes", None)
    return found


def as_batch(rows: Sequence[Record]) -> pa.RecordBatch:
    """Of what `mapped_of` gave, and `line`."""
    names = [name for name in MAPPED.names if name not in ("conversation_id", "deleted")]
    columns = {name: pa.array([row.get(name) for row in rows], MAPPED.field(name).type) for name in names}
    columns["deleted"] = pa.array([row.get("deleted", False) for row in rows], pa.bool_())
    return as_mapped(columns, len(rows))


def wrong_fields(records: Sequence[Record], columns: ColumnMap) -> list[str]:
    """A sentence for each column that none of these records has, or that none of them has as it should be."""
    found = {name for record in records for name in record}
    faults = absent(found, columns)
    for ours, names in used(found, columns).items():
        having = [record for record in records if all(record.get(name) is not None for name in names)]
        if having and not any(_fits(record, {ours: names}) for record in having):
            faults.append(f"{'+'.join(names)} is never {KINDS[ours]}")
    return faults


def _fits(record: Record, names: Mapping[str, Sequence[str]]) -> bool:
    try:
        mapped_of(record, names)
    except BadLineError:
        return False
    return True


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _joined(values: Iterable[Any]) -> bytes:
    return b"/".join(
        _name(value).replace(b"%", b"%25").replace(b"/", b"%2F") if isinstance(value, str) else _name(value)
        for value in values
    )


def _name(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return str(_whole(value)).encode()


def _own(value: Any) -> bytes | None:
    return _name(value) or None


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    return value


def _number(value: Any) -> int:
    if _whole(value) not in _INT64:
        raise ValueError
    return int(value)


def _instant(value: Any) -> int:
    if isinstance(value, str):
        when = datetime.fromisoformat(value)
        if when.tzinfo is None:
            raise ValueError
        return (when - ids.UNIX_EPOCH) // _MICROSECOND
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise ValueError
    us = value * 1_000_000 if isinstance(value, int) else round(value * 1_000_000)
    return _number(us)


def _body(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, dict) or value.keys() != {"base64"} or not isinstance(value["base64"], str):
        raise ValueError
    try:
        return base64.b64decode(value["base64"], validate=True)
    except binascii.Error:
        raise ValueError from None


def _media(value: Any) -> bytes | None:
    items = value if isinstance(value, list) else [value]
    return b",".join(_name(item) for item in items if item is not None) or None


def _deleted(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _reactions(value: Any) -> list[Record]:
    if not isinstance(value, list):
        raise ValueError
    return [_reaction(one) for one in value]


def _reaction(value: Any) -> Record:
    if not isinstance(value, dict) or not value.keys() >= {"user", "reaction"}:
        raise ValueError
    at, reaction = value.get("at"), value["reaction"]
    return {
        "user_id": _number(value["user"]),
        "reaction": None if reaction is None else _body(reaction),
        "at_us": None if at is None else _instant(at),
    }


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "conversation": _name,
    "sender": _number,
    "sent_at": _instant,
    "body": _body,
    "body_bytes": _number,
    "id": _own,
    "media": _media,
    "edited_at": _instant,
    "deleted": _deleted,
    "reactions": _reactions,
}
