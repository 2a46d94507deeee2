"""Moves every due unit one tier down, and leaves the source for `jobs.drop`.

    take leases ─ seal ─ gate ─ copy (Spark) ─ commit ─ verify (Spark) ─ switch ─ gate ─ take in the lane
                  └ one new route number, one wait              all units together, one session ┘

Each step begins at the state that the ledger shows, so a run that was killed anywhere is finished by the next one, and
two runs at once share the units between them by lease.
"""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from core import ledger, moves, ring, settings, weeks
from core.errors import BlockedError, DamagedError, FirnError, RefusedError
from core.gate import blocking
from core.moves import State, Unit
from core.overlay import merge_all, row_of
from core.tiers import Tier, target
from jobs import attempt, shell
from jobs.attempt import Attempt, each_region, resting
from jobs.freezing import require_sealing, why_not_freeze
from lakehouse import ends
from lakehouse.publish import parts_of, publish, publish_frozen, require_pointers, shards_of, table_lease
from lakehouse.session import Failure, succeeded
from lakehouse.site import Site
from schemas.events import Event
from stores import kafka, messages
from stores.lane import key_of
from stores.leases import holding

_POLL_SECONDS = 0.2


def run(
    spark: SparkSession | None,
    config: settings.Settings,
    now: datetime,
    regions: tuple[str, ...],
    only: Sequence[int] | None,
    say: shell.Say,
) -> dict[str, Any]:
    """Returns what was moved, per region, and what the planner keeps; `only` names weeks, else all that are due."""
    report = each_region(spark, config, now, regions, say, lambda ours: move_region(ours, only))
    return {"moved": sum(len(region["moved"]) for region in report.values()), "regions": report}


def move_region(run: Attempt, only: Sequence[int] | None) -> dict[str, Any]:
    due, kept = planned(run, due_units(run, only))
    units, busy = run.take(due, lambda unit: _is_due(run, unit))
    units = seal(run, units)
    units = copy(run, units)
    units = verify(run, units)
    units = switch(run, units)
    settle(run, units)
    moved = [f"{weeks.label(unit.week)}/{unit.slice} {unit.move}" for unit in units]
    return {"moved": moved, "held_elsewhere": busy, "kept": kept}


def due_units(run: Attempt, only: Sequence[int] | None) -> list[Unit]:
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
    return [unit for unit in chosen if _is_due(run, unit)]


def planned(run: Attempt, due: Sequence[Unit]) -> tuple[list[Unit], dict[str, str]]:
    """Those that may go, and by name why the others stay: a freeze that would not pay, or that has to wait."""
    reasons = dict(run.able(due, lambda unit: (unit, why_not_freeze(run.site, resting(unit)))))
    kept = {unit.name: why for unit, why in reasons.items() if why}
    for name, why in kept.items():
        run.say(f"{name}: stays in cold: {why}")
    return [unit for unit, why in reasons.items() if not why], kept


def seal(run: Attempt, units: list[Unit]) -> list[Unit]:
    """From the gate on, every writer puts what happens to these units into the lane. Those of a cold one do so
    already."""
    units = run.able(units, lambda unit: _sealed(run, unit))
    if not any(_awaits_gate(unit) for unit in units):
        return units
    route = announce(run)
    return run.able(units, lambda unit: run.change(unit, unit.changed(route=route)) if _awaits_gate(unit) else unit)


def _awaits_gate(unit: Unit) -> bool:
    return unit.state is State.SEALED and moves.reroutes(unit.move)


def _sealed(run: Attempt, unit: Unit) -> Unit:
    """Nothing is sealed, or copied, while a table it needs is missing."""
    if unit.state in (State.OPEN, State.SEALED):
        require_tables(run.site, unit)
    if unit.state is not State.OPEN:
        return unit
    require_sealing(run.site, unit)
    return run.to(unit, State.SEALED, shards=_shards(run, unit), sealed_at=run.now)


def announce(run: Attempt) -> int:
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


def copy(run: Attempt, units: list[Unit]) -> list[Unit]:
    """Every shard of every sealed unit in one Spark job; then one commit per unit whose sink is not CQL."""
    sealed = [unit for unit in units if unit.state is State.SEALED]
    shards = [(unit, ends.Shard(unit, number, run.name)) for unit in sealed for number in shards_of(run.site, unit)]
    parts = run.spread(ends.copy, shards)
    return run.able(units, lambda unit: _copied(run, unit, _made(run, unit, parts)) if unit.key in parts else unit)


def _made(
    run: Attempt, unit: Unit, parts: Mapping[tuple[str, int, int], Sequence[ledger.Part | Failure]]
) -> list[ledger.Part]:
    """What was copied of the unit. One that could not be frozen rests in cold again: until what kept it is folded away
    it may be folded, and no writer was told of the seal."""
    try:
        return succeeded(parts[unit.key])
    except FirnError:
        if unit.move == moves.COLD_FROZEN:
            run.to(unit, State.OPEN)
        raise


