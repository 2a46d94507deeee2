"""Runs: imported rows of one unit in token order, so that every shard of any N is one stretch of each file.

How many shards a unit has is fixed only at its first fold. The first and last token of each row group stand in the
file's own metadata: a reader of one shard decodes only the row groups that its range touches.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core import ring
from core.digest import Digest
from core.errors import RefusedError
from core.ledger import Run
from core.rows import ID_BYTES, key_words
from lakehouse.coldfile import damaged, fetched
from lakehouse.paths import run_key
from lakehouse.writer import COLD, cut, parquet_writer, put_once
from schemas.tables import CANONICAL
from stores.objects import Objects

_TOKENS = "firn.tokens"
_KEY_BYTES = 8 + 2 * ID_BYTES


def write_run(
    batches: Iterable[pa.RecordBatch],
    objects: Objects,
    week: int,
    slice_: int,
    name: str,
    digest: Digest,
    row_group_bytes: int,
    scratch: Path | None = None,
) -> Run:
    """`digest` is that of the rows, which are canonical and in the order of (token, conversation_id, message_id).

    RefusedError for rows out of order or repeated: then nothing is put. A file that is there already with the same
    bytes is a retry's; other bytes are a BlockedError.
    """
    key = run_key(slice_, week, name)
    with tempfile.TemporaryFile(dir=scratch) as local:
        _write_local(local, batches, row_group_bytes)
        there = put_once(objects, key, local)
    return Run(week, slice_, name, key, digest, there.size_bytes, there.sha256)


def read_run(objects: Objects, run: Run, tokens: ring.Range, scratch: Path | None = None) -> Iterator[pa.RecordBatch]:
    """Its rows in the range, in token order; nothing is yielded before the SHA-256 is found right."""
    with fetched(objects, run.path, run.sha256, scratch) as local:
        try:
            with pq.ParquetFile(local, page_checksum_verification=True) as file:
                for group, (first, last) in enumerate(_ends(file)):
                    if first <= tokens.end and last > tokens.start:
                        rows = file.read_row_group(group, use_threads=False).cast(CANONICAL)
                        yield from _within(rows, tokens).to_batches()
        except (OSError, pa.ArrowException, ValueError, KeyError) as fault:
            raise damaged(run.path, "its bytes do not decode") from fault


def tokens_of(rows: pa.RecordBatch | pa.Table) -> NDArray[np.int64]:
    return ring.tokens(_bytes(key_words(rows)[:, :2]))


def _write_local(local: IO[bytes], batches: Iterable[pa.RecordBatch], row_group_bytes: int) -> None:
    ends: list[tuple[int, int]] = []
    with parquet_writer(local, COLD) as writer:
        for rows in cut(_in_token_order(batches), row_group_bytes):
            writer.write_table(rows, row_group_size=rows.num_rows)
            tokens = tokens_of(rows)
            ends.append((int(tokens[0]), int(tokens[-1])))
        writer.add_key_value_metadata({_TOKENS: json.dumps(ends)})


def _in_token_order(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    last = np.empty((0, _KEY_BYTES), np.uint8)
    for given in batches:
        batch = given.cast(CANONICAL)
        keys = np.concatenate([last, _order(batch)])
        words = keys.view(f"S{_KEY_BYTES}").ravel()  # compared byte by byte
        if not (words[:-1] < words[1:]).all():
            raise RefusedError(
                "a row of the run is out of order or repeats a key",
                "sort by (token, conversation_id, message_id) and merge rows of one key first",
            )
        yield batch
        last = keys[-1:]


def _order(rows: pa.RecordBatch) -> NDArray[np.uint8]:
    """A row's place as bytes: its token from the ring's first on, then its key."""
    from_first = tokens_of(rows).view(np.uint64) ^ np.uint64(1 << 63)
    return np.concatenate([_bytes(from_first.reshape(-1, 1)), _bytes(key_words(rows))], axis=1)


def _bytes(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(words, dtype=">u8").view(np.uint8)


def _ends(file: pq.ParquetFile) -> list[tuple[int, int]]:
    found = json.loads((file.metadata.metadata or {})[_TOKENS.encode()])
    if len(found) != file.num_row_groups:
        raise ValueError("as many pairs of tokens as row groups")
    return [(first, last) for first, last in found]


def _within(rows: pa.Table, tokens: ring.Range) -> pa.Table:
    found = tokens_of(rows)
    return rows.filter(pa.array((found > tokens.start) & (found <= tokens.end)))
