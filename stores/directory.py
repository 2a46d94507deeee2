"""Objects as plain files of one directory: durable over kill -9, and open to engines that read files themselves.

What is not in the bytes (storage class, SHA-256) is a user attribute of the file, set before the file appears under its
key, so that data and attributes appear at once. A file that another engine wrote has none: its hash is taken when asked
for, and its class is STANDARD. The restore that a frozen object was asked for is one more attribute, replaced whole, so
that a killed process leaves the old one or the new.
"""

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import IO

from core.archive import Speed
from core.errors import RefusedError, no_space
from core.lifecycle import Rule
from stores import restores
from stores.objects import (
    STANDARD,
    AlreadyExistsError,
    Capabilities,
    ListedObject,
    NotFoundError,
    ObjectInfo,
    PreconditionFailedError,
    changed_bytes,
    check_key,
    check_range,
    is_reserved,
    sha256_of,
)

_SHA256 = "user.firn.sha256"
_STORAGE_CLASS = "user.firn.storage_class"
_RESTORE = "user.firn.restore"
_TEMPORARY = ".firn-temporary"
_LOCK = ".firn-lock"
_CHUNK_BYTES = 1024 * 1024


def real_time() -> datetime:
    return datetime.now(UTC)


class DirectoryObjects:
    """One bucket in `directory`, made if it is missing; temporary files of dead writers are swept on opening.

    Restores are ready and expire by `clock`; `modified_at` is the file's own.
    """

    def __init__(self, directory: Path, clock: Callable[[], datetime] = real_time) -> None:
        self._clock = clock
        self._root = directory.absolute()
        self._temporary = self._root / _TEMPORARY
        self._temporary.mkdir(parents=True, exist_ok=True)
        (self._root / _LOCK).touch()
        _sync_folder(self._root)
        _sync_folder(self._root.parent)
        with self._writing() as probe:  # as any writer's, or another opener's sweep would take it away
            _require_attributes(probe, self._root)
        self._sweep()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(durable=True, checks_upload=False, archives=True, delays=True, refreezes=True, attests=True)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, storage_class: str = STANDARD) -> ObjectInfo:
        with self._writing() as file:
            file.write(data)
            return self._publish(file, key, sha256_of(data), if_absent, storage_class)

    def put_file(
        self, key: str, file: IO[bytes], *, if_absent: bool = False, storage_class: str = STANDARD
    ) -> ObjectInfo:
        digest = hashlib.sha256()
        file.seek(0)
        with self._writing() as ours:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                ours.write(chunk)
            return self._publish(ours, key, digest.hexdigest(), if_absent, storage_class)

    def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
        first, count = check_range(start, length)
        with self._reading(key) as file:
            restores.check_readable(key, _storage_class(file), _asked(file), self._clock())
            if start is not None or length is not None:
                file.seek(first)
                return file.read() if count is None else file.read(count)
            data, written = file.read(), _attribute(file.fileno(), _SHA256)
        if written is not None and written != sha256_of(data):
            raise changed_bytes(key)
        return data

    def head(self, key: str) -> ObjectInfo | None:
        """For a file that another engine wrote this reads the whole file."""
        try:
            with self._reading(key) as file:
                return self._info(key, file, _sha256(file))
        except NotFoundError:
            return None

    def attest(self, key: str) -> ObjectInfo | None:
        """Reads the whole file, frozen or not: that it may not be read is a rule for others."""
        try:
            with self._reading(key) as file:
                return self._info(key, file, hashlib.file_digest(file, "sha256").hexdigest())
        except NotFoundError:
            return None

    def restore(self, key: str, speed: Speed, days: int) -> ObjectInfo:
        with self._locked(fcntl.LOCK_EX), self._reading(key) as file:
            asked = restores.ask(key, _storage_class(file), _asked(file), speed, days, self._clock())
            os.setxattr(file.fileno(), _RESTORE, asked.as_text().encode())
            os.fsync(file.fileno())
            return self._info(key, file, _sha256(file))

    def list(self, prefix: str) -> Iterator[ListedObject]:
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        for key, entry in _walk(self._root / folder, f"{folder}/" if folder else ""):
            if key.startswith(prefix) and not is_reserved(key):
                # Gone since the folder was read: as if it had been deleted before the listing.
                with suppress(FileNotFoundError):
                    status = entry.stat()
                    storage_class = _attribute(entry.path, _STORAGE_CLASS) or STANDARD
                    yield ListedObject(key, status.st_size, storage_class, _instant(status.st_mtime))

    def delete(self, key: str, *, if_etag: str | None = None) -> None:
        path = self._path(key)
        with self._locked(fcntl.LOCK_EX):
            if if_etag is not None:
                info = self.head(key)
                if info is None:
                    raise NotFoundError(key)
                if info.etag != if_etag:
                    raise PreconditionFailedError(key)
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
                _sync_folder(path.parent)

    def lifecycle(self) -> Sequence[Rule]:
        return ()

    def settle(self, key: str) -> None:
        with self._reading(key) as file:
            os.fsync(file.fileno())
        for folder in self._path(key).parents:
            _sync_folder(folder)
            if folder == self._root:
                break

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    @contextmanager
    def _locked(self, mode: int) -> Iterator[None]:
        """Puts share the lock; a delete, a restore and a sweep hold it alone."""
        with (self._root / _LOCK).open("rb") as lock:
            fcntl.flock(lock, mode)
            yield

    @contextmanager
    def _reading(self, key: str) -> Iterator[BufferedReader]:
        try:
            file = self._path(key).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFoundError(key) from None
        with file:
            yield file

    @contextmanager
    def _writing(self) -> Iterator[IO[bytes]]:
        """A temporary file, locked while its writer lives: that is how a sweep tells the dead from the slow."""
        with self._locked(fcntl.LOCK_SH):
            file = (self._temporary / secrets.token_hex(16)).open("xb")
            fcntl.flock(file, fcntl.LOCK_EX)
        with file:
            try:
                yield file
            except OSError as fault:
                if full := no_space(fault, f"bucket {self._root.name}"):
                    raise full from fault
                raise
            finally:
                Path(file.name).unlink(missing_ok=True)

    def _publish(self, file: IO[bytes], key: str, sha256: str, if_absent: bool, storage_class: str) -> ObjectInfo:
        path = self._path(key)
        os.setxattr(file.fileno(), _SHA256, sha256.encode())
        os.setxattr(file.fileno(), _STORAGE_CLASS, storage_class.encode())
        file.flush()
        os.fsync(file.fileno())
        try:
            self._make_folder(path.parent)
            with self._locked(fcntl.LOCK_SH):
                (os.link if if_absent else os.replace)(file.name, path)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as fault:
            if isinstance(fault, FileExistsError) and path.is_file():
                raise AlreadyExistsError(key) from None
            raise _key_is_taken(key) from None
        _sync_folder(path.parent)
        return self._info(key, file, sha256)

    def _info(self, key: str, file: IO[bytes], sha256: str) -> ObjectInfo:
        status, restore = os.fstat(file.fileno()), restores.seen(_asked(file), self._clock())
        modified_at = _instant(status.st_mtime)
        return ObjectInfo(key, status.st_size, sha256, sha256, _storage_class(file), modified_at, True, restore)

    def _make_folder(self, folder: Path) -> None:
        """Alone, so that no other writer puts into a folder that is not durable yet: it waits for the lock first."""
        if folder.is_dir():
            return
        with self._locked(fcntl.LOCK_EX):
            missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
            for parent in reversed(missing):
                parent.mkdir()
                _sync_folder(parent.parent)

    def _sweep(self) -> None:
        with self._locked(fcntl.LOCK_EX):
            for left in self._temporary.iterdir():
                with suppress(FileNotFoundError, BlockingIOError), left.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()


