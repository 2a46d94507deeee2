"""Rows that an import could not keep, in a Delta table of their own: one file per import, none where all were good."""

import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.commit import PartFile, commit, create_table, transaction_version
from lakehouse.tables import TableRef
from schemas.tables import QUARANTINE

_NUMBER = 1  # an import commits once


def keep(table: TableRef, import_id: str, batches: Iterable[pa.RecordBatch], now: datetime, scratch: Path) -> int:
    """Returns the Delta version that holds them. The first *commit* counts: an import whose commit is there changes
    nothing, and one that was killed before it puts its rows anew."""
    create_table(table)
    app_id = f"import/{import_id}"
    if known := transaction_version(table, app_id):
        return known
    path = f"import_id={import_id}/{import_id}.parquet"
    with tempfile.TemporaryFile(dir=scratch) as local:
        rows = _write(local, batches)
        # Nobody reads it before the commit: what an attempt left that saw other rows is replaced.
        there = table.objects.put_file(f"{table.root}/{path}", local)
    part = PartFile(path, there.size_bytes, rows, (import_id,))
    return commit(table, [part], app_id=app_id, number=_NUMBER, attempt_id=import_id, now=now)


def _write(local: IO[bytes], batches: Iterable[pa.RecordBatch]) -> int:
    """Without statistics: they would outlive rows that are erased."""
    rows = 0
    with pq.ParquetWriter(local, QUARANTINE, compression="zstd", write_statistics=False, store_schema=False) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows
