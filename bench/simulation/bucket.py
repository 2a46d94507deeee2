"""The object store, and in it the logs of Delta tables: one commit per version, put if absent."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from bench.simulation.network import Network, silent, unknown
from bench.simulation.watch import Watch
from stores.memory import MemoryObjects
from stores.objects import STANDARD, ListedObject, ObjectInfo, sha256_of

_LOST, _SILENT = unknown("the object store"), silent("the object store")


class SimulatedObjects(MemoryObjects):
    """One bucket. A rotten put is acknowledged like any other, and its bytes come back changed."""

    def __init__(self, network: Network, clock: Callable[[], datetime], watch: Watch) -> None:
        super().__init__(clock)
        self._network = network
        self._watch = watch

    def put(self, key: str, data: bytes, *, if_absent: bool = False, storage_class: str = STANDARD) -> ObjectInfo:
        def effect() -> ObjectInfo:
            info = MemoryObjects.put(self, key, data, if_absent=if_absent, storage_class=storage_class)
            self._maybe_rot(key, data)
            return info

        return self._network.call(f"put {key}", effect, _LOST)

    def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
        return self._network.call(f"get {key}", lambda: MemoryObjects.get(self, key, start, length), _SILENT)

    def head(self, key: str) -> ObjectInfo | None:
        return self._network.call(f"look at {key}", lambda: MemoryObjects.head(self, key), _SILENT)

    def attest(self, key: str) -> ObjectInfo | None:
        """The bytes as they lie there now."""
        return self._network.call(f"attest {key}", lambda: self._attested(key), _SILENT)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        yield from self._network.call(f"list {prefix}", lambda: list(MemoryObjects.list(self, prefix)), _SILENT)

    def delete(self, key: str, *, if_etag: str | None = None) -> None:
        def effect() -> None:
            self._watch.object_deleted(key)
            MemoryObjects.delete(self, key, if_etag=if_etag)

        self._network.call(f"delete {key}", effect, _LOST)

    def peek(self, key: str) -> bytes | None:
        """For whoever watches: no call, no restore needed."""
        return self._held[key][1] if key in self._held else None

    def place(self, key: str, data: bytes) -> None:
        MemoryObjects.put(self, key, data)

    def _attested(self, key: str) -> ObjectInfo | None:
        info = MemoryObjects.head(self, key)
        return info and replace(info, sha256=sha256_of(self._held[key][1]))

    def _maybe_rot(self, key: str, data: bytes) -> None:
        if not key.startswith(("lake/messages/", "frozen/")):
            return
        chance = self._network.scheduler.current.chance
        if chance.odd("rot", self._network.weather.rot) is not None:
            self._network.tell(f"what was put rots: {key}")
            self._held[key] = (self._held[key][0], data[:-1] + bytes((data[-1] ^ 1,)))
            self._watch.rotted()


@dataclass(frozen=True)
class Version:
    """A table as it is at one version."""

    number: int
    live: Mapping[str, Mapping[str, Any]]
    transactions: Mapping[str, int]


class Lake:
    """The logs of all tables, as JSON objects in the bucket."""

    def __init__(self, objects: SimulatedObjects, watch: Watch) -> None:
        self._objects = objects
        self._watch = watch
        self.schemas: dict[str, Any] = {}
        self.partitions: dict[str, list[str]] = {}
        self._versions: dict[str, Version] = {}
        self._late: dict[str, list[tuple[int, list[Any]]]] = {}

    def create(self, uri: str, schema: Any, partition_by: Sequence[str]) -> None:
        if uri in self._versions:
            raise DeltaError("a table is there already")
        self.schemas[uri], self.partitions[uri] = schema, list(partition_by)
        self._append(uri, Version(0, {}, {}), [{"commitInfo": {}}])

    def latest(self, uri: str) -> Version:
        if uri not in self._versions:
            raise TableNotFoundError(uri)
        return self._versions[uri]

    def holds(self, key: str) -> bool:
        """Whether a table needs it."""
        return any(key == f"{root_of(uri)}/{path}" for uri, held in self._versions.items() for path in held.live)

    def metadata(self, uri: str) -> Any:
        return _Metadata(self.partitions[uri])

    def commit(self, uri: str, number: int, entries: list[Any]) -> None:
        before = self._versions[uri]
        if number != before.number + 1:
            raise CommitFailedError("another commit has that version")
        live, transactions = dict(before.live), dict(before.transactions)
        for entry in entries:
            for kind, action in entry.items():
                if kind == "remove":
                    live.pop(action["path"], None)
                if kind == "add":
                    live[action["path"]] = action
                if kind == "txn":
                    transactions[action["appId"]] = action["version"]
        self._append(uri, Version(number, live, transactions), entries)

    def delay(self, uri: str, number: int, entries: list[Any]) -> None:
        """It is on its way, and lands when somebody lets it."""
        self._late.setdefault(uri, []).append((number, entries))

    def is_awaiting(self, uri: str) -> bool:
        return bool(self._late.get(uri))

    def land(self, uri: str) -> None:
        for number, entries in self._late.pop(uri, []):
            with suppress(CommitFailedError):
                self.commit(uri, number, entries)

    def _append(self, uri: str, version: Version, entries: list[Any]) -> None:
        self._watch.committed(uri, version, entries)
        self._versions[uri] = version
        data = "\n".join(json.dumps(entry) for entry in entries).encode()
        self._objects.place(f"{root_of(uri)}/_delta_log/{version.number:020d}.json", data)


@dataclass(frozen=True)
class _Metadata:
    partition_columns: list[str]


def root_of(uri: str) -> str:
    """Of a table, in the bucket."""
    return uri[uri.index("/lake/") + 1 :]
