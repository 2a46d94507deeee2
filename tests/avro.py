"""Events as the log and the lane carry them, read by hand: the checker trusts no code that wrote them."""

from typing import Any

# By schema fingerprint: the kind, its types in order, its fields.
FIELDS = {
    "e5e43e52c99ad930": (
        "MessageSent",
        "id id long long bytes? string? id? bytes? long",
        "conversation_id message_id sender_id message_type body media_ref reply_to preview server_ms",
    ),
    "aec2c64aeee90e25": ("MessageEdited", "id id id long bytes?", "conversation_id message_id event_id user_id body"),
    "a89016046767cec5": ("MessageDeleted", "id id id long", "conversation_id message_id event_id user_id"),
    "dafbf4512376564c": ("ReactionSet", "id id id long bytes?", "conversation_id message_id event_id user_id reaction"),
}


def decode(payload: bytes) -> dict[str, Any]:
    """Avro, single-object encoding, without a library; bytes come back as hex."""
    assert payload[:2] == b"\xc3\x01", "not a single-object event"
    kind, types, names = FIELDS[payload[2:10].hex()]
    event, at = {"kind": kind}, 10
    for type_, name in zip(types.split(), names.split(), strict=True):
        event[name], at = value_at(payload, at, type_)
    assert at == len(payload), "bytes after the end of an event"
    return event


def value_at(data: bytes, at: int, type_: str) -> tuple[Any, int]:
    """The value and where the next one begins. A union of null and something is a branch number, then the value."""
    if type_.endswith("?"):
        branch, at = varint_at(data, at)
        return value_at(data, at, type_.removesuffix("?")) if branch else (None, at)
    if type_ == "long":
        return varint_at(data, at)
    length, at = (16, at) if type_ == "id" else varint_at(data, at)
    value = data[at : at + length]
    assert len(value) == length, "an event ends too early"
    return (value.decode() if type_ == "string" else value.hex()), at + length


def varint_at(data: bytes, at: int) -> tuple[int, int]:
    raw = shift = 0
    while True:
        byte = data[at]
        raw |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), at
