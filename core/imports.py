"""The rules of an import: which columns of a file are ours, where a week's rows go, and which rows are the same row.

`docs/import.md` says in words what stands here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core import ids, weeks
from core.errors import RefusedError
from core.moves import Unit
from core.settings import Tiers
from core.tiers import Tier, target

REQUIRED = ("conversation", "sender", "sent_at")
BODIES = ("body", "body_bytes")
OPTIONAL = ("id", "media", "edited_at", "deleted", "reactions")
JOINED = ("conversation", "id")
KINDS = {
    "conversation": "text, a whole number, or the 16 bytes of a conversation id",
    "sender": "a 64-bit number",
    "sent_at": "an instant (in NDJSON: ISO text with a time zone, or seconds since 1970)",
    "body": 'bytes or text (in NDJSON: text, or {"base64": text})',
    "body_bytes": "a 64-bit number",
    "id": "text or a whole number",
    "media": "text, a whole number, or a list of these",
    "edited_at": "an instant (in NDJSON: ISO text with a time zone, or seconds since 1970)",
    "deleted": "true or false",
    "reactions": "a list of {user: a 64-bit number, reaction: text or bytes, at: an instant, may be left out}",
}
FIRST_US = (weeks.FIRST_MONDAY - ids.UNIX_EPOCH) // timedelta(microseconds=1)
WEEK_US = weeks.WEEK // timedelta(microseconds=1)
SAMPLE_ROWS = 1000

_Is = Callable[[pa.DataType], bool]


@dataclass(frozen=True)
class ColumnMap:
    """Their names by our name, several where they are joined. `named`: what a person named, and so must be there."""

    theirs: Mapping[str, tuple[str, ...]]
    named: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return ",".join(f"{ours}={'+'.join(self.theirs[ours])}" for ours in KINDS)


def parse_map(specs: Iterable[str]) -> ColumnMap:
    """`ours=theirs`, or `ours=one+two` for columns that are joined with a slash; what is not named keeps our name."""
    chosen: dict[str, tuple[str, ...]] = {}
    faults = []
    for spec in specs:
        ours, has_sign, theirs = spec.partition("=")
        names = tuple(theirs.split("+"))
        if not has_sign or not all(names):
            faults.append(f"{spec!r} is not ours=theirs")
        elif ours not in KINDS:
            faults.append(f"{ours!r} is no column of an import")
        elif ours in chosen:
            faults.append(f"{ours} is mapped twice")
        elif len(names) > 1 and ours not in JOINED:
            faults.append(f"{ours} cannot be joined from several columns")
        chosen[ours] = names
    if faults:
        raise RefusedError("--map: " + "; ".join(faults), f"map {', '.join(KINDS)}, each once, as ours=theirs")
    return ColumnMap({ours: chosen.get(ours, (ours,)) for ours in KINDS}, frozenset(chosen))


def absent(found: Iterable[str], columns: ColumnMap) -> list[str]:
    """A sentence for each column that must be there and is not."""
    there = set(found)
    faults = [
        f"{name} is missing" + (f" (for {ours})" if name != ours else "")
        for ours in KINDS
        if ours in REQUIRED or ours in columns.named
        for name in columns.theirs[ours]
        if name not in there
    ]
    if not any(set(columns.theirs[ours]) <= there for ours in BODIES) and not columns.named.intersection(BODIES):
        faults.append("body is missing, and so is body_bytes")
    return faults


def used(found: Iterable[str], columns: ColumnMap) -> dict[str, tuple[str, ...]]:
    """Their columns that are read, by our name."""
    there = set(found)
    return {ours: names for ours, names in columns.theirs.items() if there.issuperset(names)}


def wrong_columns(schema: pa.Schema, columns: ColumnMap) -> list[str]:
    """A sentence for each column of an Arrow schema that is missing, there twice, or of another type."""
    faults = absent(schema.names, columns)
    for ours, names in used(schema.names, columns).items():
        fits = _joined if len(names) > 1 else _FITS[ours]
        for name in names:
            if schema.names.count(name) > 1:
                faults.append(f"{name} is there twice")
            elif not fits(plain_type(schema.field(name).type)):
                faults.append(f"{name} is {schema.field(name).type}, not {KINDS[ours]}")
    return faults


def plain_type(kind: Any) -> Any:
    """Of values that are kept in a dictionary, the values'."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    is_sized = pa.types.is_fixed_size_binary(kind)
    return is_sized or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _joined(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_integer(kind)


def _or_null(fits: _Is) -> _Is:
    """A column without a single value has no type."""
    return lambda kind: pa.types.is_null(kind) or fits(kind)


def _is_media(kind: Any) -> bool:
    return _joined(plain_type(kind.value_type) if is_list(kind) else kind)


def _is_reactions(kind: Any) -> bool:
    if not is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    fields = {field.name: plain_type(field.type) for field in kind.value_type}
    has_at = "at" not in fields or _or_null(pa.types.is_timestamp)(fields["at"])
    is_named = fields.keys() >= {"user", "reaction"}
    return is_named and has_at and pa.types.is_integer(fields["user"]) and _is_body(fields["reaction"])


def _is_body(kind: pa.DataType) -> bool:
    return is_text(kind) or is_bytes(kind)


_FITS: dict[str, _Is] = {
    "conversation": lambda kind: _joined(kind) or is_bytes(kind),
    "sender": pa.types.is_integer,
    "sent_at": pa.types.is_timestamp,
    "body": _or_null(_is_body),
    "body_bytes": _or_null(pa.types.is_integer),
    "id": _or_null(_joined),
    "media": _or_null(_is_media),
    "edited_at": _or_null(pa.types.is_timestamp),
    "deleted": _or_null(pa.types.is_boolean),
    "reactions": _or_null(_is_reactions),
}


class Destination(StrEnum):
    """`kafka`: through the log, as if sent now. `runs`: a sorted file that waits for the fold."""

    KAFKA = "kafka"
    RUNS = "runs"


def destination(
    week: int, unit: Unit | None, first_week: int | None, now: datetime, policy: Tiers
) -> Destination | None:
    """By the ledger first, by age where it says nothing; None for a young week that has no table yet.

    What goes through Kafka is right even if the unit moves on meanwhile, for the consumer routes it. Who registers a
    run looks once more, for the unit may be on its way up.
    """
    if unit:
        return Destination.KAFKA if unit.tier.is_cql else Destination.RUNS
    is_old = target(week, now, policy) in (Tier.COLD, Tier.FROZEN) if first_week is None else week < first_week
    return Destination.RUNS if is_old else None


# What is known of a row when it is looked for again. `key` is the hash of its conversation and id, or of its content
# where it has no id; `content` that of all it says. `person`, `sent_us` and `media` may not differ between two versions
# of one message; `edited_us` tells versions apart. `line` names the row: the file's number and its line there.
MARK = np.dtype(
    [
        *((name, "<u8") for name in ("key0", "key1", "content0", "content1", "media")),
        *((name, "<i8") for name in ("person", "sent_us", "edited_us", "line")),
        *((name, "<i4") for name in ("week", "slice")),
        ("has_id", "?"),
    ]
)
NEVER_EDITED = np.iinfo(np.int64).min
KEPT, REPEATED, CONFLICT = 0, -1, -2  # a verdict above 0: the row's number among those without an id that equal it


def judged(marks: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.int32]]:
    """The marks in an order of their own, and what becomes of each: no order of the input matters.

    Of rows with one id those that say the same are kept once. Two that say different things are a conflict, and all of
    that id with them, unless they are versions: the same sender, time and media, edited at different times. Rows
    without an id that say the same are different messages, numbered.
    """
    order = np.lexsort([marks[name] for name in ("line", "content1", "content0", "edited_us", "key1", "key0")])
    sorted_ = marks[order]
    if not len(sorted_):
        return sorted_, np.empty(0, np.int32)
    key = _starts(sorted_, ("key0", "key1"))
    version = key | _starts(sorted_, ("edited_us",))
    content = version | _starts(sorted_, ("content0", "content1"))
    is_clash = (content & ~version) | (~key & _starts(sorted_, ("person", "sent_us", "media")))
    groups = np.cumsum(key) - 1
    first = np.flatnonzero(key)
    in_conflict = np.logical_or.reduceat(is_clash, first)[groups]
    occurrence = np.arange(len(sorted_)) - first[groups]
    with_id = np.where(in_conflict, CONFLICT, np.where(content, KEPT, REPEATED))
    return sorted_, np.where(sorted_["has_id"], with_id, occurrence).astype(np.int32)


def _starts(marks: NDArray[np.void], names: Sequence[str]) -> NDArray[np.bool_]:
    """Where a row differs from the one before it."""
    differs = np.ones(len(marks), dtype=bool)
    differs[1:] = np.logical_or.reduce([marks[name][1:] != marks[name][:-1] for name in names])
    return differs
