"""The stores' protocols in memory: shipped with the product and held to the real ones by the behaviour suites."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from stores.objects import (
    STANDARD,
    AlreadyExistsError,
    Capabilities,
    ListedObject,
    NotFoundError,
    ObjectInfo,
    PreconditionFailedError,
    check_key,
    check_range,
    is_reserved,
    sha256_of,
)


def _real_time() -> datetime:
    return datetime.now(UTC)


class MemoryObjects:
    """One bucket in a dict; safe between threads. `clock` stamps `modified_at`, as a store's own clock would."""

    def __init__(self, clock: Callable[[], datetime] = _real_time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, tuple[ObjectInfo, bytes]] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(durable=False, checks_upload=False)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, storage_class: str = STANDARD) -> ObjectInfo:
        data, digest = bytes(data), sha256_of(data)
        info = ObjectInfo(check_key(key), len(data), digest, digest, storage_class, self._clock())
        with self._lock:
            if if_absent and key in self._held:
                raise AlreadyExistsError(key)
            self._held[key] = (info, data)
        return info

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, storage_class: str = STANDARD) -> ObjectInfo:
        return self.put(key, path.read_bytes(), if_absent=if_absent, storage_class=storage_class)

    def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
        first, count = check_range(start, length)
        held = self._held.get(check_key(key))
        if held is None:
            raise NotFoundError(key)
        return held[1][first:] if count is None else held[1][first : first + count]

    def head(self, key: str) -> ObjectInfo | None:
        held = self._held.get(check_key(key))
        return held[0] if held else None

    def list(self, prefix: str) -> Iterator[ListedObject]:
        with self._lock:
            infos = [info for key, (info, _) in self._held.items() if key.startswith(prefix) and not is_reserved(key)]
        for info in sorted(infos, key=lambda info: info.key.encode()):
            yield ListedObject(info.key, info.size_bytes, info.storage_class, info.modified_at)

    def delete(self, key: str, *, if_etag: str | None = None) -> None:
        check_key(key)
        with self._lock:
            held = self._held.get(key)
            if if_etag is not None and held is None:
                raise NotFoundError(key)
            if if_etag is not None and held is not None and held[0].etag != if_etag:
                raise PreconditionFailedError(key)
            self._held.pop(key, None)

    def settle(self, key: str) -> None:
        check_key(key)
