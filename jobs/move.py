"""Moves every due unit one tier down, and leaves the source for `jobs.drop`.

    take leases ─ seal ─ gate ─ copy (Spark) ─ commit ─ verify (Spark) ─ switch ─ gate ─ take in the lane
                  └ one new route number, one wait              all units together, one session ┘

Each step begins at the state that the ledger shows, so a run that was killed anywhere is finished by the next one, and
two runs at once share the units between them by lease.
"""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

from pyspark.sql import SparkSession

from core import ledger, moves, ring, settings, weeks
from core.errors import BlockedError, DamagedError, FirnError, RefusedError
from core.gate import blocking
from core.moves import State, Unit
from core.overlay import merge_all, row_of
from core.tiers import Tier, target
from jobs import shell
from lakehouse import ends
from lakehouse.publish import publish, require_pointers, table_lease
from lakehouse.session import Failure, spark_session, spread, succeeded
from lakehouse.site import Site, opened
from schemas.events import Event
from stores import kafka, messages
from stores.leases import Keeper, holding, keeping

R = TypeVar("R")
T = TypeVar("T")
SUPPORTED = (moves.HOT_WARM, moves.WARM_COLD)
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Run:
    """One attempt in one region. `aside` collects the faults of units that could not go on; the others go on."""

    site: Site
    keeper: Keeper
    spark: SparkSession
    now: datetime
    attempt: str
    say: shell.Say
    aside: list[FirnError] = field(default_factory=list)

    def check(self, unit: Unit) -> None:
        """Stands before every irreversible step."""
        self.keeper.check(ledger.lease_name(unit))

    def able(self, units: Iterable[Unit], step: Callable[[Unit], R]) -> list[R]:
        """What `step` gives for each unit, without those that it failed for."""
        done = []
        for unit in units:
            try:
                done.append(step(unit))
            except FirnError as fault:
                self.say(f"{unit.name}: set aside: {fault.what}")
                self.aside.append(fault)
        return done

    def change(self, old: Unit, new: Unit) -> Unit:
        """Raises BlockedError when somebody else changed the unit first."""
        self.check(old)
        if not self.site.ledger.change(old, new):
            raise BlockedError(f"unit {old.name} was changed by another process", "run the same command again")
        return new

    def to(self, unit: Unit, state: State, **facts: Any) -> Unit:
        """The unit in its next state, announced."""
        changed = self.change(unit, replace(unit.to(state, unit.epoch), **facts))
        self.say(f"{unit.name}: {state} ({unit.move})")
        return changed


def run(
    spark: SparkSession,
    config: settings.Settings,
    now: datetime,
    regions: tuple[str, ...],
    only: Sequence[int] | None,
    say: shell.Say,
) -> dict[str, Any]:
    """Returns what was moved, per region; `only` names weeks, else all that are due.

    A fault of one unit or region does not keep the others; the gravest is raised when all have been tried.
    """
    report, faults = {}, []
    for region in regions:
        try:
            with (
                opened(config, region) as site,
                keeping(site.ledger, uuid4().hex, config.clocks.lease_seconds) as keeper,
            ):
                attempt = Run(site, keeper, spark, now, uuid4().hex[:12], say)
                report[region] = move_region(attempt, only)
                faults += attempt.aside
        except FirnError as fault:
            faults.append(fault)
    if faults:
        raise max(faults, key=lambda fault: fault.exit_code)
    return {"moved": sum(len(region["moved"]) for region in report.values()), "regions": report}


def move_region(run: Run, only: Sequence[int] | None) -> dict[str, Any]:
    due = due_units(run, only)
    taken = run.able(due, lambda unit: take(run, unit))
    units = [unit for unit in taken if unit]
    busy = len(taken) - len(units)
    if busy:
        run.say(f"{run.site.region}: {busy} units are held by another mover")
    units = seal(run, units)
    units = copy(run, units)
    units = verify(run, units)
    units = switch(run, units)
    settle(run, units)
    moved = [f"{weeks.label(unit.week)}/{unit.slice} {unit.move}" for unit in units]
    return {"moved": moved, "held_elsewhere": busy}


def due_units(run: Run, only: Sequence[int] | None) -> list[Unit]:
    """Units under way or old enough; RefusedError for a named week that is unknown or too young."""
    policy = run.site.config.tiers
    units = run.site.ledger.units()
    shell.require_known(run.site.region, units, only)
    for unit in units:
        is_young = target(unit.week, run.now, policy) is Tier.HOT and unit.state is State.OPEN
        if only is not None and unit.week in only and is_young:
            raise RefusedError(
                f"{weeks.label(unit.week)} ends {weeks.end(unit.week):%Y-%m-%d}: not {policy.hot_days} days old yet",
                "wait, or give a later --now",
            )
    chosen = [unit for unit in units if only is None or unit.week in only]
    return [unit for unit in chosen if _is_for_us(run, unit)]


