"""Folds late changes of a few conversations into a cold file, as a fold does: `python -m bench.rewrite --rows 500000`.

What is told comes after the proof that pyarrow, Spark, DuckDB and delta-rs read from the new file the rows that a plain
rewrite gives. Which row groups the change touches, and which bytes were copied, is found here by looking, not by asking
the code that did it. A plain rewrite is pyarrow's: read, merge, sort, write with row groups of that size; both run in
turns. The last line is JSON.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench import corpus
from bench.readers import agreement, readers
from core import ids
from core.overlay import Reaction, Row, merge, merge_all
from core.rows import from_batch, keys_of, to_batch
from lakehouse.index import ColdIndex, RowGroup, load_index
from lakehouse.paths import data_key
from lakehouse.rewrite import Old, changed_file, rewrite
from lakehouse.writer import write_cold_file
from stores.memory import MemoryObjects

GROUP_BYTES = 800_000
OLD_KEY, NEW_KEY = (data_key(0, corpus.WEEK, 0, epoch, "bench") for epoch in (1, 2))


@dataclass(frozen=True)
class Case:
    """A cold file in a store, and late changes as a fold has them."""

    objects: MemoryObjects
    rows: pa.Table
    old: Old
    change: pa.Table


def main(argv: Sequence[str]) -> int:
    args = _arguments(argv)
    engines = readers(args.without_spark)
    case = _case(args.rows, args.conversations)
    began = time.perf_counter()
    new = rewrite(case.objects, case.old, case.change, NEW_KEY, GROUP_BYTES)
    proven_seconds = time.perf_counter() - began
    if new is None:
        raise AssertionError("the change changes nothing")
    indexes = [load_index(case.objects, key) for key in (OLD_KEY, NEW_KEY)]
    data, wanted = case.objects.get(NEW_KEY), _plain_rows(case)
    found = pq.read_table(io.BytesIO(data), page_checksum_verification=True).cast(wanted.schema)
    agreed = agreement(engines, data, wanted, corpus.WEEK) | {"pyarrow": found.equals(wanted)}
    is_equal = all(agreed.values())
    facts: dict[str, Any] = {"equal": is_equal, "readers": agreed, "rows": case.rows.num_rows}
    if is_equal:
        facts |= _bytes(case, *indexes) | _speed(case, args.rounds) | {"proven_seconds": round(proven_seconds, 3)}
    print(json.dumps(facts))
    return 0 if is_equal else 1


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.rewrite", description="Measure what a fold costs.")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--conversations", type=int, default=5, help="how many get late changes")
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument("--without-spark", action="store_true")
    return parser.parse_args(argv)


def _case(count: int, conversations: int) -> Case:
    rows, objects = corpus.rows(count), MemoryObjects()
    file = write_cold_file(rows.to_batches(max_chunksize=4096), objects, OLD_KEY, GROUP_BYTES)
    chosen = _spread(pc.unique(rows["conversation_id"]).to_pylist(), conversations)
    held = (row for one in chosen for row in from_batch(rows.filter(pc.field("conversation_id") == one)))
    late = [change for number, row in enumerate(held) for change in _late(row, number)]
    merged = merge_all(late)
    change = pa.Table.from_batches([to_batch([merged[key] for key in sorted(merged)])])
    return Case(objects, rows, Old(OLD_KEY, file.sha256, file.digest), change)


def _spread(found: Sequence[Any], count: int) -> Sequence[Any]:
    return found[len(found) // (2 * count) :: max(1, len(found) // count)][:count]


def _late(row: Row, number: int) -> list[Row]:
    """In turns an edit, a reaction, a deletion, and a message that came late."""
    key, later = row.key, ids.compose(ids.unix_us(row.message_id) + 1_000_000, 0, 0)
    changes = (
        Row(*key, sender_id=row.sender_id, edit_id=later, body=b"edited " * 20),
        Row(*key, reactions=(Reaction(7, later, b"r" * corpus.REACTION_BYTES),)),
        Row(*key, deleted=True),
        replace(row, message_id=later, body=b"late " * 30, reactions=()),
    )
    return [changes[number % len(changes)]]


def _plain_rows(case: Case) -> pa.Table:
    """Rows of one key merged one by one, and the rest as pyarrow sorts it."""
    changes = merge_all(from_batch(case.change))
    is_changed = _is_in(case.rows, changes)
    for row in from_batch(case.rows.filter(is_changed)):
        changes[row.key] = merge(row, changes[row.key])
    kept = case.rows.filter(pc.invert(is_changed))
    merged = pa.Table.from_batches([to_batch(list(changes.values()))])
    both = pa.concat_tables([kept, merged])
    return both.sort_by([("conversation_id", "ascending"), ("message_id", "ascending")]).combine_chunks()


def _is_in(rows: pa.Table, changes: dict[tuple[bytes, bytes], Row]) -> Any:
    """Message ids repeat in no two conversations here."""
    conversations, messages = (pa.array({key[part] for key in changes}, pa.binary()) for part in (0, 1))
    return pc.and_(pc.is_in(rows["conversation_id"], conversations), pc.is_in(rows["message_id"], messages))


def _bytes(case: Case, before: ColdIndex, after: ColdIndex) -> dict[str, float]:
    """A row group of the new file was copied when its bytes are those of one of the old file; one of the old file was
    touched when a change falls into it. What falls between two counts for none, which makes the figure no better."""
    old = {_name(case, before, group) for group in before.groups}
    fresh = [group for group in after.groups if _name(case, after, group) not in old]
    keys = keys_of(case.change)
    touched = [group for group in before.groups if any(group.first_key <= key <= group.last_key for key in keys)]
    touched_bytes = sum(group.length for group in touched)
    reencoded = sum(group.length for group in fresh)
    return {
        "row_groups": len(before.groups),
        "touched": len(touched),
        "changes": case.change.num_rows,
        "bytes": before.size_bytes,
        "bytes_per_row": round(before.size_bytes / before.rows, 1),
        "bytes_touched": touched_bytes,
        "bytes_reencoded": reencoded,
        "bytes_copied": sum(group.length for group in after.groups) - reencoded,
        "reencoded": round(reencoded / touched_bytes, 4),
    }


def _name(case: Case, index: ColdIndex, group: RowGroup) -> bytes:
    return sha256(case.objects.get(index.key, group.offset, group.length)).digest()


def _speed(case: Case, rounds: int) -> dict[str, float]:
    """Medians of rounds in turns, of the new file alone: a plain rewrite proves nothing. The product's own reads
    everything back, row by row, and that is by far the most of its time."""
    ways: dict[str, Callable[[], None]] = {"plain": lambda: _plain(case), "file": lambda: _file(case)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    plain, file = median(seconds["plain"]), median(seconds["file"])
    return {"plain_seconds": round(plain, 3), "seconds": round(file, 3), "of_plain": round(file / plain, 3)}


def _plain(case: Case) -> None:
    rows = pq.read_table(io.BytesIO(case.objects.get(OLD_KEY)))
    merged = _plain_rows(replace(case, rows=rows.cast(case.rows.schema)))
    per_group = case.rows.num_rows // len(load_index(case.objects, OLD_KEY).groups)
    pq.write_table(merged, io.BytesIO(), row_group_size=per_group, compression="zstd", compression_level=3)


def _file(case: Case) -> None:
    with changed_file(case.old, io.BytesIO(case.objects.get(OLD_KEY)), case.change, GROUP_BYTES) as local:
        local.file.seek(0)
        local.file.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
