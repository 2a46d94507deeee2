"""Rows on their way through local disk: files that only grow, frame by frame, and notes of how far the work is.

A note names the length of each file that it changed. Whoever goes on cuts the files back to what the notes say: what
was written after the last note was never there. Each frame carries a hash, so that a torn one is found.
"""

import fcntl
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from blake3 import blake3

from core.errors import BlockedError

_HEAD = struct.Struct("<Q8s")
_NOTES = "notes.ndjson"
Note = dict[str, Any]


class LostSpillError(BlockedError):
    """What lies in the folder is not what was written there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"what this import had written to {folder} is damaged", "run the same again: it begins anew")


class Spill:
    """One folder, for its owner alone. `lengths`: bytes of each file, by its name in the folder."""

    def __init__(self, folder: Path, lengths: Mapping[str, int]) -> None:
        """Cuts back what is there."""
        self.folder = folder
        self.lengths = dict(lengths)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
        for name, path in there.items():
            if name != _NOTES and name not in lengths:
                path.unlink()
        for name, length in lengths.items():
            if name not in there or there[name].stat().st_size < length:
                raise LostSpillError(folder)
            os.truncate(there[name], length)

    def append(self, name: str, payload: bytes | pa.Buffer) -> None:
        path = self.folder / name
        if name not in self.lengths:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _room(self.folder), path.open("ab") as file:
            file.write(_HEAD.pack(len(payload), blake3(payload).digest(8)))
            file.write(payload)
            self.lengths[name] = file.tell()

    def append_batch(self, name: str, batch: pa.RecordBatch) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        self.append(name, sink.getvalue())

    def frames(self, name: str) -> Iterator[bytes]:
        """In the order in which they came; none of a file that is not there."""
        left = self.lengths.get(name, 0)
        if not left:
            return
        with (self.folder / name).open("rb") as file:
            while left:
                head = file.read(_HEAD.size)
                length, hashed = _HEAD.unpack(head) if len(head) == _HEAD.size else (-1, b"")
                payload = file.read(length) if 0 <= length <= left else b""
                if len(payload) != length or blake3(payload).digest(8) != hashed:
                    raise LostSpillError(self.folder)
                yield payload
                left -= _HEAD.size + length

    def batches(self, name: str) -> Iterator[pa.RecordBatch]:
        for payload in self.frames(name):
            yield from pa.ipc.open_stream(payload)

    def drop(self, name: str) -> None:
        self.lengths.pop(name, None)
        (self.folder / name).unlink(missing_ok=True)

    def note(self, note: Note) -> None:
        """What was appended before it stands from here on, if the note names its length."""
        with _room(self.folder), (self.folder / _NOTES).open("ab") as file:
            file.write(json.dumps(note).encode() + b"\n")


def notes(folder: Path) -> list[Note]:
    """All that were written whole; what comes after the first that was not is cut off."""
    path, found, end = folder / _NOTES, list[Note](), 0
    if not path.exists():
        return found
    with path.open("rb+") as file:
        for line in file:
            if (note := _parsed(line)) is None:
                break
            found.append(note)
            end += len(line)
        file.truncate(end)
    return found


def _parsed(line: bytes) -> Note | None:
    try:
        note: Note = json.loads(line)
    except ValueError:
        return None
    return note if line.endswith(b"\n") else None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time works in `folder`; another is told to wait. The lock goes when the folder has gone."""
    lock = folder.with_suffix(".lock")
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not lock.exists() or not os.path.samestat(lock.stat(), os.fstat(held.fileno())):
                raise BlockingIOError
        except BlockingIOError:
            raise BlockedError(
                "the same import runs already", "let it end; the same again then changes nothing"
            ) from None
        yield
        if not folder.exists():
            lock.unlink()


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise BlockedError(
            f"{folder} cannot be written ({fault.strerror})", "make room there; the same again goes on"
        ) from fault


def discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