def take(run: Run, unit: Unit) -> Unit | None:
    """The unit as it is now, under a new epoch of ours; None while another mover holds it or has just moved it."""
    lease = run.keeper.take(ledger.lease_name(unit))
    fresh = run.site.ledger.unit(unit.week, unit.slice)
    if lease is None or fresh is None or not _is_for_us(run, fresh):
        return None
    return run.change(fresh, replace(_next(fresh), epoch=lease.epoch, revision=fresh.revision + 1))


def seal(run: Run, units: list[Unit]) -> list[Unit]:
    """From the gate on, every writer puts what happens to these units into the lane."""
    units = run.able(units, lambda unit: _sealed(run, unit))
    if not any(unit.state is State.SEALED for unit in units):
        return units
    route = announce(run)
    return run.able(
        units, lambda unit: run.change(unit, unit.changed(route=route)) if unit.state is State.SEALED else unit
    )


def _sealed(run: Run, unit: Unit) -> Unit:
    """Nothing is sealed, or copied, while a table it needs is missing."""
    if unit.state in (State.OPEN, State.SEALED):
        require_tables(run.site, unit)
    if unit.state is not State.OPEN:
        return unit
    return run.to(unit, State.SEALED, shards=_shards(run, unit), sealed_at=run.now)


def announce(run: Run) -> int:
    """Takes the next route number and waits until every partition was consumed under it up to its end of now."""
    site = run.site
    route = site.ledger.next_route()
    ends_of_now = kafka.end_offsets(site.config.kafka, site.region)
    deadline = time.monotonic() + site.config.clocks.gate_seconds
    reasons: Sequence[str] = ()
    while time.monotonic() < deadline:
        reasons = blocking(kafka.committed(site.config.kafka, site.region, ends_of_now), route)
        if not reasons:
            return route
        time.sleep(_POLL_SECONDS)
    raise BlockedError(
        f"{site.region}: writers have not all obeyed route {route}: {'; '.join(reasons[:3])}",
        "see that the consumer runs (./firn stack status; ./firn stack up starts it), then run the same command again",
    )


def copy(run: Run, units: list[Unit]) -> list[Unit]:
    """Every shard of every sealed unit in one Spark job; then one commit per cold unit."""
    sealed = [unit for unit in units if unit.state is State.SEALED]
    shards = [(unit, ends.Shard(unit, number, run.attempt)) for unit in sealed for number in range(unit.shards)]
    parts = spread_by_unit(run, ends.copy, shards)
    return run.able(units, lambda unit: _copied(run, unit, succeeded(parts[unit.key])) if unit.key in parts else unit)


def spread_by_unit(
    run: Run, work: Callable[[Site, T], R], items: Sequence[tuple[Unit, T]]
) -> dict[tuple[str, int, int], list[R | Failure]]:
    """What became of the items of each unit, by its key."""
    outcomes = spread(run.spark, run.site.config, run.site.region, work, [item for _, item in items])
    found: dict[tuple[str, int, int], list[R | Failure]] = {}
    for (unit, _), outcome in zip(items, outcomes, strict=True):
        found.setdefault(unit.key, []).append(outcome)
    return found


def _copied(run: Run, unit: Unit, parts: list[ledger.Part]) -> Unit:
    """A cold sink's files are not there for anybody until their commit; its number is taken before it is made."""
    if not all(run.site.ledger.put_part(part) for part in parts):
        raise BlockedError(f"unit {unit.name} was copied under a newer epoch", "let the other mover finish")
    if unit.move.sink is Tier.COLD:
        unit = run.change(unit, unit.changed(commits=unit.commits + 1))
        with holding(run.keeper, table_lease(unit), run.site.config.clocks.gate_seconds):
            run.check(unit)
            publish(run.site, unit, parts, run.attempt, run.now)
    rows, size_bytes = sum(part.digest.rows for part in parts), sum(part.size_bytes for part in parts)
    run.say(f"{unit.name}: {rows} rows, {size_bytes} bytes copied")
    return run.to(unit, State.COPIED)


def verify(run: Run, units: list[Unit]) -> list[Unit]:
    """Both ends read again; a unit whose ends differ is sealed anew and copied once more, then it is damaged."""
    units = judge(run, units)
    if any(unit.state is State.SEALED for unit in units):
        units = judge(run, copy(run, units))
    return run.able(units, _proven)


def _proven(unit: Unit) -> Unit:
    if unit.state is State.SEALED:
        raise DamagedError(
            f"source and sink of {unit.name} still differ after a second copy",
            "nothing was dropped; compare the ends, then run the same command again",
        )
    return unit


def judge(run: Run, units: list[Unit]) -> list[Unit]:
    copied = [unit for unit in units if unit.state is State.COPIED]
    work = [(unit, (unit, part)) for unit in copied for part in run.site.ledger.parts(unit)]
    findings = spread_by_unit(run, ends.verify, work)
    return run.able(
        units,
        lambda unit: _judged(run, unit, succeeded(findings.get(unit.key, []))) if unit in copied else unit,
    )


