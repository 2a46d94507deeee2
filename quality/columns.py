"""What each declared column of a table must be, read off its declaration: type, nullability, tags.

Fields of the reactions' list count as columns, by dotted names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from core.intake import MEDIA_REF_MAX, REACTION_BYTES_MAX
from schemas.events import BODY_BYTES_MAX
from schemas.tables import CANONICAL, MESSAGES

# The most that a column of content may hold: bytes, or characters of a text. One that is not here cannot be judged.
MOST = {"body": BODY_BYTES_MAX, "media_ref": MEDIA_REF_MAX, "reactions.reaction": REACTION_BYTES_MAX}
# A number that has a least value; its type sees to the greatest.
LEAST = {"message_type": 0}
_UUIDS = {column.name for column in MESSAGES.columns if column.cql == "uuid"}


class Kind(StrEnum):
    UUID = "16 bytes"
    ORDERED_ID = "an id of ours"
    CONTENT = "content"
    NUMBER = "number"
    OTHER = "other"


@dataclass(frozen=True)
class Column:
    """`least` bounds a number, `most` the size of content."""

    name: str
    kind: Kind
    nullable: bool
    least: int | None = None
    most: int | None = None


def declared(schema: pa.Schema = CANONICAL) -> tuple[Column, ...]:
    """Raises KeyError for a column of content whose bound nobody declared."""
    return tuple(column for field in schema for column in _columns(field, field.name, _tags(field)))


def _columns(field: "pa.Field[Any]", name: str, tags: frozenset[str]) -> Iterator[Column]:
    if pa.types.is_list(field.type):
        for inner in field.type.value_type:
            yield from _columns(inner, f"{name}.{inner.name}", tags)
        return
    kind = _kind(field.type, name, tags)
    most = MOST[name] if kind is Kind.CONTENT else None
    yield Column(name, kind, field.nullable, LEAST.get(name), most)


def _kind(kind: pa.DataType, name: str, tags: frozenset[str]) -> Kind:
    """Bytes are ciphertext, or else an id; in a list of both the name has to tell them apart."""
    if pa.types.is_string(kind):
        return Kind.CONTENT
    if pa.types.is_binary(kind):
        if "ciphertext" in tags and not name.endswith("_id"):
            return Kind.CONTENT
        return Kind.UUID if name in _UUIDS else Kind.ORDERED_ID
    return Kind.NUMBER if name in LEAST else Kind.OTHER


def _tags(field: "pa.Field[Any]") -> frozenset[str]:
    return frozenset((field.metadata or {}).get(b"tags", b"").decode().split(","))
