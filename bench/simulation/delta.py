"""What delta-rs is to `lakehouse.commit`, over the logs in the bucket."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa

from bench.simulation import stage
from bench.simulation.bucket import Version, root_of
from bench.simulation.network import TIMEOUT_SECONDS, unknown
from core.errors import OutcomeUnknownError

LATEST_SECONDS = 40.0
# Of those whose commit is late: it is just then that somebody else takes over.
DYING_SHARE = 0.5
# Of those who commit while another commit is under way.
OVERTAKEN_SHARE = 0.5
_LOST = unknown("the object store")


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
        entries += [
            {"txn": {"appId": one.app_id, "version": one.version}} for one in commit_properties.app_transactions
        ]
        entries.append({"commitInfo": commit_properties.custom_metadata})
        what = f"commit {_name(self.uri)} {self._held.number + 1}"
        try:
            world.network.call(what, lambda: self._commit(what, entries), _LOST)
        except OutcomeUnknownError as fault:
            raise OSError("the object store did not answer") from fault

    def _commit(self, what: str, entries: list[Any]) -> None:
        world, number = stage.world(), self._held.number + 1
        chance = world.scheduler.current.chance
        grave = chance.odd("straggler", world.network.weather.late_commit)
        if grave is None:
            if world.lake.is_awaiting(self.uri) and chance.odd("overtaken", OVERTAKEN_SHARE) is not None:
                world.network.tell(f"a late commit lands just before: {what}")
                world.network.later(0.0, lambda: world.lake.land(self.uri))
                world.scheduler.sleep(0.0)
            world.lake.commit(self.uri, number, entries)
            return
        world.network.tell(f"no answer, done later: {what}")
        world.lake.delay(self.uri, number, entries)
        world.network.later(0.5 + LATEST_SECONDS * grave, lambda: world.lake.land(self.uri))
        if chance.odd("kill", DYING_SHARE) is not None:
            world.network.kill(f"it is answered: {what}")
        world.scheduler.sleep(TIMEOUT_SECONDS)
        raise _LOST


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


def _name(uri: str) -> str:
    return root_of(uri).removeprefix("lake/")