def _key_is_taken(key: str) -> RefusedError:
    return RefusedError(
        f"object {key} cannot be made: one of the two names would be both an object and a folder",
        "choose a key that neither continues nor begins another",
    )


def _require_attributes(probe: IO[bytes], root: Path) -> None:
    try:
        os.setxattr(probe.fileno(), _SHA256, b"probe")
    except OSError as fault:
        if fault.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
        raise RefusedError(
            f"the file system of {root} keeps no user attributes, where storage class and SHA-256 belong",
            "point objects.url at a file system with them (ext4, xfs, btrfs, zfs) or at S3",
        ) from None


def _attribute(file: int | str, name: str) -> str | None:
    try:
        return os.getxattr(file, name).decode()
    except OSError as fault:
        if fault.errno == errno.ENODATA:
            return None
        raise


def _sha256(file: BufferedReader) -> str:
    return _attribute(file.fileno(), _SHA256) or hashlib.file_digest(file, "sha256").hexdigest()


def _storage_class(file: IO[bytes]) -> str:
    return _attribute(file.fileno(), _STORAGE_CLASS) or STANDARD


def _asked(file: IO[bytes]) -> restores.Asked | None:
    return restores.from_text(_attribute(file.fileno(), _RESTORE))


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files below in the order of their whole keys: a folder sorts as its name with a slash."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(
                ((entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in found),
                key=lambda named: os.fsencode(named[0]),
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, entry in entries:
        if name.endswith("/"):
            yield from _walk(Path(entry.path), prefix + name)
        else:
            yield prefix + name, entry


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
