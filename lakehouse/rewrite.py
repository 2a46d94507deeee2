"""The one way to change a cold file: write a new one that holds the old rows with a change merged in.

    old file ─ row groups that the change falls into: merged row by row ─┐
             ─ the others pass as they are ──────────────────────────────┴─▶ new file ─ read back: old ∪ change?

Nothing is committed here and the old file stays; a fold, and whatever else rewrites, commits what comes back.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from core.digest import Digest, of_rows
from core.ledger import Pointer
from core.overlay import laid_over, merge_all
from core.rows import from_batch, merged_groups
from lakehouse.coldfile import damaged, decoded, decoded_groups, fetched, read_cold_file
from lakehouse.writer import ColdFile, cut, local_cold_file
from schemas.tables import CANONICAL
from stores.objects import Objects


@dataclass(frozen=True)
class Old:
    """The file that is rewritten; `key` is empty where there was none."""

    key: str = ""
    sha256: str = ""
    digest: Digest = Digest()


def old_of(root: str, pointer: Pointer | None) -> Old:
    return Old(f"{root}/{pointer.path}", pointer.sha256, pointer.digest) if pointer else Old()


def rewrite(
    objects: Objects, old: Old, change: pa.Table, key: str, row_group_bytes: int, scratch: Path | None = None
) -> ColdFile | None:
    """`change` has one canonical row per key, in key order. None when it changes nothing: then nothing is written.

    DamagedError when the old file is not the one that was written, or the new one does not read back as old ∪ change.
    """
    with _fetched(objects, old, scratch) as before:
        groups = _recut(merged_groups(_groups(old, before), change), row_group_bytes)
        with local_cold_file(groups, scratch) as local:
            if old.key and local.digest == old.digest:
                return None
            file = local.put(objects, key)
        wanted = _union(old, before, change)
    back = of_rows(row for batch in read_cold_file(objects, key, file.sha256) for row in from_batch(batch))
    if not back == wanted == file.digest:
        raise damaged(key, "it does not read back as the old file with the change")
    return file


def _recut(groups: Iterable[tuple[pa.Table, bool]], row_group_bytes: int) -> Iterator[pa.Table]:
    """Only what was touched may have outgrown its row group."""
    for group, is_touched in groups:
        if is_touched:
            yield from cut(group.combine_chunks().to_batches(), row_group_bytes)
        else:
            yield group


def _union(old: Old, before: IO[bytes], change: pa.Table) -> Digest:
    """Row by row, and not by the way that wrote the file."""
    rows = (row for batch in _decoded(old, before) for row in from_batch(batch))
    return of_rows(laid_over(rows, merge_all(from_batch(change))))


@contextmanager
def _fetched(objects: Objects, old: Old, scratch: Path | None) -> Iterator[IO[bytes]]:
    if not old.key:
        with tempfile.TemporaryFile(dir=scratch) as nothing:
            yield nothing
        return
    with fetched(objects, old.key, old.sha256, scratch) as before:
        yield before


def _groups(old: Old, before: IO[bytes]) -> Iterator[pa.Table]:
    before.seek(0)
    return decoded_groups(old.key, before, CANONICAL) if old.key else iter(())


def _decoded(old: Old, before: IO[bytes]) -> Iterator[pa.RecordBatch]:
    before.seek(0)
    return decoded(old.key, before, CANONICAL) if old.key else iter(())
