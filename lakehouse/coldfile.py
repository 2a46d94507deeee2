"""Reading a Parquet file that lies in the object store: whole, or only the row groups whose bytes were fetched."""

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DamagedError
from lakehouse.paths import FROZEN, RUNS
from schemas.tables import CANONICAL
from stores.objects import Objects

_CHUNK_BYTES = 8 * 1024 * 1024
_LENGTH_AND_MAGIC_BYTES = 8
_KEY = ["conversation_id", "message_id"]
# The first and last key of rows: conversation_id + message_id, 32 bytes.
Ends = tuple[bytes, bytes]
_KINDS = {FROZEN: "frozen object", RUNS: "run of an import"}


class _SparseFile(io.RawIOBase):
    """A file of which only one range is here; a read outside of it raises OSError."""

    def __init__(self, size_bytes: int, start: int, data: bytes) -> None:
        super().__init__()
        self._size_bytes = size_bytes
        self._start = start
        self._data = memoryview(data)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        into = memoryview(buffer)
        first = self._at - self._start
        last = first + min(len(into), self._size_bytes - self._at)
        if first < 0 or last > len(self._data):
            raise OSError("a read outside of the bytes that were fetched")
        into[: last - first] = self._data[first:last]
        self._at += last - first
        return last - first


def sparse_file(size_bytes: int, start: int, data: bytes) -> IO[bytes]:
    return cast(IO[bytes], _SparseFile(size_bytes, start, data))


def damaged(key: str, how: str) -> DamagedError:
    return DamagedError(
        f"{kind_of(key)} {key} is damaged: {how}",
        "bring it back from a copy of the bucket, under the same key; nothing was dropped",
    )


def kind_of(key: str) -> str:
    """What a data file is to a person, by where it lies."""
    return next((kind for home, kind in _KINDS.items() if key.startswith(home)), "cold file")


def read_groups(
    key: str, source: IO[bytes], footer: pq.FileMetaData, groups: Sequence[int], schema: pa.Schema
) -> pa.Table:
    """Rows as `schema`, page checksums verified; whatever does not decode is a DamagedError naming the file."""
    try:
        with pq.ParquetFile(source, metadata=footer, page_checksum_verification=True) as file:
            return file.read_row_groups(list(groups), use_threads=False).cast(schema)
    except (OSError, pa.ArrowException, ValueError) as fault:
        raise damaged(key, "its bytes do not decode") from fault


def read_cold_file(
    objects: Objects, key: str, expected_sha256: str, scratch: Path | None = None
) -> Iterator[pa.RecordBatch]:
    """Every row as the store gives it back, by row groups; nothing is yielded before the SHA-256 is found right.

    The bytes pass through a temporary file under `scratch`, so memory holds one chunk and one row group.
    """
    with fetched(objects, key, expected_sha256, scratch) as local:
        yield from decoded(key, local, CANONICAL)


@contextmanager
def fetched(objects: Objects, key: str, expected_sha256: str, scratch: Path | None = None) -> Iterator[IO[bytes]]:
    """The object as a temporary file; DamagedError when it is not the one that was written."""
    with tempfile.TemporaryFile(dir=scratch) as local:
        if _copy(objects, key, local) != expected_sha256:
            raise damaged(key, "its SHA-256 differs")
        yield local


def decoded(key: str, local: IO[bytes], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of a whole local file, as `schema`."""
    for group in decoded_groups(key, local, schema):
        yield from group.to_batches()


def decoded_groups(key: str, local: IO[bytes], schema: pa.Schema) -> Iterator[pa.Table]:
    """The row groups of a whole local file, as `schema`."""
    try:
        with pq.ParquetFile(local, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, use_threads=False).cast(schema)
    except (OSError, pa.ArrowException, ValueError) as fault:
        raise damaged(key, "its bytes do not decode") from fault


def ends_of_groups(key: str, local: IO[bytes]) -> list[Ends]:
    """Of each row group; only the columns of the key are decoded."""
    try:
        with pq.ParquetFile(local, page_checksum_verification=True) as file:
            columns = (file.read_row_group(one, _KEY, use_threads=False) for one in range(file.num_row_groups))
            return [ends_of(keys) for keys in columns]
    except (OSError, pa.ArrowException, ValueError, IndexError) as fault:
        raise damaged(key, "its bytes do not decode") from fault


def ends_of(rows: pa.Table) -> Ends:
    """IndexError where there are no rows."""
    return _key(rows, 0), _key(rows, -1)


def _key(rows: pa.Table, at: int) -> bytes:
    key: bytes = rows["conversation_id"][at].as_py() + rows["message_id"][at].as_py()
    return key


def tail_of(local: IO[bytes]) -> bytes:
    """The footer as it stands in the file, with its length and magic."""
    local.seek(-_LENGTH_AND_MAGIC_BYTES, os.SEEK_END)
    length = int.from_bytes(local.read(4), "little")
    local.seek(-_LENGTH_AND_MAGIC_BYTES - length, os.SEEK_END)
    return local.read()


def read_at(local: IO[bytes], start: int, length: int) -> bytes:
    local.seek(start)
    return local.read(length)


def copy_stretch(local: IO[bytes], start: int, length: int, into: IO[bytes]) -> None:
    local.seek(start)
    while length > 0:
        chunk = local.read(min(length, _CHUNK_BYTES))
        if not chunk:
            raise EOFError("the file ends before the stretch")
        into.write(chunk)
        length -= len(chunk)


def _copy(objects: Objects, key: str, local: IO[bytes]) -> str:
    """Returns the SHA-256 of what came, in hex."""
    digest, start = hashlib.sha256(), 0
    while chunk := objects.get(key, start, _CHUNK_BYTES):
        digest.update(chunk)
        local.write(chunk)
        start += len(chunk)
        if len(chunk) < _CHUNK_BYTES:
            break
    local.seek(0)
    return digest.hexdigest()
