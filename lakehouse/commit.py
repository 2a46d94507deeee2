"""The one place that commits to Delta.

delta-rs accepts a second commit of one app id, and a remove of a path that is dead; so what may be committed is checked
here, against the version that the commit is then made from. Retries of delta-rs are off: a commit lands at exactly the
next version or not at all, and each new try begins with the checks.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from core.errors import BlockedError, OutcomeUnknownError, RefusedError
from core.settings import Objects as ObjectSettings
from lakehouse.paths import partition_path, storage_options, table_root, table_uri
from schemas.tables import CANONICAL
from stores.objects import NotFoundError, ObjectInfo, Objects

PARTITION_BY = ["week", "shard"]
TABLE_SCHEMA = CANONICAL.append(pa.field("week", pa.int32(), nullable=False)).append(
    pa.field("shard", pa.int32(), nullable=False)
)
# Plain enough for every engine; statistics would outlive rows that are erased.
CONFIGURATION: dict[str, str | None] = {
    "delta.enableDeletionVectors": "false",
    "delta.columnMapping.mode": "none",
    "delta.dataSkippingNumIndexedCols": "0",
    "delta.enableExpiredLogCleanup": "false",
}
MAX_TRIES = 100
MAX_DOUBTS = 3
_ATTEMPT = "firn.attempt"
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class SourceChangedError(BlockedError):
    """The files a part was made from are no longer the live ones: derive the parts anew."""


class StaleCommitError(BlockedError):
    """Another attempt has committed this number or a later one of the same unit."""


@dataclass(frozen=True)
class TableRef:
    objects: Objects
    root: str
    uri: str
    options: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class PartFile:
    """Paths are relative to the table root; `replaces` is empty for the first file of a (week, shard)."""

    path: str
    size_bytes: int
    rows: int
    week: int
    shard: int
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class LiveFile:
    path: str
    size_bytes: int
    rows: int
    week: int
    shard: int


def messages_table(objects: Objects, settings: ObjectSettings, region: str, slice_number: int) -> TableRef:
    """Opens nothing; the table need not exist yet. `objects` is the store of the same region."""
    root = table_root(slice_number)
    return TableRef(objects, root, table_uri(settings, region, root), storage_options(settings))


def create_table(table: TableRef) -> None:
    """Harmless to repeat and to race; RefusedError if a table with other columns is there."""
    fault: Exception | None = None
    try:
        DeltaTable.create(
            table.uri,
            Schema.from_arrow(TABLE_SCHEMA),
            mode="error",
            partition_by=PARTITION_BY,
            configuration=CONFIGURATION,
            storage_options=table.options,
            commit_properties=CommitProperties(max_commit_retries=0),
            post_commithook_properties=_NO_HOOKS,
            raise_if_key_not_exists=False,
        )
        _settled(table, 0)
    except (DeltaError, OSError) as raised:
        # It was there, or another made it, or the answer was lost: what counts is what is there now.
        fault = raised
    there = _made(table, fault)
    if there.schema() != Schema.from_arrow(TABLE_SCHEMA) or there.metadata().partition_columns != PARTITION_BY:
        raise RefusedError(f"table {table.root} has other columns than ours", "migrate it before anything is written")


def _made(table: TableRef, fault: Exception | None) -> DeltaTable:
    try:
        return _load(table)
    except RefusedError:
        raise BlockedError(f"table {table.root} could not be made", "check the object store, then run again") from fault


def live_files(table: TableRef, week: int | None = None) -> dict[str, LiveFile]:
    """By path relative to the root."""
    return _live(_load(table), None if week is None else [week])


def latest_version(table: TableRef) -> int:
    return _load(table).version()


def transaction_version(table: TableRef, app_id: str) -> int | None:
    """The number of the newest commit of `app_id`."""
    return _load(table).transaction_version(app_id)


def checkpoint(table: TableRef) -> None:
    """Only when asked: a commit never writes one."""
    _load(table).create_checkpoint()


def commit(
    table: TableRef, parts: Sequence[PartFile], *, app_id: str, number: int, attempt_id: str, now: datetime
) -> int:
    """Returns the Delta version that holds the parts; the same call again returns the same version.

    `number` grows with each commit of `app_id`; `now` dates the removals. SourceChangedError and StaleCommitError mean
    that nothing was committed; OutcomeUnknownError that the same call must be made again.
    """
    _check_parts(parts)
    adds = [_add(part, _stored(table, part)) for part in parts]
    properties = CommitProperties({_ATTEMPT: attempt_id}, 0, [Transaction(app_id, number, None)])
    doubts = 0
    for _ in range(MAX_TRIES):
        loaded = _load(table, doubts > 0)
        committed = loaded.transaction_version(app_id)
        if committed is not None and committed >= number:
            return _version_of(table, loaded.version(), app_id, number, attempt_id)
        removes = [_remove(file, now) for file in _check_sources(table, loaded, parts)]
        try:
            _write(loaded, [*adds, *removes], properties)
        except CommitFailedError:
            continue
        except (DeltaError, OSError) as fault:
            # It may have landed, or may yet: a repeat aims at the same version, so at most one of the two can.
            doubts += 1
            if doubts == MAX_DOUBTS:
                raise _unknown(table) from fault
            continue
        if _is_ours(table, loaded.version() + 1, attempt_id):
            return _settled(table, loaded.version() + 1)
    raise BlockedError(
        f"table {table.root} changed under {MAX_TRIES} tries to commit", "see who else commits, then run the same again"
    )


def _write(loaded: DeltaTable, actions: list[AddAction | RemoveAction], properties: CommitProperties) -> None:
    loaded.create_write_transaction(
        actions,
        "append",
        Schema.from_arrow(TABLE_SCHEMA),
        PARTITION_BY,
        commit_properties=properties,
        post_commithook_properties=_NO_HOOKS,
    )


def _load(table: TableRef, doubtful: bool = False) -> DeltaTable:
    """`doubtful`: a commit of ours may have landed, so that a store that does not answer leaves its outcome unknown."""
    try:
        return DeltaTable(table.uri, storage_options=table.options)
    except TableNotFoundError as fault:
        raise RefusedError(f"table {table.root} does not exist", "create the tables of this region first") from fault
    except (DeltaError, OSError) as fault:
        if doubtful:
            raise _unknown(table) from fault
        raise BlockedError(f"table {table.root} cannot be loaded", "check the object store, then run again") from fault


def _live(loaded: DeltaTable, weeks: Collection[int] | None) -> dict[str, LiveFile]:
    actions = pa.table(loaded.get_add_actions(flatten=True))
    if not actions.num_rows:
        return {}
    if weeks is not None:
        actions = actions.filter(pc.is_in(actions["partition.week"], pa.array(sorted(weeks), pa.int32())))
    names = ("path", "size_bytes", "num_records", "partition.week", "partition.shard")
    rows = zip(*(actions[name].to_pylist() for name in names), strict=True)
    return {row[0]: LiveFile(*row) for row in rows}


def _check_parts(parts: Sequence[PartFile]) -> None:
    """Faults of the caller, whatever the table holds."""
    places = [(part.week, part.shard) for part in parts]
    pinned = {path for part in parts for path in part.replaces}
    strays = [part.path for part in parts if not part.path.startswith(partition_path(part.week, part.shard) + "/")]
    if not parts or len(set(places)) < len(places) or strays or pinned & {part.path for part in parts}:
        raise RefusedError(
            "a commit needs one new file for each (week, shard) it touches, under that partition's path",
            "derive the parts anew",
        )


def _check_sources(table: TableRef, loaded: DeltaTable, parts: Sequence[PartFile]) -> list[LiveFile]:
    """The live files that the parts replace; afterwards each (week, shard) has one live file."""
    live = _live(loaded, {part.week for part in parts})
    pinned = sorted({path for part in parts for path in part.replaces})
    gone = [path for path in pinned if path not in live]
    if gone:
        raise _source_changed(table, f"{gone[0]} is not live any more")
    staying = {(file.week, file.shard): path for path, file in live.items() if path not in pinned}
    for part in parts:
        if live_path := staying.get((part.week, part.shard)):
            raise _source_changed(table, f"{live_path} is live, and {part.path} does not replace it")
    return [live[path] for path in pinned]


def _stored(table: TableRef, part: PartFile) -> ObjectInfo:
    info = table.objects.head(f"{table.root}/{part.path}")
    if info is None or info.size_bytes != part.size_bytes:
        found = "is missing" if info is None else f"has {info.size_bytes} bytes, not {part.size_bytes}"
        raise RefusedError(f"data file {table.root}/{part.path} {found}", "write the file before it is committed")
    return info


def _add(part: PartFile, info: ObjectInfo) -> AddAction:
    return AddAction(
        path=part.path,
        size=part.size_bytes,
        partition_values={"week": str(part.week), "shard": str(part.shard)},
        modification_time=_milliseconds(info.modified_at),
        data_change=True,
        stats=json.dumps({"numRecords": part.rows}),
    )


def _remove(file: LiveFile, now: datetime) -> RemoveAction:
    values: dict[str, str | None] = {"week": str(file.week), "shard": str(file.shard)}
    return RemoveAction(file.path, True, _milliseconds(now), file.size_bytes, values)


def _version_of(table: TableRef, latest: int, app_id: str, number: int, attempt_id: str) -> int:
    """Walks the log back to the commit with this number; StaleCommitError unless it is this attempt's."""
    for version in range(latest, -1, -1):
        try:
            actions = _log(table, version)
        except NotFoundError as fault:
            raise OutcomeUnknownError(
                f"table {table.root} has committed number {number}, and the log that tells whose is cleaned away",
                "look whether the paths of this attempt are live",
            ) from fault
        numbers = [txn["version"] for txn in actions.get("txn", []) if txn["appId"] == app_id]
        if number in numbers and _attempt_of(actions) == attempt_id:
            return _settled(table, version)
        if any(found <= number for found in numbers):
            break
    raise StaleCommitError(
        f"table {table.root}: {app_id} has committed number {number} or a later one by another attempt",
        "read the ledger anew; what this attempt wrote is not in the table",
    )


def _is_ours(table: TableRef, version: int, attempt_id: str) -> bool:
    try:
        return _attempt_of(_log(table, version)) == attempt_id
    except NotFoundError:
        return False


def _log(table: TableRef, version: int) -> dict[str, list[dict[str, Any]]]:
    """The actions of one version by kind."""
    actions: dict[str, list[dict[str, Any]]] = {}
    for line in table.objects.get(_log_key(table, version)).splitlines():
        for kind, action in json.loads(line).items():
            actions.setdefault(kind, []).append(action)
    return actions


def _attempt_of(actions: dict[str, list[dict[str, Any]]]) -> str | None:
    return next((info.get(_ATTEMPT) for info in actions.get("commitInfo", [])), None)


def _settled(table: TableRef, version: int) -> int:
    table.objects.settle(_log_key(table, version))
    return version


def _log_key(table: TableRef, version: int) -> str:
    return f"{table.root}/_delta_log/{version:020d}.json"


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _source_changed(table: TableRef, how: str) -> SourceChangedError:
    return SourceChangedError(f"table {table.root}: {how}", "derive the part anew from what is live")


def _unknown(table: TableRef) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"whether the commit to table {table.root} happened is unknown",
        "run the same again: it looks before it commits",
    )
