"""What happens in a conversation, as Kafka carries it: Avro, single-object encoding, one record per kind.

Ids are 16 bytes in time order; `body`, `preview` and `reaction` are ciphertext.
"""

import io
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

MARKER = b"\xc3\x01"  # https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding
BODY_BYTES_MAX = 1024 * 1024
MESSAGE_TYPE_MAX = 127


@dataclass(frozen=True)
class MessageSent:
    conversation_id: bytes
    message_id: bytes
    sender_id: int
    message_type: int
    body: bytes | None
    media_ref: str | None
    reply_to: bytes | None
    preview: bytes | None
    server_ts: datetime

    @property
    def event_id(self) -> bytes:
        return self.message_id

    @property
    def user_id(self) -> int:
        return self.sender_id


@dataclass(frozen=True)
class MessageEdited:
    conversation_id: bytes
    message_id: bytes
    event_id: bytes
    user_id: int
    body: bytes | None


@dataclass(frozen=True)
class MessageDeleted:
    conversation_id: bytes
    message_id: bytes
    event_id: bytes
    user_id: int


@dataclass(frozen=True)
class ReactionSet:
    conversation_id: bytes
    message_id: bytes
    event_id: bytes
    user_id: int
    reaction: bytes | None


Event = MessageSent | MessageEdited | MessageDeleted | ReactionSet
KINDS: tuple[type[Event], ...] = (MessageSent, MessageEdited, MessageDeleted, ReactionSet)


class MalformedEventError(ValueError):
    """The bytes are no event of a kind known here; the text names the fault, never the content."""


def encode(event: Event) -> bytes:
    out = io.BytesIO()
    out.write(_headers()[type(event)])
    fastavro.schemaless_writer(out, _schemas()[type(event)], asdict(event))
    return out.getvalue()


def decode(payload: bytes) -> Event:
    """Raises MalformedEventError."""
    kind = _kinds().get(payload[:10])
    if kind is None:
        raise MalformedEventError(
            "unknown schema fingerprint" if payload[:2] == MARKER else "not a single-object event"
        )
    body = io.BytesIO(payload[10:])
    try:
        values: Any = fastavro.schemaless_reader(body, _schemas()[kind], None)
    except (EOFError, IndexError, ValueError, OverflowError, UnicodeDecodeError) as fault:
        raise MalformedEventError(f"{kind.__name__} does not decode ({type(fault).__name__})") from None
    if body.read(1):
        raise MalformedEventError(f"{kind.__name__} has bytes after its end")
    event = kind(**values)
    if excess := _out_of_bounds(event):
        raise MalformedEventError(f"{kind.__name__} has {excess}")
    return event


def _out_of_bounds(event: Event) -> str:
    """What Avro can carry but no table may hold."""
    if isinstance(event, MessageSent) and not 0 <= event.message_type <= MESSAGE_TYPE_MAX:
        return "a message_type that is no tinyint"
    if isinstance(event, (MessageSent, MessageEdited)) and len(event.body or b"") > BODY_BYTES_MAX:
        return "a body over the limit"
    return ""


@cache
def _schemas() -> dict[type[Event], Any]:
    folder = resources.files("schemas") / "events"
    return {kind: fastavro.parse_schema(_load(folder / f"{kind.__name__}.avsc")) for kind in KINDS}


def _load(path: Any) -> Any:
    return fastavro.schema.load_schema(str(path), _write_hint=False)


@cache
def _headers() -> dict[type[Event], bytes]:
    prints = {
        kind: fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO") for kind, schema in _schemas().items()
    }
    return {kind: MARKER + bytes.fromhex(text) for kind, text in prints.items()}


@cache
def _kinds() -> dict[bytes, type[Event]]:
    return {header: kind for kind, header in _headers().items()}
