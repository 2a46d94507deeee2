"""Ids of messages and events: 16 bytes in time order (the UUIDv6 layout of a TIMEUUID).

Every byte after the version has its high bit clear but the variant's, so that byte order here and
Cassandra's order of the TIMEUUID agree.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from blake3 import blake3

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GREGORIAN_TICKS = 0x01B21DD213814000  # 100 ns from 1582-10-15 to 1970-01-01
_NODE_MASK = 0x7F7F_7F7F_7F7F
_CLOCK_MASK = 0x3F7F
_VARIANT = 0x8000


def compose(unix_us: int, clock: int, node: int) -> bytes:
    """`clock` and `node` lose the bits that would break the order."""
    ticks = unix_us * 10 + GREGORIAN_TICKS
    high = (ticks >> 12) << 16 | 0x6000 | ticks & 0xFFF
    low = (_VARIANT | clock & _CLOCK_MASK) << 48 | node & _NODE_MASK
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


def unix_us(ordered: bytes) -> int:
    """Microseconds since 1970: the write timestamp of every cell that this id causes."""
    return (_ticks(ordered) - GREGORIAN_TICKS) // 10


def instant(ordered: bytes) -> datetime:
    return UNIX_EPOCH + timedelta(microseconds=unix_us(ordered))


def to_timeuuid(ordered: bytes) -> UUID:
    ticks = _ticks(ordered)
    head = (ticks & 0xFFFF_FFFF) << 32 | (ticks >> 32 & 0xFFFF) << 16 | 0x1000 | ticks >> 48
    return UUID(bytes=head.to_bytes(8, "big") + ordered[8:])


def from_timeuuid(timeuuid: UUID) -> bytes:
    ticks = timeuuid.time
    high = (ticks >> 12) << 16 | 0x6000 | ticks & 0xFFF
    return high.to_bytes(8, "big") + timeuuid.bytes[8:]


def is_ordered_id(value: bytes) -> bool:
    """Whether `value` could have come from `compose`: 16 bytes, version 6, our variant, high bits clear."""
    if len(value) != 16 or value[6] >> 4 != 6 or value[8] >> 6 != 0b10:
        return False
    return all(byte < 0x80 for byte in value[9:])


def imported_id(sent_at: datetime, source: str, conversation: str, own: str) -> bytes:
    """The same row of the same source always gets the same id; `own` is the row's id there, or its content and
    its occurrence number, because (conversation, sender, second) repeats in real data."""
    digest = blake3("\x1f".join((source, conversation, own)).encode()).digest(8)
    bits = int.from_bytes(digest, "big")
    return compose(_microseconds(sent_at), bits >> 48, bits)


def conversation_uuid(source: str, conversation: str) -> bytes:
    """A UUIDv8 of the source's own name for the conversation."""
    raw = int.from_bytes(blake3("\x1f".join((source, conversation)).encode()).digest(16), "big")
    raw = raw & ~(0xF << 76) | 0x8 << 76
    raw = raw & ~(0x3 << 62) | 0x2 << 62
    return raw.to_bytes(16, "big")


def _ticks(ordered: bytes) -> int:
    high = int.from_bytes(ordered[:8], "big")
    return (high >> 16) << 12 | high & 0xFFF


def _microseconds(when: datetime) -> int:
    return (when - UNIX_EPOCH) // timedelta(microseconds=1)
