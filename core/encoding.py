"""Values as length-prefixed bytes, for digests and seals: 00 is null; else 01, length (u32 little-endian), bytes."""

import struct

_NULL = b"\x00"


def field(value: bytes | None) -> bytes:
    return _NULL if value is None else b"\x01" + len(value).to_bytes(4, "little") + value


def number(value: int | None) -> bytes:
    """As a signed 64-bit little-endian field."""
    return field(None if value is None else value.to_bytes(8, "little", signed=True))


def fields(data: bytes) -> list[bytes | None]:
    """What `field` wrote, one after another; ValueError when the bytes end within one."""
    found: list[bytes | None] = []
    at = 0
    while at < len(data):
        value, at = _field_at(data, at)
        found.append(value)
    return found


def number_in(value: bytes | None) -> int | None:
    """What `number` wrote; ValueError for any other length."""
    if value is None:
        return None
    if len(value) != 8:
        raise ValueError("a number that is not 8 bytes")
    return int.from_bytes(value, "little", signed=True)


def _field_at(data: bytes, at: int) -> tuple[bytes | None, int]:
    if data[at : at + 1] == _NULL:
        return None, at + 1
    try:
        mark, length = struct.unpack_from("<BI", data, at)
    except struct.error:
        raise ValueError("a field without its length") from None
    end = at + 5 + length
    if mark != 1 or end > len(data):
        raise ValueError("a field that ends too early, or none at all")
    return data[at + 5 : end], end
