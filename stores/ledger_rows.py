"""Rows of the ledger's CQL tables as what they stand for, and back; what a row cannot mean is damage."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from core.digest import Digest
from core.errors import DamagedError
from core.ledger import Audited, FrozenFile, Part, Pointer, Run, TableState, Verdict, WeekTable
from core.moves import Move, State, Unit
from core.tiers import Tier

Word = TypeVar("Word", bound=StrEnum)
Row = tuple[Any, ...]
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
UNIT = (
    "week, slice, source, sink, state, epoch, revision, shards, route, commits, settled, sealed_at, switched_at, "
    "generation, hold_until"
)
PART = "shard, epoch, path, rows, bytes, digest, sha256, verified"
POINTER = "shards, shard, path, version, rows, bytes, sha256, digest"
RUN = "name, path, rows, bytes, sha256, digest, folded"
FROZEN = "generation, shard, epoch, shards, path, rows, bytes, sha256, digest, storage_class, frozen_at"
VERDICT = "files, suite, passed, failed, judged_at"
TABLE = "week, tier, generation, state"
AUDIT = "id, at, action, week, slice, move, found_in, became, epoch, revision, actor, reason, applied"


def unit_of(region: str, row: Row) -> Unit:
    week, slice_, source, sink, state, epoch, revision, shards, route, commits, settled, *times, birth, hold = row
    move = Move(_word(Tier, source), _word(Tier, sink))
    numbers = (epoch, revision, shards, route, commits)
    sealed, switched = map(utc, times)
    ends = (sealed, switched, birth or 0, utc(hold))
    return Unit(region, week, slice_, move, _word(State, state), *numbers, settled, *ends)


def unit_facts(unit: Unit) -> Row:
    """The values of UNIT after week and slice."""
    numbers = (unit.epoch, unit.revision, unit.shards, unit.route, unit.commits)
    ends = (unit.settled, unit.sealed_at, unit.switched_at, unit.generation, unit.hold_until)
    return unit.move.source, unit.move.sink, unit.state, *numbers, *ends


def part_of(unit: Unit, row: Row) -> Part:
    shard, epoch, path, count, size, total, sha, verified = row
    return Part(*unit.key, unit.move.source, shard, epoch, _digest(count, total), path, size, sha, verified)


def pointer_of(week: int, slice_: int, row: Row) -> Pointer:
    shards, shard, path, version, count, size, sha, total = row
    return Pointer(week, slice_, shards, shard, path, version, _digest(count, total), size, sha)


def run_of(week: int, slice_: int, row: Row) -> Run:
    name, path, count, size, sha, total, folded = row
    return Run(week, slice_, name, path, _digest(count, total), size, sha, folded)


def frozen_of(week: int, slice_: int, row: Row) -> FrozenFile:
    generation, shard, epoch, shards, path, count, size, sha, total, kind, at = row
    place = (week, slice_, generation, shard, epoch, shards, path)
    return FrozenFile(*place, _digest(count, total), size, sha, kind, utc(at) or NEVER)


def verdict_of(week: int, slice_: int, row: Row) -> Verdict:
    files, suite, passed, failed, at = row
    return Verdict(week, slice_, files, suite, passed, tuple(failed.splitlines()), utc(at) or NEVER)


def table_of(region: str, row: Row) -> WeekTable:
    week, tier, generation, state = row
    return WeekTable(region, week, _word(Tier, tier), generation, _word(TableState, state))


def audited_of(row: Row) -> Audited:
    name, at, action, week, slice_, move, found_in, became, epoch, revision, actor, reason, applied = row
    place = (name, utc(at) or NEVER, action, week, slice_, move)
    return Audited(*place, found_in, became, epoch, revision, actor, reason, bool(applied))


def audited_facts(entry: Audited) -> Row:
    """The values of AUDIT."""
    place = (entry.id, entry.at, entry.action, entry.week, entry.slice, entry.move)
    facts = (entry.found_in, entry.became, entry.epoch, entry.revision)
    return *place, *facts, entry.actor, entry.reason, entry.applied


def utc(value: datetime | None) -> datetime | None:
    """The driver gives naive ones."""
    return value.replace(tzinfo=UTC) if value else None


def _word(kind: type[Word], word: str) -> Word:
    """DamagedError for one that is none of ours: to guess what it means could drop what must stay."""
    try:
        return kind(word)
    except ValueError as fault:
        raise DamagedError(
            f"the ledger says {word!r} where a {kind.__name__} belongs",
            "find out who wrote it, set the row right, and run the same command again; nothing was changed",
        ) from fault


def _digest(rows: int | None, total: str | None) -> Digest:
    return Digest(rows or 0, int(total or "0", 16))
