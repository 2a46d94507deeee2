"""What the ledger holds beside units: leases, parts, pointers, week tables. Plain rows and the rules over them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from core import ring
from core.digest import Digest
from core.moves import Unit
from core.tiers import Tier


@dataclass(frozen=True)
class Lease:
    """`epoch` only grows; `holder` is one attempt of one process. Real time."""

    name: str
    holder: str
    epoch: int
    expires_at: datetime

    def is_free(self, now: datetime) -> bool:
        return now >= self.expires_at


@dataclass(frozen=True)
class Part:
    """What copying one shard produced; `path` is empty for a CQL sink. `digest` is over merged canonical rows."""

    region: str
    week: int
    slice: int
    source: Tier
    shard: int
    epoch: int
    digest: Digest
    path: str = ""
    size_bytes: int = 0
    sha256: str = ""
    verified: bool = False


@dataclass(frozen=True)
class Pointer:
    """(week, slice, N, shard) → the one file to read, at the Delta version that made it so. Moves only forward."""

    week: int
    slice: int
    shards: int
    shard: int
    path: str
    version: int
    digest: Digest
    size_bytes: int
    sha256: str

    def range(self, slices: int) -> ring.Range:
        return ring.shard_range(self.slice, slices, self.shard, self.shards)


@dataclass(frozen=True)
class Run:
    """A sorted file of bulk-imported rows of one unit, invisible until folded. `path` is its key in the bucket."""

    week: int
    slice: int
    name: str
    path: str
    digest: Digest
    size_bytes: int
    sha256: str
    folded: bool = False


@dataclass(frozen=True)
class FrozenFile:
    """One shard's object of one generation; `path` is its key in the bucket, `digest` that of the unsealed rows."""

    week: int
    slice: int
    generation: int
    shard: int
    epoch: int
    shards: int
    path: str
    digest: Digest
    size_bytes: int
    sha256: str
    storage_class: str
    frozen_at: datetime

    def range(self, slices: int) -> ring.Range:
        return ring.shard_range(self.slice, slices, self.shard, self.shards)


@dataclass(frozen=True)
class Verdict:
    """What the quality gate said of a unit's cold files: `files` names them, `failed` the rules they broke."""

    week: int
    slice: int
    files: str
    suite: str
    passed: bool
    failed: tuple[str, ...]
    judged_at: datetime


THAW, HOLD, OVERRIDE = "thaw", "hold", "override"


@dataclass(frozen=True)
class Audited:
    """What an operator did to one unit by hand, who it was, and why. `found_in` and `became` are states; `actor` and
    `reason` stand here alone, never in a log or a metric.

    It is written before it is done: one that is not `applied` was asked for, and may have been done all the same when
    the process died just then; `revision` is that of the unit before it.
    """

    id: str
    at: datetime
    action: str
    week: int
    slice: int
    move: str
    found_in: str
    became: str
    epoch: int
    revision: int
    actor: str
    reason: str
    applied: bool = False


class TableState(StrEnum):
    LIVE = "live"
    DROPPING = "dropping"
    DROPPED = "dropped"


@dataclass(frozen=True)
class WeekTable:
    """A week's tables in one tier; `generation` is in their table ids, so a table made again is another table."""

    region: str
    week: int
    tier: Tier
    generation: int
    state: TableState


@dataclass(frozen=True)
class Account:
    """Who answers for a piece of handwork, and why it is done."""

    actor: str
    reason: str


def audited(name: str, at: datetime, action: str, before: Unit, after: Unit, account: Account) -> Audited:
    """Of a thaw that is begun or given up its move is named, whichever side of the change it is on."""
    move = before.move if before.move.is_thaw else after.move
    place, states = (before.week, before.slice, str(move)), (before.state, after.state)
    return Audited(name, at, action, *place, *states, after.epoch, before.revision, account.actor, account.reason)


def lease_name(unit: Unit) -> str:
    return f"unit/{unit.region}/{unit.week}/{unit.slice}"


def of_newest_epoch(parts: Iterable[Part]) -> list[Part]:
    """Those of the last copy: one that was cut finer before may have left more of them."""
    held = list(parts)
    newest = max((part.epoch for part in held), default=0)
    return [part for part in held if part.epoch == newest]


def fingerprint(pointers: Iterable[Pointer]) -> str:
    """Names a set of cold files by their content: a verdict on one set says nothing of another."""
    return hashlib.sha256("\n".join(sorted(pointer.sha256 for pointer in pointers)).encode()).hexdigest()


def in_milliseconds(when: datetime) -> datetime:
    """CQL timestamps end at the millisecond; what is compared later must too."""
    return when.replace(microsecond=when.microsecond // 1000 * 1000)


def as_kept(unit: Unit) -> Unit:
    """The row as the ledger gives it back."""
    times = (unit.sealed_at, unit.switched_at, unit.hold_until)
    sealed, switched, hold = (when and in_milliseconds(when) for when in times)
    return replace(unit, sealed_at=sealed, switched_at=switched, hold_until=hold)
