"""What a message costs in a cold file beside its body: `python -m bench.bytes --rows 300000`.

First Spark, DuckDB and delta-rs must give the very rows that went in, from a Delta table whose one file the product
wrote. Then its bytes are compared with those of the same sorted rows as pyarrow writes them, with zstd-3 and its
defaults. Metadata is all of a file that is no byte of a body: other columns, lengths of bodies, headers, footer. The
last line is JSON.
"""

import argparse
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import corpus
from bench.readers import agreement, readers
from lakehouse.paths import data_key
from lakehouse.writer import COLD, cut, write_cold_file, write_local
from stores.memory import MemoryObjects

GROUP_BYTES = 800_000
Facts = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    args = _arguments(argv)
    engines, rows = readers(args.without_spark), corpus.rows(args.rows)
    data = _cold_file(rows)
    agreed = agreement(engines, data, rows, corpus.WEEK)
    is_equal = all(agreed.values())
    facts: Facts = {"equal": is_equal, "readers": agreed, "rows": args.rows}
    if is_equal:
        facts |= _bytes(rows, data) | _speed(rows, args.rounds)
    print(json.dumps(facts))
    return 0 if is_equal else 1


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.bytes", description="Measure what a cold file costs.")
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument("--without-spark", action="store_true")
    return parser.parse_args(argv)


def _cold_file(rows: pa.Table) -> bytes:
    objects, key = MemoryObjects(), data_key(0, corpus.WEEK, 0, 1, "bench")
    write_cold_file(rows.to_batches(max_chunksize=4096), objects, key, GROUP_BYTES)
    return objects.get(key)


def _bytes(rows: pa.Table, data: bytes) -> Facts:
    bodies = pc.sum(pc.binary_length(rows["body"])).as_py() or 0
    plain, small = io.BytesIO(), io.BytesIO()
    _plain(rows, plain)
    _plain(rows, small, pq.read_metadata(io.BytesIO(data)).row_group(0).num_rows)
    ours, theirs, with_groups = ((size - bodies) / rows.num_rows for size in (len(data), plain.tell(), small.tell()))
    body = bodies / rows.num_rows
    return {
        "metadata_ratio": round(ours / theirs, 3),
        "total_vs_body": round((body + ours) / body, 3),
        "body_bytes": round(body, 1),
        "metadata_bytes": round(ours, 2),
        "plain_metadata_bytes": round(theirs, 2),
        "ratio_in_equal_row_groups": round(ours / with_groups, 3),
        "columns": _columns(data, rows.num_rows),
        "plain_columns": _columns(plain.getvalue(), rows.num_rows),
    }


def _plain(rows: pa.Table, into: IO[bytes], row_group_size: int | None = None) -> None:
    pq.write_table(rows, into, compression="zstd", compression_level=3, row_group_size=row_group_size)


def _columns(data: bytes, count: int) -> dict[str, float]:
    """Bytes per row of each column, and of all that is no column."""
    metadata, sizes = pq.read_metadata(io.BytesIO(data)), Counter[str]()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in (group.column(one) for one in range(group.num_columns)):
            sizes[column.path_in_schema.replace(".list.element", "")] += column.total_compressed_size
    sizes["footer"] = len(data) - sum(sizes.values())
    return {name: round(size / count, 2) for name, size in sizes.items()}


def _speed(rows: pa.Table, rounds: int) -> Facts:
    """Medians of rounds in turns."""
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    ways: dict[str, Callable[[], object]] = {"ours": lambda: _ours(rows), "plain": lambda: _plain(rows, io.BytesIO())}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            way()
            seconds[name].append(time.process_time() - began)
    ours, plain = median(seconds["ours"]), median(seconds["plain"])
    return {"cpu_seconds": round(ours, 3), "plain_cpu_seconds": round(plain, 3), "cpu_of_plain": round(ours / plain, 3)}


def _ours(rows: pa.Table) -> None:
    """The file alone, without the digest of its rows."""
    write_local(io.BytesIO(), cut(rows.to_batches(max_chunksize=4096), GROUP_BYTES), COLD)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
