"""Data files without Parquet: the same functions, the same order of puts and gets, rows in row groups.

What the real ones do with bytes is tested with real bytes elsewhere; here it matters what is there when, and that
whoever reads a file back gets what was put. A "batch" here is a plain list of rows.
"""

import marshal
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from core import digest, ids, ring
from core.ledger import Run
from core.overlay import Reaction, Row, laid_over, merge_all
from core.sealing import Place, people_of, subject_of
from core.tiers import Tier
from lakehouse.coldfile import damaged
from lakehouse.frozen import ErasedPersonError, require_attested
from lakehouse.index import ColdIndex, RowGroup
from lakehouse.paths import index_key, run_key
from lakehouse.rewrite import Old
from lakehouse.writer import ColdFile
from stores import messages
from stores.cassandra import Database
from stores.objects import STANDARD, AlreadyExistsError, Objects, sha256_of
from stores.vault import Vault

GROUP_ROWS = 3
_MICROSECOND = timedelta(microseconds=1)
_SCALARS = (
    *("conversation_id", "message_id", "sender_id", "message_type", "body", "media_ref", "reply_to", "edit_id"),
    "deleted",
)
Batch = list[Row]
Groups = list[Batch]


class PlainRows:
    """In the place of `core.rows`."""

    @staticmethod
    def to_batches(rows: Iterable[Row]) -> Iterator[Batch]:
        yield list(rows)

    @staticmethod
    def from_batch(batch: Batch) -> Iterator[Row]:
        return iter(batch)

    @staticmethod
    def in_key_order(batches: Iterable[Batch]) -> Iterator[Batch]:
        yield sorted((row for batch in batches for row in batch), key=lambda row: row.key)

    @staticmethod
    def one_per_key(batches: Iterable[Batch]) -> "Change":
        merged = merge_all(row for batch in batches for row in batch)
        return Change(merged[key] for key in sorted(merged))


class PlainCanonical:
    """In the place of `core.canonical`."""

    @staticmethod
    def of_batches(batches: Iterable[Batch]) -> digest.Digest:
        return digest.of_rows(row for batch in batches for row in batch)

    @staticmethod
    def tallied(batches: Iterable[Batch], tally: digest.Tally) -> Iterator[Batch]:
        for batch in batches:
            yield list(tally.through(batch))


class PlainScans:
    """In the place of `stores.scans`: by the driver's rows, which the cluster here gives."""

    @staticmethod
    def scan(*place: Any) -> Iterator[Batch]:
        yield list(messages.scan(*place))


class PlainInserts:
    """In the place of `stores.inserts`."""

    @staticmethod
    def write(db: Database, region: str, tier: Tier, week: int, batches: Iterable[Batch]) -> None:
        db.write(messages.batches(region, tier, week, chain.from_iterable(batches)))


class Change(list[Row]):
    @property
    def num_rows(self) -> int:
        return len(self)


def write_cold_file(batches: Iterable[Batch], objects: Objects, key: str, _: int, __: Path | None = None) -> ColdFile:
    return _put(objects, key, [row for batch in batches for row in batch])


def read_cold_file(objects: Objects, key: str, expected_sha256: str, _: Path | None = None) -> Iterator[Batch]:
    data = objects.get(key)
    if sha256_of(data) != expected_sha256:
        raise damaged(key, "its SHA-256 differs")
    yield from _groups(data)


def load_index(objects: Objects, key: str) -> ColdIndex:
    return _index(objects.get(index_key(key)))


def require_readable(objects: Objects, key: str, sha256: str) -> None:
    index = load_index(objects, key)
    if index.sha256 != sha256:
        raise damaged(key, "its index is that of other bytes")
    read_row_groups(objects, index, range(len(index.groups)))


def read_row_groups(objects: Objects, index: ColdIndex, groups: Sequence[int], *_: Any) -> Batch:
    data = objects.get(index.key)
    if sha256_of(data) != index.sha256:
        raise damaged(index.key, "its bytes do not decode")
    held = _groups(data)
    return [row for number in groups for row in held[number]]


def rewrite(objects: Objects, old: Old, change: Change, key: str, *_: Any) -> ColdFile | None:
    before = [row for batch in _old(objects, old) for row in batch]
    merged = merge_all([*before, *change])
    rows = [merged[place] for place in sorted(merged)]
    if old.key and digest.of_rows(rows) == old.digest:
        return None
    file = _put(objects, key, rows)
    back = digest.of_rows(row for batch in read_cold_file(objects, key, file.sha256) for row in batch)
    if not back == digest.of_rows(laid_over(before, merge_all(change))) == file.digest:
        raise damaged(key, "it does not read back as the old file with the change")
    return file


def write_run(
    batches: Iterable[Batch], objects: Objects, week: int, slice_: int, name: str, held: digest.Digest, *_: Any
) -> Run:
    key = run_key(slice_, week, name)
    data = _dumped([row for batch in batches for row in batch])
    info = _put_once(objects, key, data)
    return Run(week, slice_, name, key, held, info.size_bytes, info.sha256)


def read_run(objects: Objects, run: Run, tokens: ring.Range, _: Path | None = None) -> Iterator[Batch]:
    for batch in read_cold_file(objects, run.path, run.sha256):
        yield [row for row in batch if ring.token(row.conversation_id) in tokens]


