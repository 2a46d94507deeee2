"""The one place that commits to Delta.

delta-rs accepts a second commit of one app id, and a remove of a path that is dead; so what may be committed is checked
here, against the version that the commit is then made from. Retries of delta-rs are off: a commit lands at exactly the
next version or not at all, and each new try begins with the checks.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from core.errors import BlockedError, OutcomeUnknownError, RefusedError
from core.steps import irreversible
from lakehouse.deltalog import Actions, actions_of, checkpoint_key, commit_key, hint_key, require_legible
from lakehouse.tables import TableRef, Value
from stores.objects import NotFoundError, ObjectInfo

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
class PartFile:
    """`path` is relative to the table root; `place` holds the values of the table's partition columns. `replaces` is
    empty for the first file of a place."""

    path: str
    size_bytes: int
    rows: int
    place: tuple[Value, ...]
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class LiveFile:
    path: str
    size_bytes: int
    rows: int
    place: tuple[Value, ...]


def create_table(table: TableRef) -> None:
    """Harmless to repeat and to race; RefusedError if a table with other columns is there."""
    fault: Exception | None = None
    try:
        DeltaTable.create(
            table.uri,
            Schema.from_arrow(table.schema),
            mode="error",
            partition_by=list(table.partition_by),
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
    columns, cut = there.schema(), there.metadata().partition_columns
    if columns != Schema.from_arrow(table.schema) or cut != list(table.partition_by):
        raise RefusedError(f"table {table.root} has other columns than ours", "migrate it before anything is written")


def _made(table: TableRef, fault: Exception | None) -> DeltaTable:
    try:
        return _load(table)
    except RefusedError:
        raise BlockedError(f"table {table.root} could not be made", "check the object store, then run again") from fault


def live_files(table: TableRef, first: Value | None = None) -> dict[str, LiveFile]:
    """By path relative to the root; `first` is a value of the first partition column, such as a week."""
    return _live(table, _load(table), None if first is None else [first])


def live_version(table: TableRef) -> tuple[dict[str, LiveFile], int]:
    """As `live_files`, with the version that they are live in: both of one load, so that no commit comes between."""
    loaded = _load(table)
    return _live(table, loaded, None), loaded.version()


def latest_version(table: TableRef) -> int:
    return _load(table).version()


def transaction_version(table: TableRef, app_id: str) -> int | None:
    """The number of the newest commit of `app_id`."""
    return _load(table).transaction_version(app_id)


def checkpoint(table: TableRef) -> int:
    """The version that it holds; made only when asked, for a commit never writes one. Durable when this returns."""
    loaded = _load(table)
    try:
        loaded.create_checkpoint()
    except (DeltaError, OSError) as fault:
        raise BlockedError(
            f"no checkpoint of table {table.root} could be made", "check the object store, then run again"
        ) from fault
    for key in (checkpoint_key(table, loaded.version()), hint_key(table)):
        table.objects.settle(key)
    return loaded.version()


@irreversible("lake: committed")
def commit(
    table: TableRef,
    parts: Sequence[PartFile],
    *,
    app_id: str,
    number: int,
    attempt_id: str,
    now: datetime,
    removes: Sequence[str] = (),
) -> int:
    """Returns the Delta version that holds the parts; the same call again returns the same version.

    `removes` are live paths that nothing replaces. `number` grows with each commit of `app_id`; `now` dates the
    removals. SourceChangedError and StaleCommitError mean that nothing was committed; OutcomeUnknownError that the
    same call must be made again.
    """
    _check_parts(table, parts, removes)
    return _committed(table, parts, removes, (app_id, number, attempt_id), now)


@irreversible("lake: committed")
def fence(table: TableRef, *, app_id: str, number: int, attempt_id: str, now: datetime) -> int:
    """A commit that changes no file. No commit of `app_id` with a lower number can land any more, not even one that is
    on its way already. Called again, and with the same faults, as `commit`."""
    return _committed(table, (), (), (app_id, number, attempt_id), now)


def _committed(
    table: TableRef, parts: Sequence[PartFile], removes: Sequence[str], facts: tuple[str, int, str], now: datetime
) -> int:
    app_id, number, attempt_id = facts
    adds = [_add(table, part, _stored(table, part)) for part in parts]
    properties = CommitProperties({_ATTEMPT: attempt_id}, 0, [Transaction(app_id, number, None)])
    doubts = 0
    for _ in range(MAX_TRIES):
        loaded = _load(table, doubts > 0)
        committed = loaded.transaction_version(app_id)
        if committed is not None and committed >= number:
            return _version_of(table, loaded.version(), app_id, number, attempt_id)
        dead = [_remove(table, file, now) for file in _check_sources(table, loaded, parts, removes)]
        try:
            _write(table, loaded, [*adds, *dead], properties)
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


def _write(
    table: TableRef, loaded: DeltaTable, actions: list[AddAction | RemoveAction], properties: CommitProperties
) -> None:
    loaded.create_write_transaction(
        actions,
        "append",
        Schema.from_arrow(table.schema),
        list(table.partition_by),
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
        require_legible(table)
        raise BlockedError(f"table {table.root} cannot be loaded", "check the object store, then run again") from fault


def _live(table: TableRef, loaded: DeltaTable, firsts: Collection[Value] | None) -> dict[str, LiveFile]:
    actions = pa.table(loaded.get_add_actions(flatten=True))
    if not actions.num_rows:
        return {}
    columns = [f"partition.{name}" for name in table.partition_by]
    if firsts is not None:
        first = actions[columns[0]]
        actions = actions.filter(pc.is_in(first, pa.array(sorted(firsts, key=str), first.type)))
    facts = [actions[name].to_pylist() for name in ("path", "size_bytes", "num_records")]
    places = zip(*(actions[name].to_pylist() for name in columns), strict=True)
    return {path: LiveFile(path, size, rows, place) for path, size, rows, place in zip(*facts, places, strict=True)}


def _check_parts(table: TableRef, parts: Sequence[PartFile], removes: Sequence[str]) -> None:
    """Faults of the caller, whatever the table holds."""
    pinned = {path for part in parts for path in part.replaces} | set(removes)
    strays = [part.path for part in parts if not _is_in(table, part)]
    is_empty, is_crowded = not parts and not removes, len({part.place for part in parts}) < len(parts)
    if is_empty or is_crowded or strays or pinned & {part.path for part in parts}:
        raise RefusedError(
            "a commit needs one new file for each partition it touches, under that partition's path",
            "derive the parts anew",
        )


def _is_in(table: TableRef, part: PartFile) -> bool:
    """Whether its path names its place; numbers may be padded there."""
    named = dict(folder.partition("=")[::2] for folder in part.path.split("/")[:-1])
    wanted = dict(zip(table.partition_by, part.place, strict=True))
    found = {name: int(value) if isinstance(wanted.get(name), int) else value for name, value in named.items()}
    return list(found.items()) == list(wanted.items())


def _check_sources(
    table: TableRef, loaded: DeltaTable, parts: Sequence[PartFile], removes: Sequence[str]
) -> list[LiveFile]:
    """The live files that the commit removes; afterwards each place that it adds to has one live file."""
    live = _live(table, loaded, None if removes else {part.place[0] for part in parts})
    pinned = sorted({path for part in parts for path in part.replaces} | set(removes))
    gone = [path for path in pinned if path not in live]
    if gone:
        raise _source_changed(table, f"{gone[0]} is not live any more")
    staying = {file.place: path for path, file in live.items() if path not in pinned}
    for part in parts:
        if live_path := staying.get(part.place):
            raise _source_changed(table, f"{live_path} is live, and {part.path} does not replace it")
    return [live[path] for path in pinned]


def _stored(table: TableRef, part: PartFile) -> ObjectInfo:
    info = table.objects.head(f"{table.root}/{part.path}")
    if info is None or info.size_bytes != part.size_bytes:
        found = "is missing" if info is None else f"has {info.size_bytes} bytes, not {part.size_bytes}"
        raise RefusedError(f"data file {table.root}/{part.path} {found}", "write the file before it is committed")
    return info


def _add(table: TableRef, part: PartFile, info: ObjectInfo) -> AddAction:
    return AddAction(
        path=part.path,
        size=part.size_bytes,
        partition_values=dict(table.partition(part.place)),
        modification_time=_milliseconds(info.modified_at),
        data_change=True,
        stats=json.dumps({"numRecords": part.rows}),
    )


def _remove(table: TableRef, file: LiveFile, now: datetime) -> RemoveAction:
    values: dict[str, str | None] = dict(table.partition(file.place))
    return RemoveAction(file.path, True, _milliseconds(now), file.size_bytes, values)


def _version_of(table: TableRef, latest: int, app_id: str, number: int, attempt_id: str) -> int:
    """Walks the log back to the commit with this number; StaleCommitError unless it is this attempt's."""
    for version in range(latest, -1, -1):
        try:
            actions = actions_of(table, version)
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
        return _attempt_of(actions_of(table, version)) == attempt_id
    except NotFoundError:
        return False


def _attempt_of(actions: Actions) -> str | None:
    return next((info.get(_ATTEMPT) for info in actions.get("commitInfo", [])), None)


def _settled(table: TableRef, version: int) -> int:
    table.objects.settle(commit_key(table, version))
    return version


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _source_changed(table: TableRef, how: str) -> SourceChangedError:
    return SourceChangedError(f"table {table.root}: {how}", "derive the part anew from what is live")


def _unknown(table: TableRef) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"whether the commit to table {table.root} happened is unknown",
        "run the same again: it looks before it commits",
    )
