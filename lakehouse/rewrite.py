"""The one way to change a cold file: write a new one that holds the old rows with a change merged in.

    old file ─ row groups that the change alters: decoded, merged, written to a fresh file ─┐ splice
             ─ the others: their bytes as they are ─────────────────────────────────────────┴▶ new file
                                                        put, then read back whole: old ∪ change? ◀──┘

Nothing is committed here and the old file stays; a fold, and whatever else rewrites, commits what comes back.
"""

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from core.canonical import of_batches
from core.digest import Digest, of_rows
from core.errors import RefusedError
from core.ledger import Pointer
from core.overlay import Row, laid_over, merge_all
from core.rows import among, apart_from, from_batch, keys_of, merged, shares
from lakehouse.coldfile import (
    Ends,
    copy_stretch,
    damaged,
    decoded_groups,
    ends_of,
    ends_of_groups,
    fetched,
    read_at,
    read_groups,
    tail_of,
)
from lakehouse.splice import Source, Stretch, are_alike, offset_indexes, source_of, spliced
from lakehouse.writer import COLD, ColdFile, LocalFile, ascending, cut, local_cold_file, split, write_local
from schemas.tables import CANONICAL
from stores.objects import Objects

_OLD, _FRESH = 0, 1


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
    Memory holds the change and one row group that it alters.
    """
    with _fetched(objects, old, scratch) as before:
        with changed_file(old, before, change, row_group_bytes, scratch) as local:
            if old.key and local.digest == old.digest:
                return None
            file, ends = local.put(objects, key), local.groups
        wanted = _union(old, before, change)
    if not _read_back(objects, file, ends, scratch) == wanted == file.digest:
        raise damaged(key, "it does not read back as the old file with the change")
    return file


@contextmanager
def _fetched(objects: Objects, old: Old, scratch: Path | None) -> Iterator[IO[bytes]]:
    if not old.key:
        with tempfile.TemporaryFile(dir=scratch) as nothing:
            yield nothing
        return
    with fetched(objects, old.key, old.sha256, scratch) as before:
        yield before


@contextmanager
def changed_file(
    old: Old, before: IO[bytes], change: pa.Table, row_group_bytes: int, scratch: Path | None = None
) -> Iterator[LocalFile]:
    """What `rewrite` makes of the old file, not put yet and not proven; of the old digest where nothing changed, and
    then not to be put."""
    ends = ends_of_groups(old.key, before) if old.key else []
    if not ends:
        with local_cold_file(cut(change.to_batches(), row_group_bytes), scratch) as local:
            yield local
        return
    draft = _Draft(old, before, _copyable(before), row_group_bytes, old.digest)
    with tempfile.TemporaryFile(dir=scratch) as fresh, tempfile.TemporaryFile(dir=scratch) as spliced_file:
        fresh_ends = write_local(fresh, draft.altered(change, shares(ends, keys_of(change))), COLD)
        into = draft.put_together(fresh, spliced_file)
        yield LocalFile(into, [(ends, fresh_ends)[file][number] for file, number in draft.order], draft.digest)


@dataclass
class _Draft:
    """A new file while it is made: where each of its row groups comes from, and the digest of its rows.

    `source` is None where nothing of the old file can be copied: then all of it is encoded anew.
    """

    old: Old
    before: IO[bytes]
    source: Source | None
    row_group_bytes: int
    digest: Digest
    order: list[tuple[int, int]] = field(default_factory=list)

    def altered(self, change: pa.Table, taken: Sequence[range]) -> Iterator[pa.Table]:
        """The row groups of the fresh file; those that stay as they are have a place in the order alone."""
        fresh = 0
        for number, rows in enumerate(self._groups(change, taken)):
            if rows is None:
                self.order.append((_OLD, number))
                continue
            for part in split(rows, self.row_group_bytes):
                self.order.append((_FRESH, fresh))
                fresh += 1
                yield part

    def _groups(self, change: pa.Table, taken: Sequence[range]) -> Iterator[pa.Table | None]:
        """The new rows of each old row group; None for one that is copied."""
        footer = pq.read_metadata(self.before)
        for number, share in enumerate(taken):
            if share or self.source is None:
                held = read_groups(self.old.key, self.before, footer, [number], CANONICAL)
                yield self._merged(held, change.slice(share.start, len(share)))
            else:
                yield None

    def _merged(self, held: pa.Table, change: pa.Table) -> pa.Table | None:
        """Only what the change may alter is digested; all of it is when the new file is read back."""
        rows = merged(held, change)
        was, now = (of_batches([among(table, change)]) for table in (held, rows))
        self.digest = self.digest - was + now
        return None if self.source and was == now else rows

    def put_together(self, fresh: IO[bytes], into: IO[bytes]) -> IO[bytes]:
        """The fresh file itself where it is all there is, or where nothing changed and nothing will be put."""
        is_unchanged = self.digest == self.old.digest
        if self.source is None or is_unchanged or all(file == _FRESH for file, _ in self.order):
            return fresh
        for piece in spliced([self.source, _source(fresh)], self.order):
            if isinstance(piece, Stretch):
                copy_stretch((self.before, fresh)[piece.file], piece.start, piece.length, into)
            else:
                into.write(piece)
        return into


def _copyable(before: IO[bytes]) -> Source | None:
    """None for a file of a form that is no longer written, and for one that is not ours."""
    form = io.BytesIO()
    write_local(form, [], COLD)
    try:
        source = _source(before)
    except ValueError:
        return None
    return source if are_alike(source, _source(form)) else None


def _source(file: IO[bytes]) -> Source:
    source = source_of(tail_of(file))
    return replace(source, offsets={one.start: read_at(file, one.start, one.length) for one in offset_indexes(source)})


def _union(old: Old, before: IO[bytes], change: pa.Table) -> Digest:
    """Laid over row by row, and not by the way that wrote the file; other rows are digested as they are."""
    before.seek(0)
    alone, altered = Digest(), list[Row]()
    for group in decoded_groups(old.key, before, CANONICAL) if old.key else ():
        altered += from_batch(among(group, change))
        alone += of_batches([apart_from(group, change)])
    return alone + of_rows(laid_over(altered, merge_all(from_batch(change))))


def _read_back(objects: Objects, file: ColdFile, ends: Sequence[Ends], scratch: Path | None) -> Digest:
    """DamagedError also where a row group has other ends than the index says, or rows are out of order."""
    found: list[Ends] = []
    with fetched(objects, file.key, file.sha256, scratch) as local:
        try:
            groups = ascending(decoded_groups(file.key, local, CANONICAL))
            back = of_batches(_noted(groups, found))
        except RefusedError as fault:
            raise damaged(file.key, "its rows are out of order") from fault
    if found != list(ends):
        raise damaged(file.key, "its row groups are not those of its index")
    return back


def _noted(groups: Iterable[pa.Table], ends: list[Ends]) -> Iterator[pa.Table]:
    for group in groups:
        ends.append(ends_of(group))
        yield group
