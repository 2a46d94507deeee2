"""The index of a cold file: which row group holds which keys, where its bytes lie, and the Parquet footer to decode it.

With it a reader needs one ranged GET per row group, and neither the file's tail nor the Delta log. It is an Arrow file:
a row per row group; the file's key, size, SHA-256 and footer (zstd, base64) are in the schema's metadata.
"""

import base64
import io
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.digest import Digest
from core.errors import DamagedError
from core.rows import ID_BYTES
from lakehouse.coldfile import damaged, ends_of, kind_of, read_groups, sparse_file
from lakehouse.paths import index_key
from schemas.tables import CANONICAL
from stores.objects import NotFoundError, Objects

LOWEST = b"\x00" * ID_BYTES
HIGHEST = b"\xff" * ID_BYTES
# Neighbouring row groups come in one GET up to this many bytes.
MAX_GET_BYTES = 4_000_000
_VERSION = b"2"
_MAGIC = b"PAR1"

_COLUMNS: dict[str, pa.DataType] = {
    "first_key": pa.binary(2 * ID_BYTES),
    "last_key": pa.binary(2 * ID_BYTES),
    "offset": pa.int64(),
    "length": pa.int64(),
    "rows": pa.int64(),
}
SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items()])


@dataclass(frozen=True)
class RowGroup:
    """Keys are conversation_id + message_id, 32 bytes; `offset` and `length` are bytes of the data file."""

    first_key: bytes
    last_key: bytes
    offset: int
    length: int
    rows: int


@dataclass(frozen=True)
class ColdIndex:
    """`digest` is over the canonical rows; `footer` is the tail of the data file: Parquet's own metadata, its length
    and magic."""

    key: str
    size_bytes: int
    sha256: str
    digest: Digest
    groups: tuple[RowGroup, ...]
    footer: bytes

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    @cached_property
    def metadata(self) -> pq.FileMetaData:
        return pq.read_metadata(io.BytesIO(_MAGIC + self.footer))

    @cached_property
    def first_keys(self) -> list[bytes]:
        return [group.first_key for group in self.groups]

    @cached_property
    def last_keys(self) -> list[bytes]:
        return [group.last_key for group in self.groups]


def encode(index: ColdIndex) -> bytes:
    footer = base64.b64encode(pa.compress(index.footer, "zstd", asbytes=True))
    metadata = {
        b"firn.version": _VERSION,
        b"firn.key": index.key.encode(),
        b"firn.size_bytes": str(index.size_bytes).encode(),
        b"firn.sha256": index.sha256.encode(),
        b"firn.digest": str(index.digest).encode(),
        b"firn.footer_bytes": str(len(index.footer)).encode(),
        b"firn.footer": footer,
    }
    rows = pa.Table.from_pylist([vars(group) for group in index.groups], schema=SCHEMA.with_metadata(metadata))
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, rows.schema) as file:
        file.write_table(rows)
    return sink.getvalue()


def decode(key: str, data: bytes) -> ColdIndex:
    """`key` is the data file's; DamagedError when the bytes are not its index."""
    try:
        rows = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        told = {name.decode(): value for name, value in (rows.schema.metadata or {}).items()}
        footer_bytes = int(told["firn.footer_bytes"])
        footer = pa.decompress(base64.b64decode(told["firn.footer"]), footer_bytes, "zstd", asbytes=True)
        groups = tuple(RowGroup(**row) for row in rows.to_pylist())
        digest = Digest(sum(group.rows for group in groups), int(told["firn.digest"], 16))
        facts = (told["firn.key"].decode(), int(told["firn.size_bytes"]), told["firn.sha256"].decode())
        index = ColdIndex(*facts, digest, groups, footer)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as fault:
        raise _damaged_index(key) from fault
    if index.key != key or told["firn.version"] != _VERSION:
        raise _damaged_index(key)
    return index


def load_index(objects: Objects, key: str) -> ColdIndex:
    """One GET; `key` is the data file's. NotFoundError if there is no index."""
    try:
        data = objects.get(index_key(key))
    except DamagedError as fault:
        raise _damaged_index(key) from fault
    return decode(key, data)


def require_readable(objects: Objects, key: str, sha256: str) -> None:
    """DamagedError unless every row group of the file can be read by its index, as a reader does, key by key."""
    try:
        index = load_index(objects, key)
    except NotFoundError as fault:
        raise _damaged_index(key, "is missing") from fault
    if index.sha256 != sha256:
        raise _damaged_index(key, "is that of other bytes")
    for number in range(len(index.groups)):
        read_row_groups(objects, index, [number])


def find(index: ColdIndex, conversation_id: bytes, lowest: bytes = LOWEST, highest: bytes = HIGHEST) -> range:
    """Numbers of the row groups that may hold the conversation's messages from `lowest` to `highest`, inclusive."""
    first = bisect_left(index.last_keys, conversation_id + lowest)
    last = bisect_right(index.first_keys, conversation_id + highest)
    return range(first, max(first, last))


def read_row_groups(
    objects: Objects, index: ColdIndex, groups: Sequence[int], schema: pa.Schema = CANONICAL
) -> pa.Table:
    """The rows of `groups` (ascending) as `schema`; neighbours share a GET up to MAX_GET_BYTES."""
    tables = [_read_run(objects, index, run, schema) for run in _runs(index, groups)]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def read_range(
    objects: Objects, index: ColdIndex, conversation_id: bytes, lowest: bytes = LOWEST, highest: bytes = HIGHEST
) -> pa.Table:
    """The conversation's messages from `lowest` to `highest`, both included, in ascending order."""
    rows = read_row_groups(objects, index, find(index, conversation_id, lowest, highest))
    message_id = pc.field("message_id")
    kept = (pc.field("conversation_id") == conversation_id) & (message_id >= lowest) & (message_id <= highest)
    return rows.filter(kept)


def _runs(index: ColdIndex, groups: Sequence[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for number in groups:
        start = index.groups[run[0]].offset if run else 0
        end = index.groups[number].offset + index.groups[number].length
        if run and (number != run[-1] + 1 or end - start > MAX_GET_BYTES):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _read_run(objects: Objects, index: ColdIndex, run: list[int], schema: pa.Schema) -> pa.Table:
    first, last = index.groups[run[0]], index.groups[run[-1]]
    length = last.offset + last.length - first.offset
    data = objects.get(index.key, first.offset, length)
    if len(data) != length:
        raise damaged(index.key, "it ends too early")
    rows = read_groups(index.key, sparse_file(index.size_bytes, first.offset, data), index.metadata, run, schema)
    if rows.num_rows != sum(index.groups[number].rows for number in run):
        raise damaged(index.key, "its rows are not as many as its index says")
    if ends_of(rows) != (first.first_key, last.last_key):
        raise damaged(index.key, "its keys are not those of its index")
    return rows


def _damaged_index(key: str, how: str = "is damaged") -> DamagedError:
    return DamagedError(
        f"the index of {kind_of(key)} {key} {how}",
        f"bring {index_key(key)} back from a copy of the bucket; no row was lost, and nothing was dropped",
    )