def _copied(run: Attempt, unit: Unit, parts: list[ledger.Part]) -> Unit:
    """A sink's files are not there for anybody until their commit; its number is taken before it is made."""
    if not all(run.site.ledger.put_part(part) for part in parts):
        raise BlockedError(f"unit {unit.name} was copied under a newer epoch", "let the other mover finish")
    if not unit.move.sink.is_cql:
        unit = run.change(unit, unit.changed(commits=unit.commits + 1))
        make_known = publish if unit.move.sink is Tier.COLD else publish_frozen
        with holding(run.keeper, table_lease(unit), run.site.config.clocks.gate_seconds):
            run.check(unit)
            make_known(run.site, unit, parts, run.name, run.now)
    rows, size_bytes = sum(part.digest.rows for part in parts), sum(part.size_bytes for part in parts)
    run.say(f"{unit.name}: {rows} rows, {size_bytes} bytes copied")
    return run.to(unit, State.COPIED)


def verify(run: Attempt, units: list[Unit]) -> list[Unit]:
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


def judge(run: Attempt, units: list[Unit]) -> list[Unit]:
    copied = [unit for unit in units if unit.state is State.COPIED]
    work = [(unit, (unit, part)) for unit in copied for part in parts_of(run.site, unit)]
    findings = run.spread(ends.verify, work)
    return run.able(
        units,
        lambda unit: _judged(run, unit, succeeded(findings.get(unit.key, []))) if unit in copied else unit,
    )


def _judged(run: Attempt, unit: Unit, findings: list[ends.Finding]) -> Unit:
    if len(findings) != len(shards_of(run.site, unit)) or not all(finding.proven for finding in findings):
        return _resealed(run, unit)
    for finding in findings:
        run.site.ledger.put_part(replace(finding.part, epoch=unit.epoch, verified=True))
    return run.to(unit, State.VERIFIED)


def _resealed(run: Attempt, unit: Unit) -> Unit:
    """Under a new epoch, so that nothing of the failed copy can be taken for the next one."""
    name = ledger.lease_name(unit)
    run.keeper.give_up(name)
    lease = run.keeper.take_within(name, run.site.config.clocks.gate_seconds)
    return run.change(unit, unit.to(State.SEALED, lease.epoch))


def switch(run: Attempt, units: list[Unit]) -> list[Unit]:
    """Readers follow at once, writers behind the gate."""
    return run.able(units, lambda unit: _switched(run, unit) if unit.state is State.VERIFIED else unit)


def _switched(run: Attempt, unit: Unit) -> Unit:
    try:
        require_pointers(run.site, unit, parts_of(run.site, unit))
    except DamagedError as fault:
        _resealed(run, unit)
        raise BlockedError(fault.what, "run the same command again: it copies the unit anew") from fault
    return run.to(unit, State.SWITCHED, switched_at=run.now, settled=False)


def settle(run: Attempt, units: Iterable[Unit]) -> None:
    """After the gate no writer fills the lane of a warm sink any more: it is taken in, read back, and cleared."""
    waiting = [unit for unit in units if unit.state is State.SWITCHED and not unit.settled]
    if any(moves.reroutes(unit.move) for unit in waiting):
        announce(run)
    lanes = dict(run.able(waiting, lambda unit: (unit, take_in(run.site, unit))))
    if any(lanes.values()):
        # Readers that began before the sink had these rows still find them in the lane.
        time.sleep(run.site.config.clocks.ledger_age_seconds + run.site.config.clocks.longest_read_seconds)
    run.able(lanes, lambda unit: _settled(run, unit, lanes[unit]))


def _settled(run: Attempt, unit: Unit, events: list[Event]) -> Unit:
    run.check(unit)
    run.site.lane.clear(unit.week, map(key_of, events))
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


def _is_due(run: Attempt, unit: Unit) -> bool:
    return moves.is_due(unit, run.now, run.site.config.tiers)


def _shards(run: Attempt, unit: Unit) -> int:
    """A cold unit's N follows from the bytes that its copy to warm counted, and stays its N when it is frozen."""
    layout = run.site.config.layout
    if unit.move.sink is Tier.WARM:
        return layout.copy_shards
    if unit.move.sink is Tier.FROZEN:
        return unit.shards
    before = run.site.ledger.parts(replace(unit, move=moves.HOT_WARM))
    return moves.shards_for(sum(part.size_bytes for part in before), layout.shard_bytes)


def parser() -> Any:
    options = shell.options("python -m jobs.move", "Move every due unit one tier down.")
    shell.week_option(options)
    return options


def main(argv: list[str]) -> int:
    return attempt.main(
        argv,
        parser(),
        "firn move",
        lambda spark, config, regions, args: run(spark, config, args.now, regions, args.week, shell.say),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
