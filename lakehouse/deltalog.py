"""The log of a Delta table as files: what it says was removed, and which of it nobody needs any more.

    0 … 41   gone: the checkpoint of 42 says the same, as replaying them has shown
    42       the newest checkpoint that is itself older than the retention
    43 … 97  stay

Engines begin at the checkpoint that `_last_checkpoint` names or at a later one, so nothing goes that it might need.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DamagedError
from lakehouse.tables import TableRef
from stores.objects import ListedObject, NotFoundError

Actions = dict[str, list[dict[str, Any]]]
_NAME = re.compile(r"(\d{20})(\.checkpoint\.parquet|\.json)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Log:
    """Commits and checkpoints by version; `hint` is the version of the checkpoint that engines look for first."""

    commits: Mapping[int, ListedObject] = field(default_factory=dict)
    checkpoints: Mapping[int, ListedObject] = field(default_factory=dict)
    hint: int | None = None

    @property
    def since_checkpoint(self) -> int:
        """Commits that every opening of the table has to read one by one."""
        newest = max(self.checkpoints, default=-1)
        return sum(version > newest for version in self.commits)


@dataclass(frozen=True)
class Held:
    """What a table is at one version: its live paths, and the number of the newest commit of each writer."""

    paths: frozenset[str]
    numbers: Mapping[str, int]


def folder(table: TableRef) -> str:
    return f"{table.root}/_delta_log/"


def commit_key(table: TableRef, version: int) -> str:
    return f"{folder(table)}{version:020d}.json"


def checkpoint_key(table: TableRef, version: int) -> str:
    return f"{folder(table)}{version:020d}.checkpoint.parquet"


def hint_key(table: TableRef) -> str:
    return f"{folder(table)}_last_checkpoint"


def log_of(table: TableRef) -> Log:
    """Without commits: the table does not exist."""
    commits: dict[int, ListedObject] = {}
    checkpoints: dict[int, ListedObject] = {}
    for one in table.objects.list(folder(table)):
        if name := _NAME.fullmatch(one.key.rpartition("/")[2]):
            (commits if name[2] == ".json" else checkpoints)[int(name[1])] = one
    return Log(commits, checkpoints, _hint(table) if checkpoints else None)


def actions_of(table: TableRef, version: int) -> Actions:
    """What one commit says, by kind of action."""
    actions: Actions = {}
    try:
        for line in table.objects.get(commit_key(table, version)).splitlines():
            for kind, action in json.loads(line).items():
                actions.setdefault(kind, []).append(action)
    except (ValueError, AttributeError) as fault:
        raise _illegible(table, f"commit {version}", commit_key(table, version)) from fault
    if not actions:
        raise _illegible(table, f"commit {version}", commit_key(table, version))
    return actions


def require_legible(table: TableRef) -> None:
    """DamagedError unless all that an engine reads to open the table is there and can be read."""
    log = log_of(table)
    start = max(log.checkpoints, default=None)
    if start is not None:
        _held_by(table, start)
    for version in range(0 if start is None else start + 1, max(log.commits, default=-1) + 1):
        if version not in log.commits:
            raise DamagedError(
                f"the log of table {table.root} lacks commit {version}", _bring(commit_key(table, version))
            )
        actions_of(table, version)


def _illegible(table: TableRef, what: str, key: str) -> DamagedError:
    return DamagedError(f"{what} in the log of table {table.root} is damaged", _bring(key))


def _bring(key: str) -> str:
    return f"bring {key} back from a copy of the bucket; nothing was dropped"


def removed_files(table: TableRef, log: Log) -> dict[str, datetime]:
    """When the log took each path out of the table, by the `now` of who did. Only as far back as it reaches."""
    found: dict[str, datetime] = {}
    for version in sorted(log.commits):
        with suppress(NotFoundError):  # cleaned away since it was listed
            for action in actions_of(table, version).get("remove", []):
                if action.get("deletionTimestamp"):
                    found[action["path"]] = _EPOCH + timedelta(milliseconds=action["deletionTimestamp"])
    return found


def base_of(log: Log, at: datetime, keep: timedelta) -> int | None:
    """The checkpoint from which on all stays: the newest that is older than `keep` and that engines will find."""
    old = [version for version, one in log.checkpoints.items() if at - one.modified_at >= keep]
    return max((version for version in old if log.hint is not None and version <= log.hint), default=None)


def expired(log: Log, base: int | None) -> list[ListedObject]:
    """What the checkpoint of version `base` stands for, oldest first, so that a killed cleaning leaves no gap."""
    if base is None:
        return []
    older = {**_older(log.checkpoints, base), **_older(log.commits, base)}
    return [older[place] for place in sorted(older)]


def _older(files: Mapping[int, ListedObject], base: int) -> dict[tuple[int, str], ListedObject]:
    return {(version, one.key): one for version, one in files.items() if version < base}


def require_same(table: TableRef, log: Log, base: int) -> None:
    """DamagedError unless replaying what is to go gives just what the checkpoint of version `base` holds.

    Where neither the first commit nor an older checkpoint is there any more, a killed cleaning has proven it before.
    """
    start = max((version for version in log.checkpoints if version < base), default=None)
    if start is None and 0 not in log.commits:
        return
    first, then = (Held(frozenset(), {}), 0) if start is None else (_held_by(table, start), start + 1)
    try:
        is_same = _replayed(table, first, range(then, base + 1)) == _held_by(table, base)
    except NotFoundError as fault:
        raise DamagedError(
            f"the log of table {table.root} has a gap before version {base}",
            "see who deletes there; nothing more of it was cleaned away",
        ) from fault
    if not is_same:
        raise DamagedError(
            f"the checkpoint of version {base} of table {table.root} is not what its log says",
            "nothing of the log was cleaned away; delete it and _last_checkpoint, then run maintain again",
        )


def _replayed(table: TableRef, first: Held, versions: Iterable[int]) -> Held:
    paths, numbers = set(first.paths), dict(first.numbers)
    for version in versions:
        actions = actions_of(table, version)
        paths -= {action["path"] for action in actions.get("remove", [])}
        paths |= {action["path"] for action in actions.get("add", [])}
        numbers |= {action["appId"]: action["version"] for action in actions.get("txn", [])}
    return Held(frozenset(paths), numbers)


def _held_by(table: TableRef, version: int) -> Held:
    data = table.objects.get(checkpoint_key(table, version))
    try:
        rows = pq.read_table(pa.BufferReader(data), columns=["add", "txn"]).to_pylist()
    except (OSError, pa.ArrowException, ValueError) as fault:
        raise _illegible(table, f"the checkpoint of version {version}", checkpoint_key(table, version)) from fault
    paths = frozenset(row["add"]["path"] for row in rows if row["add"])
    return Held(paths, {row["txn"]["appId"]: row["txn"]["version"] for row in rows if row["txn"]})


def _hint(table: TableRef) -> int | None:
    try:
        return int(json.loads(table.objects.get(hint_key(table)))["version"])
    except NotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as fault:
        raise _illegible(table, "_last_checkpoint", hint_key(table)) from fault
