"""The order-free digest: sum mod 2^128 of a versioned 128-bit hash over the length-prefixed canonical columns.

Equal multisets of canonical rows give equal digests in any order and any split; adding two digests joins them.
The encoding is written down in docs/architecture.md, so that a checker can be written without this file.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from blake3 import blake3

from core import ids
from core.encoding import field, number
from core.overlay import Row

VERSION = b"\x01"
_MODULUS = 2**128


@dataclass(frozen=True)
class Digest:
    """Rows and the sum of their hashes."""

    rows: int = 0
    total: int = 0

    def __add__(self, other: Self) -> "Digest":
        return Digest(self.rows + other.rows, (self.total + other.total) % _MODULUS)

    def __sub__(self, part: Self) -> "Digest":
        """Without the rows of a part of it."""
        return Digest(self.rows - part.rows, (self.total - part.total) % _MODULUS)

    def __str__(self) -> str:
        return f"{self.total:032x}"


class Tally:
    """Digests rows as they pass through, and counts their encoded bytes."""

    def __init__(self) -> None:
        self.digest = Digest()
        self.size_bytes = 0

    def through(self, rows: Iterable[Row]) -> Iterator[Row]:
        count = total = 0
        try:
            for row in rows:
                encoded = encode(row)
                count += 1
                total += int.from_bytes(blake3(encoded).digest(16), "big")
                self.size_bytes += len(encoded)
                yield row
        finally:
            self.digest += Digest(count, total % _MODULUS)

    def add(self, digest: Digest, size_bytes: int) -> None:
        """What was digested elsewhere."""
        self.digest += digest
        self.size_bytes += size_bytes


def of_rows(rows: Iterable[Row]) -> Digest:
    tally = Tally()
    deque(tally.through(rows), maxlen=0)
    return tally.digest


def encode(row: Row) -> bytes:
    """Version, then each canonical column as `core.encoding` has it."""
    return b"".join(
        (
            VERSION,
            field(row.conversation_id),
            field(row.message_id),
            number(row.sender_id),
            number(row.message_type),
            field(row.body),
            field(None if row.media_ref is None else row.media_ref.encode()),
            field(row.reply_to),
            field(row.edit_id),
            field(bytes((row.deleted,))),
            number(None if row.server_ts is None else (row.server_ts - ids.UNIX_EPOCH) // timedelta(microseconds=1)),
            number(len(row.reactions)),
            *(number(r.user_id) + field(r.event_id) + field(r.reaction) for r in row.reactions),
        )
    )
