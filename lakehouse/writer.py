"""Writes one data file: rows sorted by (conversation_id, message_id), to Parquet with its index beside it.

Row groups are small (0.8 MB) because a reader fetches one whole. Bodies are encrypted and are not compressed: it would
cost time and save nothing. Times are stored in milliseconds. Statistics are kept of the key alone: they would outlive
rows that are erased.
"""

import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core import canonical, digest
from core.errors import BlockedError, RefusedError
from core.rows import key_words
from core.steps import irreversible
from lakehouse.coldfile import Ends, ends_of, tail_of
from lakehouse.index import ColdIndex, RowGroup, encode
from lakehouse.paths import index_key
from schemas.tables import CANONICAL, FROZEN_ROW
from stores.objects import STANDARD, AlreadyExistsError, ObjectInfo, Objects, sha256_of_file

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
_KEY = ("conversation_id", "message_id")
_ZSTD_LEVEL = 3


@dataclass(frozen=True)
class Form:
    """The columns of a kind of data file and how each is stored; names are those of Parquet leaves.

    `incompressible` are left as they are, the others are zstd; `repeating` get a dictionary.
    """

    schema: pa.Schema
    incompressible: tuple[str, ...]
    repeating: tuple[str, ...] = ()
    encoded: Mapping[str, str] = field(default_factory=dict)

    @property
    def leaves(self) -> tuple[str, ...]:
        return tuple(leaf for column in self.schema for leaf in _leaves(column.name, column.type))


