"""Writes one cold file: canonical rows, sorted by (conversation_id, message_id), to Parquet with its index beside it.

Row groups are small (0.8 MB) because a reader fetches one whole. What is encrypted is not compressed: it would cost
time and save nothing. Statistics are kept of the key alone: they would outlive rows that are erased.
"""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core.errors import RefusedError
from lakehouse.index import ID_BYTES, ColdIndex, RowGroup, encode
from lakehouse.paths import index_key
from schemas.tables import CANONICAL
from stores.objects import AlreadyExistsError, ObjectInfo, Objects, sha256_of_file

_REACTION = "reactions.list.element.reaction"
_CIPHERTEXT = ("body", _REACTION)
_KEY = ("conversation_id", "message_id")
_REPEATING = ("conversation_id", "sender_id", "message_type", "reactions.list.element.user_id")
_ZSTD_LEVEL = 3
_NESTED = ("user_id", "event_id", "reaction")
_LEAVES = tuple(name for name in CANONICAL.names if name != "reactions") + tuple(
    f"reactions.list.element.{name}" for name in _NESTED
)
# Ids, sender, type, deleted and server_ts; then each reaction's user and event.
_FIXED_ROW_BYTES = 2 * ID_BYTES + 8 + 1 + 1 + 8
_FIXED_REACTION_BYTES = 8 + ID_BYTES
_LENGTH_AND_MAGIC_BYTES = 8


@dataclass(frozen=True)
class ColdFile:
    """A written file and its index, as the store acknowledged them; SHA-256 in hex."""

    key: str
    size_bytes: int
    sha256: str
    rows: int
    row_groups: int
    index_key: str
    index_size_bytes: int
    index_sha256: str


def write_cold_file(
    batches: Iterable[pa.RecordBatch],
    objects: Objects,
    key: str,
    row_group_bytes: int,
    scratch: Path | None = None,
) -> ColdFile:
    """RefusedError for rows out of order, repeated or not canonical: then nothing is put.

    A file and index that are there already with the same bytes are a retry's; other bytes are an AlreadyExistsError.
    Memory holds one row group and one batch.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="firn-") as folder:
        local = Path(folder) / "cold.parquet"
        groups = _write_local(local, batches, row_group_bytes)
        data = _put_once(objects, key, local)
        index = ColdIndex(key, data.size_bytes, data.sha256, _place(local, groups), _tail(local))
        sidecar = Path(folder) / "cold.arrow"
        sidecar.write_bytes(encode(index))
        beside = _put_once(objects, index_key(key), sidecar)
    return ColdFile(
        key,
        data.size_bytes,
        data.sha256,
        index.rows,
        len(groups),
        beside.key,
        beside.size_bytes,
        beside.sha256,
    )


def _put_once(objects: Objects, key: str, local: Path) -> ObjectInfo:
    try:
        return objects.put_file(key, local, if_absent=True)
    except AlreadyExistsError:
        there = objects.head(key)
        if there is None or there.sha256 != sha256_of_file(local):
            raise
        return there


def _write_local(local: Path, batches: Iterable[pa.RecordBatch], row_group_bytes: int) -> list[tuple[bytes, bytes]]:
    """Returns the first and last key of each row group."""
    keys = []
    try:
        with _parquet_writer(local) as writer:
            for rows in cut(ascending(batches), row_group_bytes):
                writer.write_table(rows, row_group_size=rows.num_rows)
                keys.append((_key(rows, 0), _key(rows, -1)))
    except (pa.ArrowException, ValueError) as fault:
        raise RefusedError(
            f"rows are not canonical ({type(fault).__name__})", "compare their columns with schemas.tables.CANONICAL"
        ) from fault
    return keys


def _parquet_writer(local: Path) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        local,
        CANONICAL,
        compression={leaf: "none" if leaf in _CIPHERTEXT else "zstd" for leaf in _LEAVES},
        compression_level={leaf: _ZSTD_LEVEL for leaf in _LEAVES if leaf not in _CIPHERTEXT},
        use_dictionary=cast(bool, list(_REPEATING)),  # pyarrow takes names too; its stubs do not say so
        column_encoding={"server_ts": "DELTA_BINARY_PACKED"},
        write_statistics=list(_KEY),
        write_page_checksum=True,
        store_schema=False,
    )


def ascending(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Each batch as CANONICAL; RefusedError at the first row that is out of order or that repeats a key."""
    last = np.empty((0, 4), dtype=">u8")
    done = 0
    for given in batches:
        batch = given.cast(CANONICAL)
        keys = np.concatenate([last, _keys(batch)])
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


def row_bytes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """Bytes in memory of each row, without validity and offsets."""
    sizes = np.full(batch.num_rows, _FIXED_ROW_BYTES, dtype=np.int64)
    for name in ("body", "media_ref", "reply_to", "edit_id"):
        sizes += _lengths(batch[name])
    reactions = batch["reactions"]
    parents = pc.list_parent_indices(reactions).to_numpy()
    texts = _lengths(pc.struct_field(pc.list_flatten(reactions), "reaction")) + _FIXED_REACTION_BYTES
    np.add.at(sizes, parents, texts)
    return sizes


def _lengths(values: Any) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(pc.binary_length(values), 0), dtype=np.int64)


def _keys(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    """(rows, 4) big-endian words of conversation_id and message_id; an id that is not 16 bytes is an ArrowInvalid."""
    return np.concatenate([_words(batch[name].cast(pa.binary(ID_BYTES))) for name in _KEY], axis=1)


def _words(ids: Any) -> NDArray[np.uint64]:
    if ids.null_count:
        raise ValueError("a key is null")
    return np.frombuffer(ids.buffers()[1], ">u8", 2 * len(ids), ids.offset * ID_BYTES).reshape(-1, 2)


def _less(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Row by row, in the order of the words."""
    less = np.zeros(len(left), dtype=bool)
    equal = np.ones(len(left), dtype=bool)
    for word in range(left.shape[1]):
        less |= equal & (left[:, word] < right[:, word])
        equal &= left[:, word] == right[:, word]
    return less


def _key(rows: pa.Table, at: int) -> bytes:
    key: bytes = rows["conversation_id"][at].as_py() + rows["message_id"][at].as_py()
    return key


def _place(local: Path, keys: list[tuple[bytes, bytes]]) -> tuple[RowGroup, ...]:
    metadata = pq.read_metadata(local)
    return tuple(_row_group(metadata.row_group(number), *bounds) for number, bounds in enumerate(keys))


def _row_group(group: pq.RowGroupMetaData, first_key: bytes, last_key: bytes) -> RowGroup:
    columns = [group.column(number) for number in range(group.num_columns)]
    start = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
    length = sum(column.total_compressed_size for column in columns)
    return RowGroup(first_key, last_key, start, length, group.num_rows)


def _tail(local: Path) -> bytes:
    """The footer as it stands in the file, with its length and magic."""
    with local.open("rb") as file:
        file.seek(-_LENGTH_AND_MAGIC_BYTES, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-_LENGTH_AND_MAGIC_BYTES - length, 2)
        return file.read()
