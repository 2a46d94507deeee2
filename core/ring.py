"""The Murmur3 token ring of `conversation_id`, cut into equal parts.

Slices, shards and ring slices are all cuts of the ring into a power of two of parts; shard k of slice s is
part s * N + k of a cut into slices * N, so shards never straddle a slice.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST = -(2**63)
LAST = 2**63 - 1
RING = 2**64
_MASK = RING - 1
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F


@dataclass(frozen=True)
class Range:
    """Tokens after `start` up to and with `end`; Cassandra never assigns FIRST, so (FIRST, LAST] is the whole ring."""

    start: int
    end: int

    def __contains__(self, token: int) -> bool:
        return self.start < token <= self.end


WHOLE = Range(FIRST, LAST)


def cut(part: int, parts: int) -> Range:
    """Part `part` of `parts` equal ones; `parts` is a power of two."""
    if parts <= 0 or parts & parts - 1 or not 0 <= part < parts:
        raise ValueError(f"no part {part} in a cut into {parts}")
    width = RING // parts
    return Range(FIRST + part * width, min(FIRST + (part + 1) * width, LAST))


def part_of(token: int, parts: int) -> int:
    """The part of `cut(…, parts)` that holds `token`."""
    return max(token - FIRST - 1, 0) * parts // RING


def parts_of(tokens: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """`part_of` each of them."""
    cut(0, parts)
    if parts == 1:
        return np.zeros(len(tokens), np.int64)
    from_first = (tokens.view(np.uint64) ^ np.uint64(1 << 63)) - np.uint64(1)
    return (from_first >> np.uint64(65 - parts.bit_length())).astype(np.int64)


def split(tokens: Range, parts: int) -> list[Range]:
    """About equal parts, in order; together they are `tokens`."""
    width = tokens.end - tokens.start
    ends = [tokens.start + width * part // parts for part in range(parts + 1)]
    return [Range(start, end) for start, end in pairwise(ends)]


def shard_range(slice_: int, slices: int, shard: int, shards: int) -> Range:
    return cut(slice_ * shards + shard, slices * shards)


def shard_of(token: int, slices: int, shards: int) -> int:
    """The shard, counted within its slice."""
    return part_of(token, slices * shards) % shards


def token(key: bytes) -> int:
    """Cassandra's Murmur3 token of a 16-byte partition key (its x64 128-bit variant, first half, seed 0)."""
    if len(key) != 16:
        raise ValueError("a conversation id is 16 bytes")
    hashed = _hash(int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little"))
    signed = hashed - RING if hashed > LAST else hashed
    return LAST if signed == FIRST else signed


def tokens(keys: NDArray[np.uint8]) -> NDArray[np.int64]:
    """`token` of each row of 16 bytes, all at once."""
    if keys.ndim != 2 or keys.shape[1] != 16:
        raise ValueError("a conversation id is 16 bytes")
    words = np.ascontiguousarray(keys).view("<u8").astype(np.uint64, copy=False)
    found: NDArray[np.int64] = _hash(words[:, 0], words[:, 1]).view(np.int64)
    found[found == FIRST] = LAST
    return found


# An int, or a column of np.uint64, which wraps at 64 bits by itself.
_Word = Any


def _hash(k1: _Word, k2: _Word) -> _Word:
    h1, h2 = _mix(k1, k2)
    h1, h2 = h1 ^ 16, h2 ^ 16
    h1 = h1 + h2 & _MASK
    h2 = h2 + h1 & _MASK
    return _final(h1) + _final(h2) & _MASK


def _mix(k1: _Word, k2: _Word) -> tuple[_Word, _Word]:
    h1 = _rotate(k1 * _C1 & _MASK, 31) * _C2 & _MASK
    h1 = _rotate(h1, 27) * 5 + 0x52DCE729 & _MASK
    h2 = _rotate(k2 * _C2 & _MASK, 33) * _C1 & _MASK
    h2 = _rotate(h2, 31) + h1 & _MASK
    return h1, h2 * 5 + 0x38495AB5 & _MASK


def _rotate(value: _Word, bits: int) -> _Word:
    return (value << bits | value >> 64 - bits) & _MASK


def _final(value: _Word) -> _Word:
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & _MASK
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return value ^ value >> 33
