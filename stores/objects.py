"""Bytes under keys: the protocol that a directory, S3 and memory share, and the rules all of them keep.

A key is parts joined by "/". Keys that begin with ".firn-" belong to the store itself.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol

from core.archive import Speed
from core.errors import BlockedError, DamagedError, RefusedError
from core.lifecycle import Rule
from core.settings import Objects as ObjectSettings

STANDARD = "STANDARD"
_CHUNK_BYTES = 1024 * 1024
MARKER_KEY = ".firn-bucket"
RESERVED_PREFIX = ".firn-"
# S3's own bound on a key, and what common file systems allow for one name.
MAX_KEY_BYTES = 1024
MAX_PART_BYTES = 255
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


class AlreadyExistsError(RefusedError):
    """A put-if-absent met an object: nothing was written."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object {key} already exists", "read what is there; it was not changed")
        self.key = key


class NotFoundError(RefusedError):
    def __init__(self, key: str) -> None:
        super().__init__(f"object {key} does not exist", "check the key, or the pointer that named it")
        self.key = key


class PreconditionFailedError(RefusedError):
    """The object is no longer the one that the caller looked at: nothing was done to it."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object {key} has changed since it was looked at", "look again, then decide")
        self.key = key


class FrozenObjectError(BlockedError):
    """The object lies in a storage class that must be restored before it can be read."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"object {key} is frozen", "bring its week back (./firn restore WEEK), and read again when it is there"
        )
        self.key = key


class RestoreUnderWayError(BlockedError):
    """The object is being brought back already: this call asked for nothing and cost nothing."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object {key} is being restored already", "wait for it, or ask again at a faster speed")
        self.key = key


@dataclass(frozen=True)
class Capabilities:
    """What a store can; the behaviour suite runs each case where it can be true.

    `durable`: an acknowledged object outlives kill -9. `checks_upload`: bytes that differ from the SHA-256 sent with
    them are refused by the store itself. `archives`: an object in an archive class refuses to be read until it is
    restored. `delays`: a restore takes its time. `refreezes`: a restored copy expires. `attests`: the store answers for
    the SHA-256 of what was put.
    """

    durable: bool
    checks_upload: bool
    archives: bool = False
    delays: bool = False
    refreezes: bool = False
    attests: bool = False


@dataclass(frozen=True)
class Restore:
    """A copy that was asked for and has not expired. Of one under way S3 tells neither time; of one that is there,
    not since when."""

    is_ongoing: bool
    expires_at: datetime | None
    ready_at: datetime | None = None


@dataclass(frozen=True)
class ObjectInfo:
    """`sha256` is hex, over the whole object; `etag` changes when the bytes do.

    `attested`: the SHA-256 is the store's own finding, or kept by it as the checksum of the upload, and not merely a
    note of ours. `sha256` is empty where there is no such thing and the object is frozen, so that nobody can look.
    """

    key: str
    size_bytes: int
    sha256: str
    etag: str
    storage_class: str
    modified_at: datetime
    attested: bool = False
    restore: Restore | None = None


@dataclass(frozen=True)
class ListedObject:
    """What a listing tells without looking into each object."""

    key: str
    size_bytes: int
    storage_class: str
    modified_at: datetime


class Objects(Protocol):
    """One bucket. A write whose answer was lost raises OutcomeUnknownError; a read without an answer, BlockedError."""

    @property
    def capabilities(self) -> Capabilities: ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False, storage_class: str = STANDARD) -> ObjectInfo: ...

    def put_file(
        self, key: str, file: IO[bytes], *, if_absent: bool = False, storage_class: str = STANDARD
    ) -> ObjectInfo:
        """All of `file`, from its beginning on; it stays open."""
        ...

    def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
        """A range comes back shorter, or empty, when the object ends first; a whole object is verified.

        FrozenObjectError for an object in an archive class that has no restored copy now.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Works for frozen objects too."""
        ...

    def attest(self, key: str) -> ObjectInfo | None:
        """As `head`, with the SHA-256 of the bytes as they lie there now, wherever the store can take it itself."""
        ...

    def restore(self, key: str, speed: Speed, days: int) -> ObjectInfo:
        """Asks for a readable copy that stays for `days` from when it is ready, to the midnight (UTC) that follows.

        Of a copy that is there it puts the end off, and never forward. While one is under way it is a
        RestoreUnderWayError, unless `speed` is a faster one: that overtakes, for the days first asked for. RefusedError
        for what is in no archive class, or for a speed that its class does not offer.
        """
        ...

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Sorted by the UTF-8 bytes of the key; the prefix need not end at a part."""
        ...

    def delete(self, key: str, *, if_etag: str | None = None) -> None:
        """Without `if_etag` a missing object is no error; with it, it is a NotFoundError."""
        ...

    def lifecycle(self) -> Sequence[Rule]:
        """The rules by which the store takes objects away by itself; none where it has no such thing."""
        ...

    def settle(self, key: str) -> None:
        """Makes durable what another engine wrote under the key; a no-op where the store acknowledges durably."""
        ...


@dataclass(frozen=True)
class Place:
    """Where the objects of one region lie: a bucket and, for the directory store, the directory that is that bucket."""

    bucket: str
    directory: Path | None = None


def place(settings: ObjectSettings, region: str) -> Place:
    """`file:DIR` gives DIR/firn-<region>; `s3://prefix` gives the bucket prefix + region."""
    scheme, _, rest = settings.url.partition(":")
    if scheme == "file" and rest:
        bucket = f"firn-{region}"
        return Place(bucket, Path(rest).absolute() / bucket)
    prefix = rest.removeprefix("//")
    if scheme == "s3" and prefix and "/" not in prefix:
        return Place(prefix + region)
    raise RefusedError(
        f"objects.url {settings.url!r} is neither a directory nor a bucket prefix", "write file:DIR or s3://prefix-"
    )


def check_key(key: str) -> str:
    """Raises RefusedError for a key that some backend could not hold, or that would leave the bucket."""
    parts = key.split("/")
    fault = (
        any(part in ("", ".", "..") or len(part.encode()) > MAX_PART_BYTES for part in parts)
        or len(key.encode()) > MAX_KEY_BYTES
        or _FORBIDDEN.search(key) is not None
        or (parts[0].startswith(RESERVED_PREFIX) and key != MARKER_KEY)
    )
    if fault:
        raise RefusedError(
            f"{key!r} cannot be an object key", "use parts joined by single slashes, none of them '.', '..' or .firn-…"
        )
    return key


def is_reserved(key: str) -> bool:
    return key.startswith(RESERVED_PREFIX)


def check_range(start: int | None, length: int | None) -> tuple[int, int | None]:
    """Returns (start, length or None for "to the end")."""
    if (start is not None and start < 0) or (length is not None and length < 0):
        raise RefusedError("a byte range cannot be negative", "give a start and a length of at least 0")
    return start or 0, length


def changed_bytes(key: str) -> DamagedError:
    return DamagedError(f"object {key} is not what was written: its SHA-256 differs", "restore it from its source")


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
