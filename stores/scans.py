"""A week out of Cassandra as canonical batches: both of its tables are drained side by side and joined."""

from collections.abc import Iterator

import pyarrow as pa

from core import ring
from core.errors import DamagedError
from core.joined import joined
from core.rows import BATCH_ROWS
from core.tiers import Tier
from schemas.tables import MESSAGES, REACTIONS, Table
from stores.cassandra import Database, Level
from stores.messages import keyspace
from stores.pages import drain, raw

# A piece of the token range is in memory at once, and so much is it to hold. How much one holds is known once it is
# there: so the first is small, and each is as wide as the one before it allows.
PIECE_BYTES = 64 * 1024 * 1024
FIRST_PIECE = 64
IN_FLIGHT = 4
PAGE_ROWS = 5000
_WHERE = "WHERE token(conversation_id) > ? AND token(conversation_id) <= ?"


def scan(
    db: Database, region: str, tier: Tier, week: int, tokens: ring.Range, level: Level = Level.QUORUM
) -> Iterator[pa.RecordBatch]:
    """As `stores.messages.scan`, but for the order: it is that of keys, within each piece of the range."""
    with raw(db) as reading:
        at, width = tokens.start, (tokens.end - tokens.start) // FIRST_PIECE + 1
        while at < tokens.end:
            piece = ring.Range(at, min(at + width, tokens.end))
            rows = _joined(reading, region, tier, week, piece, level)
            yield from rows.to_batches(max_chunksize=BATCH_ROWS)
            at, width = piece.end, next_width(width, rows.nbytes)


def next_width(width: int, size_bytes: int) -> int:
    """Of the piece after one of `width` tokens and `size_bytes`."""
    if size_bytes > PIECE_BYTES:
        return width // 2 + 1
    return width * 4 if size_bytes < PIECE_BYTES // 8 else width


def _joined(reading: Database, region: str, tier: Tier, week: int, piece: ring.Range, level: Level) -> pa.Table:
    messages, reactions = (
        _drained(reading, f"{keyspace(region, tier)}.{table.name}{week}", table, piece, level)
        for table in (MESSAGES, REACTIONS)
    )
    try:
        return joined(messages, reactions)
    except ValueError as fault:
        raise DamagedError(
            f"week {week} of {region} holds a row in {tier} that is not whole ({fault})",
            "nothing was dropped; see what else writes into its tables",
        ) from fault


def _drained(reading: Database, name: str, table: Table, piece: ring.Range, level: Level) -> pa.Table:
    query = f"SELECT {', '.join(table.names)} FROM {name} {_WHERE}"
    parts = ring.split(piece, IN_FLIGHT)
    pages = [batch for _, batch in drain(reading, query, parts, IN_FLIGHT, PAGE_ROWS, level)]
    return pa.Table.from_batches(pages)