def _judged(run: Run, unit: Unit, findings: list[ends.Finding]) -> Unit:
    if len(findings) != unit.shards or not all(finding.proven for finding in findings):
        return _resealed(run, unit)
    for finding in findings:
        run.site.ledger.put_part(replace(finding.part, epoch=unit.epoch, verified=True))
    return run.to(unit, State.VERIFIED)


def _resealed(run: Run, unit: Unit) -> Unit:
    """Under a new epoch, so that nothing of the failed copy can be taken for the next one."""
    name = ledger.lease_name(unit)
    run.keeper.give_up(name)
    lease = run.keeper.take_within(name, run.site.config.clocks.gate_seconds)
    return run.change(unit, unit.to(State.SEALED, lease.epoch))


def switch(run: Run, units: list[Unit]) -> list[Unit]:
    """Readers follow at once, writers behind the gate."""
    return run.able(units, lambda unit: _switched(run, unit) if unit.state is State.VERIFIED else unit)


def _switched(run: Run, unit: Unit) -> Unit:
    require_pointers(run.site, unit, run.site.ledger.parts(unit))
    return run.to(unit, State.SWITCHED, switched_at=run.now, settled=False)


def settle(run: Run, units: Iterable[Unit]) -> None:
    """After the gate no writer fills the lane of a warm sink any more: it is taken in, read back, and cleared."""
    waiting = [unit for unit in units if unit.state is State.SWITCHED and not unit.settled]
    if not waiting:
        return
    announce(run)
    lanes = dict(run.able(waiting, lambda unit: (unit, take_in(run.site, unit))))
    if any(lanes.values()):
        # Readers that began before the sink had these rows still find them in the lane.
        time.sleep(run.site.config.clocks.ledger_age_seconds + run.site.config.clocks.longest_read_seconds)
    run.able(lanes, lambda unit: _settled(run, unit, lanes[unit]))


def _settled(run: Run, unit: Unit, events: list[Event]) -> Unit:
    run.check(unit)
    run.site.lane.clear(unit.week, events)
    return run.change(unit, unit.changed(settled=True))


def take_in(site: Site, unit: Unit) -> list[Event]:
    """The unit's lane, written into a warm sink and read back from it; DamagedError when it is not all there.

    A cold sink takes no single writes: its lane stays for the fold.
    """
    tier = unit.move.sink
    if not tier.is_cql:
        return []
    tokens = ring.cut(unit.slice, site.config.layout.slices)
    events = list(site.lane.scan(unit.week, tokens))
    amendments = merge_all(map(row_of, events))
    db = site.database(tier)
    db.write(messages.batches(site.region, tier, unit.week, amendments.values()))
    missing = [row for row in amendments.values() if not messages.holds(db, site.region, tier, unit.week, row)]
    if missing:
        raise DamagedError(
            f"{unit.name}: {len(missing)} rows of the lane are not in {tier}",
            "the lane was kept; run the same command again",
        )
    return events


def require_tables(site: Site, unit: Unit) -> None:
    """BlockedError where a table was never made; DamagedError when the ledger says it is there and it is not."""
    made = {(table.week, table.tier) for table in site.ledger.tables()}
    for tier in (tier for tier in (unit.move.source, unit.move.sink) if tier.is_cql):
        if (unit.week, tier) not in made:
            raise BlockedError(
                f"{unit.name} has no {tier} tables yet",
                "run: python -m jobs.weeks --now …, then the same command again",
            )
        found = messages.existing_tables(site.database(tier), site.region, tier)
        if lacking := [name for name in messages.table_names(unit.week) if name not in found]:
            raise DamagedError(
                f"{unit.name}: table {lacking[0]} is missing in {messages.keyspace(site.region, tier)}",
                "restore it from backup or from Kafka; nothing was dropped",
            )


def _is_for_us(run: Run, unit: Unit) -> bool:
    return moves.is_due(unit, run.now, run.site.config.tiers) and _next(unit).move in SUPPORTED


def _next(unit: Unit) -> Unit:
    return unit.next_move() if unit.state is State.DROPPED and unit.move != moves.COLD_FROZEN else unit


def _shards(run: Run, unit: Unit) -> int:
    """A cold unit's N follows from the bytes that its copy to warm counted."""
    layout = run.site.config.layout
    if unit.move.sink is Tier.WARM:
        return layout.copy_shards
    before = run.site.ledger.parts(replace(unit, move=moves.HOT_WARM))
    return moves.shards_for(sum(part.size_bytes for part in before), layout.shard_bytes)


def parser() -> Any:
    options = shell.options("python -m jobs.move", "Move every due unit one tier down.")
    shell.week_option(options)
    return options


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)

    def work() -> dict[str, Any]:
        config = settings.load()
        regions = shell.regions(config, args.region)
        with spark_session(config, "firn move") as spark:
            return run(spark, config, args.now, regions, args.week, shell.say)

    return shell.finish(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
