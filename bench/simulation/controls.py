"""Known-bad variants of the product, one switch each: a checker that lets one of them pass proves nothing.

A control puts one wrong thing in the place of one right thing, as a seam does, and leaves all the rest as it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from bench.simulation import clocks, stage, wrong_readers
from bench.simulation.delta import SimulatedDelta
from bench.simulation.seams import Seam
from core import gate, ids, ring
from core.errors import OutcomeUnknownError
from core.gate import PartitionState
from core.ledger import Pointer
from core.moves import State, Unit
from lakehouse import commit as committing
from lakehouse import publish
from lakehouse.ends import Finding
from serving.consumer import Consumer
from stores.cassandra import Level
from stores.lane import Lane, LaneKey, key_of
from stores.ledger import CqlLedger


@dataclass(frozen=True)
class Control:
    """One switch: what it does wrong, and where."""

    name: str
    what: str
    seams: tuple[Seam, ...]


# A drop before its proof


def _free_when_copied(unit: Unit, *_: Any) -> str | None:
    return None if unit.state in (State.COPIED, State.VERIFIED, State.SWITCHED, State.DROPPED) else "not copied yet"


def _leaves_when_copied(week: Any) -> bool:
    is_copied = [unit.state in (State.COPIED, State.VERIFIED, State.SWITCHED) for unit in week.units]
    return any(is_copied) and all(unit.move.source is week.table.tier for unit in week.units)


def _trusts(_: Any, work: tuple[Unit, Any]) -> Finding:
    part = work[1]
    return Finding(part, part.digest, part.digest, True)


# Deleting by a query


def _cleared_by_scan(run: Any, done: Any) -> Any:
    run.check(done.unit)
    _clear_by_scan(run, done.unit)
    for taken in done.runs:
        run.site.ledger.fold_run(taken)
    return done


def _settled_by_scan(run: Any, unit: Unit, _: Any) -> Unit:
    run.check(unit)
    if unit.move.sink.is_cql:
        _clear_by_scan(run, unit)
    settled: Unit = run.change(unit, unit.changed(settled=True))
    return settled


def _clear_by_scan(run: Any, unit: Unit) -> None:
    tokens = ring.cut(unit.slice, run.site.config.layout.slices)
    run.site.lane.clear(unit.week, list(map(key_of, run.site.lane.scan(unit.week, tokens))))


_clear_exactly = Lane.clear


def _clear_by_range(lane: Lane, week: int, keys: Iterable[LaneKey]) -> None:
    """Whatever lies in the same part of the lane goes along."""
    wide = {ring.part_of(ring.token(key.conversation_id), lane.ring_slices) for key in keys}
    for part in sorted(wide):
        _clear_exactly(lane, week, list(map(key_of, lane.scan(week, ring.cut(part, lane.ring_slices)))))


# Committing


class NumberlessDelta(SimulatedDelta):
    def transaction_version(self, app_id: str) -> int | None:
        return None


def _unchecked_sources(table: Any, loaded: Any, parts: Sequence[Any], removes: Sequence[str]) -> list[Any]:
    live = committing._live(table, loaded, None)
    pinned = sorted({path for part in parts for path in part.replaces} | set(removes))
    return [live[path] for path in pinned if path in live]


_commit = committing.commit


def _tidy_commit(table: Any, parts: Sequence[Any], **options: Any) -> int:
    try:
        return _commit(table, parts, **options)
    except OutcomeUnknownError:
        for part in parts:
            table.objects.delete(f"{table.root}/{part.path}")
        raise


def _advance_anywhere(ledger: CqlLedger, pointer: Pointer) -> bool:
    """As `CqlLedger.advance`, without the comparison."""
    digest, place = pointer.digest, (pointer.week, pointer.slice, pointer.shards, pointer.shard)
    facts = (pointer.path, pointer.version, digest.rows, pointer.size_bytes, pointer.sha256, str(digest))
    query = (
        "UPDATE {meta}.pointers SET path = ?, version = ?, rows = ?, bytes = ?, sha256 = ?, digest = ? "
        "WHERE region = ? AND week = ? AND slice = ? AND shards = ? AND shard = ? IF version >= ?"
    )
    return ledger._cas(query, *facts, ledger.region, *place, -1)


def _repaired_anyhow(site: Any, unit: Unit, table: Any, found: Any, version: int) -> int:
    wrong, gone = found
    for shard, path in wrong.items():
        part = publish._part_by_index(site, unit, table, shard, path)
        _advance_anywhere(site.ledger, publish._pointer(unit, part, version))
    for pointer in gone:
        site.ledger.retire(pointer, version)
    return len(wrong) + len(gone)


# The gate


def _no_gate(_: Iterable[PartitionState], __: int) -> tuple[str, ...]:
    return ()


def _gate_by_offsets(partitions: Iterable[PartitionState], _: int) -> tuple[str, ...]:
    return gate.blocking([replace(state, route=0) for state in partitions], 0)


# Writing


def _wall_clock_us(_: bytes) -> int:
    return int(clocks.wall_clock().timestamp() * 1_000_000)


def _step_hastily(consumer: Consumer) -> None:
    """Offsets first, rows after."""
    records = kafka_of(consumer)
    for record in records:
        consumer.partitions.next_offsets[record.place] = record.offset + 1
    consumer._commit()
    if records:
        consumer._write(records)


def kafka_of(consumer: Consumer) -> list[Any]:
    found: list[Any] = stage.world().log.poll(consumer.client, 2000, 0.2)  # type: ignore[arg-type]
    return found


# Leases and graces

_POLL_SECONDS = 0.7


class Impatient(clocks.SimulatedTime):
    """Waits between two looks at something, and for nobody."""

    @staticmethod
    def sleep(seconds: float) -> None:
        if seconds <= _POLL_SECONDS:
            clocks.SimulatedTime.sleep(seconds)


def _held_anyway(keeper: Any, name: str) -> Any:
    return keeper._held.get(name)


_ALL = (
    Control(
        "drop before verify",
        "the dropper takes a week whose units are copied, and proves nothing",
        (
            Seam("core.moves", "why_not_drop", _free_when_copied),
            Seam("jobs.drop", "_is_leaving", _leaves_when_copied),
            Seam("jobs.drop", "prove", lambda _, free: list(free)),
        ),
    ),
    Control(
        "proof that reads nothing",
        "verifying and proving trust what the copy said of itself",
        (Seam("lakehouse.ends", "verify", _trusts), Seam("lakehouse.ends", "covered", _trusts)),
    ),
    Control(
        "delete what is selected",
        "the lane is cleared of what a query finds now, not of what was read into the sink",
        (Seam("jobs.fold", "_cleared", _cleared_by_scan), Seam("jobs.move", "_settled", _settled_by_scan)),
    ),
    Control(
        "lane cleared by range",
        "the lane is cleared part by part",
        (Seam("stores.lane", "Lane.clear", _clear_by_range),),
    ),
    Control(
        "commit without epoch",
        "a commit does not compare its number with the last one of the unit",
        (Seam("lakehouse.commit", "DeltaTable", NumberlessDelta),),
    ),
    Control(
        "commit without its sources",
        "a commit does not look whether the files that it replaces are live",
        (Seam("lakehouse.commit", "_check_sources", _unchecked_sources),),
    ),
    Control(
        "freeze without a fence",
        "a freeze goes by pointers that may be behind, and shuts out no fold that stood still",
        (Seam("jobs.move", "_fixed", lambda _, unit: unit),),
    ),
    Control(
        "cleanup on unknown",
        "the files of a commit without an answer are deleted",
        (Seam("lakehouse.publish", "commit", _tidy_commit), Seam("lakehouse.commit", "MAX_DOUBTS", 1)),
    ),
    Control(
        "pointer set backwards",
        "the repair sets pointers without comparing versions",
        (Seam("lakehouse.publish", "_repaired", _repaired_anyhow),),
    ),
    Control("seal without the gate", "nobody waits for the consumers", (Seam("jobs.move", "blocking", _no_gate),)),
    Control(
        "gate without route", "the gate looks at offsets alone", (Seam("jobs.move", "blocking", _gate_by_offsets),)
    ),
    Control(
        "wall-clock timestamps",
        "cells are written at the time of their writing",
        (Seam("stores.messages", "ids", SimpleNamespace(**(vars(ids) | {"unix_us": _wall_clock_us}))),),
    ),
    Control(
        "offsets before rows",
        "the consumer commits what it has not written yet",
        (Seam("serving.consumer", "Consumer.step", _step_hastily),),
    ),
    Control(
        "drop after a quorum read",
        "the proof before a drop asks two replicas",
        (Seam("lakehouse.ends", "Level", SimpleNamespace(QUORUM=Level.QUORUM, ALL=Level.QUORUM)),),
    ),
    Control(
        "grace skipped",
        "nobody waits for readers that are under way",
        tuple(Seam(module, "time", Impatient) for module in ("jobs.move", "jobs.fold", "jobs.drop", "jobs.maintain")),
    ),
    Control(
        "lease unchecked",
        "nobody looks at a lease before a step that cannot be undone",
        (Seam("stores.leases", "Keeper.check", _held_anyway),),
    ),
    *(Control(*facts) for facts in wrong_readers.CONTROLS),
)
CONTROLS: dict[str, Control] = {control.name: control for control in _ALL}