def write_frozen_file(
    batches: Iterable[Batch], vault: Vault, objects: Objects, place: Place, key: str, _: int, storage_class: str
) -> ColdFile:
    """Rows stand in clear here; what matters is that keys and references are there before they are put."""
    rows = [row for batch in batches for row in batch]
    people = {person for row in rows for person in people_of(row)}
    for known in vault.make(people).values():
        if known is None:
            raise ErasedPersonError("a person was erased", "fold the unit with its erasures first")
    vault.note(key, {_reference(key, person): person for person in people})
    if digest.of_rows(_opened(vault, key, rows)) != digest.of_rows(rows):
        raise damaged(key, "what was sealed does not open to the rows that went in")
    file = _put(objects, key, rows, storage_class, place.salt)
    require_attested(objects, key, file.sha256, file.size_bytes)
    return file


def read_frozen_groups(
    objects: Objects, vault: Vault, index: ColdIndex, groups: Sequence[int], conversation_id: bytes
) -> Iterator[Row]:
    mine = [row for row in read_row_groups(objects, index, groups) if row.conversation_id == conversation_id]
    yield from _opened(vault, index.key, mine)


def groups_in(data: bytes) -> Groups:
    """For whoever watches."""
    return _groups(data)


def _opened(vault: Vault, key: str, rows: Sequence[Row]) -> Iterator[Row]:
    references = {_reference(key, person) for row in rows for person in people_of(row)}
    people = vault.subjects(key, references)
    keys = vault.keys(person for person in people.values() if person is not None)
    yield from (row for row in rows if keys.get(subject_of(row)) is not None)


def _reference(key: str, person: int) -> bytes:
    return bytes.fromhex(sha256_of(f"{key}/{person}".encode()))[:16]


def _old(objects: Objects, old: Old) -> Iterator[Batch]:
    return read_cold_file(objects, old.key, old.sha256) if old.key else iter(())


def _put(objects: Objects, key: str, rows: Sequence[Row], kind: str = STANDARD, salt: bytes = b"") -> ColdFile:
    data, held = _dumped(rows, salt), digest.of_rows(rows)
    info = _put_once(objects, key, data, kind)
    index = ColdIndex(key, info.size_bytes, info.sha256, held, _bounds(rows), b"")
    beside = _put_once(objects, index_key(key), _index_bytes(index))
    facts = (key, info.size_bytes, info.sha256, held, len(index.groups))
    return ColdFile(*facts, beside.key, beside.size_bytes, beside.sha256)


def _put_once(objects: Objects, key: str, data: bytes, storage_class: str = STANDARD) -> Any:
    try:
        return objects.put(key, data, if_absent=True, storage_class=storage_class)
    except AlreadyExistsError:
        there = objects.head(key)
        if there is None or there.sha256 != sha256_of(data):
            raise
        return there


def _dumped(rows: Sequence[Row], salt: bytes = b"") -> bytes:
    """By value alone, so that the same rows are the same bytes, as they are in Parquet."""
    plain = [_plain(row) for row in rows]
    return marshal.dumps((salt, [plain[at : at + GROUP_ROWS] for at in range(0, len(plain), GROUP_ROWS)]), 2)


def _plain(row: Row) -> tuple[Any, ...]:
    facts = [getattr(row, name) for name in _SCALARS]
    at_us = None if row.server_ts is None else (row.server_ts - ids.UNIX_EPOCH) // _MICROSECOND
    return *facts, at_us, tuple((one.user_id, one.event_id, one.reaction) for one in row.reactions)


def _row(plain: tuple[Any, ...]) -> Row:
    *facts, at_us, reactions = plain
    at = None if at_us is None else ids.UNIX_EPOCH + at_us * _MICROSECOND
    named: dict[str, Any] = dict(zip(_SCALARS, facts, strict=True))
    return Row(**named, server_ts=at, reactions=tuple(Reaction(*one) for one in reactions))


@lru_cache(4000)
def _groups(data: bytes) -> Groups:
    try:
        return [[_row(plain) for plain in group] for group in marshal.loads(data)[1]]
    except (ValueError, EOFError, TypeError, IndexError) as fault:
        raise damaged("a file", "its bytes do not decode") from fault


def _bounds(rows: Sequence[Row]) -> tuple[RowGroup, ...]:
    cuts = [rows[at : at + GROUP_ROWS] for at in range(0, len(rows), GROUP_ROWS)]
    return tuple(RowGroup(b"".join(cut[0].key), b"".join(cut[-1].key), 0, 0, len(cut)) for cut in cuts)


def _index_bytes(index: ColdIndex) -> bytes:
    groups = [(group.first_key, group.last_key, group.rows) for group in index.groups]
    held = index.digest
    return marshal.dumps((index.key, index.size_bytes, index.sha256, held.rows, str(held.total), groups), 2)


@lru_cache(4000)
def _index(data: bytes) -> ColdIndex:
    key, size_bytes, sha256, rows, total, groups = marshal.loads(data)
    bounds = tuple(RowGroup(first, last, 0, 0, count) for first, last, count in groups)
    return ColdIndex(key, size_bytes, sha256, digest.Digest(rows, int(total)), bounds, b"")
