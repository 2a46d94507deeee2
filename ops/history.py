"""The sample's older part as an archive would hand it over: one Parquet file per region, for `firn import`."""

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ops import sample
from schemas.events import MessageSent

SOURCE = sample.SOURCE  # ids are derived from it, so an imported message is the one that a replay would send
BATCH_ROWS = 5000
_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("conversation", pa.string()),
    pa.field("id", pa.string()),
    pa.field("sender", pa.int64()),
    pa.field("sent_at", pa.timestamp("us", "UTC")),
    pa.field("body", pa.binary()),
    pa.field("media", pa.string()),
]
COLUMNS = pa.schema(_FIELDS)


def write(path: Path, start: datetime, end: datetime, region: str, regions: Sequence[str]) -> int:
    """Messages of [start, end) whose home is `region`; returns how many. The same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        _columns(row, message)
        for row, message in sample.archived(start, end)
        if sample.region_of(message.conversation_id, regions) == region
    )
    written = 0
    with pq.ParquetWriter(path, COLUMNS) as file:
        while chunk := list(islice(rows, BATCH_ROWS)):
            file.write_batch(pa.RecordBatch.from_pylist(chunk, schema=COLUMNS))
            written += len(chunk)
    return written


def _columns(row: sample.Row, message: MessageSent) -> dict[str, object]:
    return {
        "conversation": row.conversation,
        "id": str(row.source_id),
        "sender": row.sender,
        "sent_at": row.sent_at,
        "body": message.body,
        "media": message.media_ref,
    }
