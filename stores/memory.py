"""The stores' protocols in memory: shipped with the product and held to the real ones by the behaviour suites."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import IO

from core.archive import Speed
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
    check_key,
    check_range,
    is_reserved,
    sha256_of,
)


def _real_time() -> datetime:
    return datetime.now(UTC)


class MemoryObjects:
    """One bucket in a dict; safe between threads. `clock` stamps `modified_at` and times restores, as a store's own
    clock would."""

    def __init__(self, clock: Callable[[], datetime] = _real_time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, tuple[ObjectInfo, bytes]] = {}
        self._asked: dict[str, restores.Asked] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            durable=False, checks_upload=False, archives=True, delays=True, refreezes=True, attests=True
        )

    def put(self, key: str, data: bytes, *, if_absent: bool = False, storage_class: str = STANDARD) -> ObjectInfo:
        data, digest = bytes(data), sha256_of(data)
        info = ObjectInfo(check_key(key), len(data), digest, digest, storage_class, self._clock(), attested=True)
        with self._lock:
            if if_absent and key in self._held:
                raise AlreadyExistsError(key)
            self._held[key] = (info, data)
            self._asked.pop(key, None)
        return info

    def put_file(
        self, key: str, file: IO[bytes], *, if_absent: bool = False, storage_class: str = STANDARD
    ) -> ObjectInfo:
        file.seek(0)
        return self.put(key, file.read(), if_absent=if_absent, storage_class=storage_class)

    def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
        first, count = check_range(start, length)
        with self._lock:
            info, data = self._found(key)
            restores.check_readable(key, info.storage_class, self._asked.get(key), self._clock())
        return data[first:] if count is None else data[first : first + count]

    def head(self, key: str) -> ObjectInfo | None:
        with self._lock:
            return self._told(key) if check_key(key) in self._held else None

    def attest(self, key: str) -> ObjectInfo | None:
        return self.head(key)

    def restore(self, key: str, speed: Speed, days: int) -> ObjectInfo:
        with self._lock:
            info, _ = self._found(key)
            asked, now = self._asked.get(key), self._clock()
            self._asked[key] = restores.ask(key, info.storage_class, asked, speed, days, now)
            return self._told(key)

    def _found(self, key: str) -> tuple[ObjectInfo, bytes]:
        if check_key(key) not in self._held:
            raise NotFoundError(key)
        return self._held[key]

    def _told(self, key: str) -> ObjectInfo:
        return replace(self._held[key][0], restore=restores.seen(self._asked.get(key), self._clock()))

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

    def lifecycle(self) -> Sequence[Rule]:
        return ()

    def settle(self, key: str) -> None:
        check_key(key)
