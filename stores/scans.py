"""A week out of Cassandra as canonical batches: both of its tables are drained side by side and joined."""

from collections.abc import Iterator

import pyarrow as pa

from core import ring
from core.errors import DamagedError
from core.joined import joined
from core.tiers import Tier
from schemas.tables import MESSAGES, REACTIONS, Table
from stores.cassandra import Database, Level
from stores.messages import keyspace
from stores.pages import drain, raw

PIECES = 4  # of a token range: what is in memory at once
IN_FLIGHT = 4
PAGE_ROWS = 5000
_WHERE = "WHERE token(conversation_id) > ? AND token(conversation_id) <= ?"


def scan(
    db: Database, region: str, tier: Tier, week: int, tokens: ring.Range, level: Level = Level.QUORUM
) -> Iterator[pa.RecordBatch]:
    """As `stores.messages.scan`, but for the order: it is that of keys, within each piece of the range."""
    with raw(db) as reading:
        for piece in ring.split(tokens, PIECES):
            messages, reactions = (
                _drained(reading, f"{keyspace(region, tier)}.{table.name}{week}", table, piece, level)
                for table in (MESSAGES, REACTIONS)
            )
            try:
                rows = joined(messages, reactions)
            except ValueError as fault:
                raise DamagedError(
                    f"week {week} of {region} holds a row in {tier} that is not whole ({fault})",
                    "nothing was dropped; see what else writes into its tables",
                ) from fault
            yield from rows.to_batches()


def _drained(reading: Database, name: str, table: Table, piece: ring.Range, level: Level) -> pa.Table:
    query = f"SELECT {', '.join(table.names)} FROM {name} {_WHERE}"
    parts = ring.split(piece, IN_FLIGHT)
    pages = [batch for _, batch in drain(reading, query, parts, IN_FLIGHT, PAGE_ROWS, level)]
    return pa.Table.from_batches(pages)