def _leaves(name: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_list(kind):
        yield from (
            leaf for child in kind.value_type for leaf in _leaves(f"{name}.list.element.{child.name}", child.type)
        )
    else:
        yield name


# Measured by `python -m bench.bytes`. In row groups this small a dictionary costs more than zstd finds by itself, and
# lengths of ciphertext are packed. Reactions are left to zstd, which packs where in the lists each stands.
COLD = Form(
    CANONICAL,
    incompressible=("body",),
    encoded={"body": "DELTA_LENGTH_BYTE_ARRAY", "reactions.list.element.reaction": "DELTA_LENGTH_BYTE_ARRAY"},
)
FROZEN = Form(
    FROZEN_ROW,
    incompressible=("sealed", "reactions.list.element.sealed"),
    repeating=("conversation_id", "subject", "reactions.list.element.subject"),
)


@dataclass(frozen=True)
class ColdFile:
    """A written file and its index, as the store acknowledged them; SHA-256 in hex, digest over canonical rows."""

    key: str
    size_bytes: int
    sha256: str
    digest: digest.Digest
    row_groups: int
    index_key: str
    index_size_bytes: int
    index_sha256: str

    @property
    def rows(self) -> int:
        return self.digest.rows


def write_cold_file(
    batches: Iterable[pa.RecordBatch],
    objects: Objects,
    key: str,
    row_group_bytes: int,
    scratch: Path | None = None,
) -> ColdFile:
    """RefusedError for rows out of order, repeated or not canonical: then nothing is put.

    A file and index that are there already with the same bytes are a retry's; other bytes are a BlockedError.
    Memory holds one row group and one batch.
    """
    with local_cold_file(cut(ascending(batches), row_group_bytes), scratch) as local:
        return local.put(objects, key)


@dataclass(frozen=True)
class LocalFile:
    """A written file that is not in the store yet and has no name, so that nothing of it is left by a process that is
    killed; with the first and last key of each row group."""

    file: IO[bytes]
    groups: list[Ends]
    digest: digest.Digest

    def put(self, objects: Objects, key: str, storage_class: str = STANDARD) -> ColdFile:
        """The index is put beside, always to be read at once."""
        data = put_once(objects, key, self.file, storage_class)
        groups, tail = _place(self.file, self.groups), tail_of(self.file)
        index = encode(ColdIndex(key, data.size_bytes, data.sha256, self.digest, groups, tail))
        beside = put_once(objects, index_key(key), io.BytesIO(index))
        facts = (key, data.size_bytes, data.sha256, self.digest, len(groups))
        return ColdFile(*facts, beside.key, beside.size_bytes, beside.sha256)


@contextmanager
def local_cold_file(groups: Iterable[pa.Table], scratch: Path | None = None) -> Iterator[LocalFile]:
    """`groups` become row groups as they are, and their rows are digested as they pass."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        tally = digest.Tally()
        keys = write_local(file, canonical.tallied(groups, tally), COLD)
        yield LocalFile(file, keys, tally.digest)


@irreversible("file: put")
def put_once(objects: Objects, key: str, local: IO[bytes], storage_class: str = STANDARD) -> ObjectInfo:
    try:
        return objects.put_file(key, local, if_absent=True, storage_class=storage_class)
    except AlreadyExistsError:
        there = objects.head(key)
        if there is None or there.sha256 != sha256_of_file(local):
            raise BlockedError(
                f"{key} was written by another try of this task, from rows of another moment",
                "run the same command again: its files have names of their own",
            ) from None
        return there


def write_local(
    local: IO[bytes], groups: Iterable[pa.Table], form: Form, metadata: Mapping[str, str] | None = None
) -> list[Ends]:
    """Each of `groups` is a row group. Returns the first and last key of each."""
    keys = []
    try:
        with parquet_writer(local, form) as writer:
            writer.add_key_value_metadata(dict(metadata or {}))
            for rows in ascending(groups, form.schema):
                writer.write_table(rows, row_group_size=rows.num_rows)
                keys.append(ends_of(rows))
    except (pa.ArrowException, ValueError) as fault:
        raise RefusedError(
            f"rows are not canonical ({type(fault).__name__})", "compare their columns with schemas.tables.CANONICAL"
        ) from fault
    return keys


def parquet_writer(local: IO[bytes], form: Form) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        local,
        form.schema,
        compression={leaf: "none" if leaf in form.incompressible else "zstd" for leaf in form.leaves},
        compression_level={leaf: _ZSTD_LEVEL for leaf in form.leaves if leaf not in form.incompressible},
        use_dictionary=cast(bool, list(form.repeating)),  # pyarrow takes names too; its stubs do not say so
        column_encoding=dict(form.encoded),
        coerce_timestamps="ms",  # which is all that CQL keeps and events bring; what is finer raises
        write_statistics=list(_KEY),
        write_page_checksum=True,
        store_schema=False,
    )


def ascending(batches: Iterable[Rows], schema: pa.Schema = CANONICAL) -> Iterator[Rows]:
    """Each batch as `schema`; RefusedError at the first row that is out of order or that repeats a key."""
    last = np.empty((0, 4), dtype=">u8")
    done = 0
    for given in batches:
        batch = given.cast(schema)
        keys = np.concatenate([last, key_words(batch)])
        wrong = np.flatnonzero(~_less(keys[:-1], keys[1:]))
        if len(wrong):
            raise RefusedError(
                f"row {done + int(wrong[0]) + 1 - len(last)} of the input is out of order or repeats a key",
                "sort by (conversation_id, message_id) and merge rows of one key first",
            )
        yield batch
        done += batch.num_rows
        last = keys[-1:]


def cut(batches: Iterable[pa.RecordBatch], row_group_bytes: int) -> Iterator[pa.Table]:
    """Row groups as large as the limit allows, by bytes in memory; a larger single row has a group of its own."""
    pending: list[pa.RecordBatch] = []
    room = row_group_bytes
    for batch in batches:
        ends = np.concatenate([[0], np.cumsum(row_bytes(batch))])
        start = 0
        while start < batch.num_rows:
            stop = int(np.searchsorted(ends, ends[start] + room, side="right")) - 1
            if stop == start and not pending:
                stop += 1
            if stop > start:
                pending.append(batch.slice(start, stop - start))
                room -= int(ends[stop] - ends[start])
                start = stop
            if start < batch.num_rows:
                yield pa.Table.from_batches(pending)
                pending, room = [], row_group_bytes
    if pending:
        yield pa.Table.from_batches(pending)


def split(rows: pa.Table, row_group_bytes: int) -> Iterator[pa.Table]:
    """A row group that may have outgrown the limit, in parts of about the same bytes, so that each can grow again; a
    larger single row has a part of its own."""
    rows = rows.combine_chunks()
    ends = np.cumsum(np.concatenate([[0], *map(row_bytes, rows.to_batches())]))
    yield from (rows.slice(start, stop - start) for start, stop in _parts(ends, 0, rows.num_rows, row_group_bytes))


def _parts(ends: NDArray[np.int64], start: int, stop: int, limit: int) -> Iterator[tuple[int, int]]:
    """`ends` has the bytes before each row."""
    parts = -(-int(ends[stop] - ends[start]) // limit)
    if parts <= 1 or stop - start <= 1:
        yield start, stop
        return
    middle = ends[start] + (ends[stop] - ends[start]) * (parts // 2) / parts
    at = min(max(int(np.searchsorted(ends, middle)), start + 1), stop - 1)
    yield from _parts(ends, start, at, limit)
    yield from _parts(ends, at, stop, limit)


def row_bytes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Bytes in memory of each row, without validity and offsets."""
    sizes = np.zeros(batch.num_rows, dtype=np.int64)
    for name in batch.schema.names:
        sizes += _column_bytes(batch[name])
    return sizes


def _column_bytes(values: Any) -> NDArray[np.int64]:
    """A list counts what its structs hold."""
    if not pa.types.is_list(values.type):
        return _lengths(values)
    sizes, inner = np.zeros(len(values), dtype=np.int64), pc.list_flatten(values)
    within = sum((_lengths(pc.struct_field(inner, child.name)) for child in values.type.value_type), np.int64(0))
    np.add.at(sizes, pc.list_parent_indices(values).to_numpy(), within)
    return sizes


def _lengths(values: Any) -> NDArray[np.int64]:
    if not (pa.types.is_binary(values.type) or pa.types.is_string(values.type)):
        return np.full(len(values), max(1, values.type.bit_width // 8), dtype=np.int64)
    return np.asarray(pc.fill_null(pc.binary_length(values), 0), dtype=np.int64)


def _less(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Row by row, in the order of the words."""
    less = np.zeros(len(left), dtype=bool)
    equal = np.ones(len(left), dtype=bool)
    for word in range(left.shape[1]):
        less |= equal & (left[:, word] < right[:, word])
        equal &= left[:, word] == right[:, word]
    return less


def _place(local: IO[bytes], keys: list[Ends]) -> tuple[RowGroup, ...]:
    local.seek(0)
    metadata = pq.read_metadata(local)
    return tuple(_row_group(metadata.row_group(number), *bounds) for number, bounds in enumerate(keys))


def _row_group(group: pq.RowGroupMetaData, first_key: bytes, last_key: bytes) -> RowGroup:
    columns = [group.column(number) for number in range(group.num_columns)]
    start = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
    length = sum(column.total_compressed_size for column in columns)
    return RowGroup(first_key, last_key, start, length, group.num_rows)
