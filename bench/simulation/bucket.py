"""The object store, and Delta tables as what delta-rs is to `lakehouse.commit`: a log of commits, put if absent."""

import json
from contextlib import suppress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Any

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from bench.simulation import stage
from bench.simulation.network import TIMEOUT_SECONDS, Network, silent, unknown
from core.errors import OutcomeUnknownError
from stores.memory import MemoryObjects
from stores.objects import STANDARD, ListedObject, ObjectInfo, sha256_of

_LOST, _SILENT = unknown("the object store"), silent("the object store")


class SimulatedObjects(MemoryObjects):
    """One bucket. A rotten put is acknowledged like any other, and its bytes come back changed."""

    def __init__(self, network: Network, clock: Callable[[], datetime], deleting: Callable[[str], None]) -> None:
        super().__init__(clock)
        self._network = network
        self._deleting = deleting

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
            self._deleting(key)
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
            stage.world().has_rotted = True


@dataclass(frozen=True)
class Version:
    """A table as it is at one version."""

    number: int
    live: Mapping[str, Mapping[str, Any]]
    transactions: Mapping[str, int]


class SimulatedDelta:
    """Has the verbs of `deltalake.DeltaTable` that `lakehouse.commit` calls."""

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.uri = uri
        world = stage.world()
        self._held: Version = world.network.call(f"load {_name(uri)}", lambda: world.lake.latest(uri), None)

    @staticmethod
    def create(uri: str, schema: Any, *, partition_by: Sequence[str], **_: Any) -> None:
        lake, network = stage.world().lake, stage.world().network
        network.call(f"create {_name(uri)}", lambda: lake.create(uri, schema, partition_by), None)

    def version(self) -> int:
        return self._held.number

    def schema(self) -> Any:
        return stage.world().lake.schemas[self.uri]

    def metadata(self) -> Any:
        return stage.world().lake.metadata(self.uri)

    def transaction_version(self, app_id: str) -> int | None:
        return self._held.transactions.get(app_id)

    def get_add_actions(self, flatten: bool) -> pa.Table:
        assert flatten
        return _adds(tuple(stage.world().lake.partitions[self.uri]), json.dumps(list(self._held.live.values())))

    def create_write_transaction(self, actions: Sequence[Any], *_: Any, commit_properties: Any, **__: Any) -> None:
        world = stage.world()
        entries = [_entry(action) for action in actions]
        entries += [{"txn": {"appId": one.app_id, "version": one.version}} for one in commit_properties.app_transactions]
        entries.append({"commitInfo": commit_properties.custom_metadata})
        what = f"commit {_name(self.uri)} {self._held.number + 1}"
        try:
            world.network.call(what, lambda: self._commit(what, entries), _LOST)
        except OutcomeUnknownError as fault:
            raise OSError("the object store did not answer") from fault

    def _commit(self, what: str, entries: list[Any]) -> None:
        world, number = stage.world(), self._held.number + 1
        grave = world.scheduler.current.chance.odd("straggler", world.network.weather.straggler)
        if grave is None:
            world.lake.commit(self.uri, number, entries)
            return
        world.network.tell(f"no answer, done later: {what}")
        world.network.later(0.5 + 20 * grave, lambda: world.lake.commit_late(self.uri, number, entries))
        world.scheduler.sleep(TIMEOUT_SECONDS)
        raise _LOST


class Lake:
    """The logs of all tables, as JSON objects in the bucket. `committed` is told of each commit, before it is seen."""

    def __init__(self, objects: SimulatedObjects, committed: Callable[[str, Version, Sequence[Any]], None]) -> None:
        self._objects = objects
        self._committed = committed
        self.schemas: dict[str, Any] = {}
        self.partitions: dict[str, list[str]] = {}
        self._versions: dict[str, Version] = {}

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
        return any(key == f"{_root(uri)}/{path}" for uri, held in self._versions.items() for path in held.live)

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

    def commit_late(self, uri: str, number: int, entries: list[Any]) -> None:
        with suppress(CommitFailedError):
            self.commit(uri, number, entries)

    def _append(self, uri: str, version: Version, entries: list[Any]) -> None:
        self._committed(uri, version, entries)
        self._versions[uri] = version
        data = "\n".join(json.dumps(entry) for entry in entries).encode()
        self._objects.place(f"{_root(uri)}/_delta_log/{version.number:020d}.json", data)


@dataclass(frozen=True)
class _Metadata:
    partition_columns: list[str]


class PlainSchema:
    """In the place of `deltalake.Schema`: the Arrow schema as it is."""

    @staticmethod
    def from_arrow(schema: Any) -> Any:
        return schema


def _entry(action: Any) -> dict[str, Any]:
    told = {"path": action.path, "size": action.size, "partitionValues": dict(action.partition_values)}
    if type(action).__name__ == "RemoveAction":
        return {"remove": told | {"deletionTimestamp": action.deletion_timestamp}}
    return {"add": told | {"stats": action.stats}}


@cache
def _adds(partition_by: tuple[str, ...], live: str) -> pa.Table:
    found = json.loads(live)
    columns: dict[str, Any] = {
        "path": pa.array([one["path"] for one in found], pa.string()),
        "size_bytes": pa.array([one["size"] for one in found], pa.int64()),
        "num_records": pa.array([json.loads(one["stats"])["numRecords"] for one in found], pa.int64()),
    }
    for name in partition_by:
        columns[f"partition.{name}"] = pa.array([int(one["partitionValues"][name]) for one in found], pa.int32())
    return pa.table(columns)


def _root(uri: str) -> str:
    return uri[uri.index("/lake/") + 1 :]


def _name(uri: str) -> str:
    return _root(uri).removeprefix("lake/")
