"""Moves every due unit one tier down, finishes thaws, and leaves the source for `jobs.drop`.

    take leases ─ seal ─ gate ─ copy (Spark) ─ commit ─ verify (Spark) ─ switch ─ gate ─ take in the lane
                  └ one new route number, one wait              all units together, one session ┘

Each step begins at the state that the ledger shows, so a run that was killed anywhere is finished by the next one, and
two runs at once share the units between them by lease.
"""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any

from pyspark.sql import SparkSession

from core import ledger, moves, ring, settings, weeks
from core.errors import BlockedError, DamagedError, FirnError, RefusedError
from core.gate import blocking
from core.moves import FROZEN_COLD, State, Unit
from core.overlay import merge_all, row_of
from core.tiers import Tier, target
from jobs import attempt, shell
from jobs.attempt import Attempt, each_region, resting
from jobs.freezing import require_sealing, why_not_freeze
from jobs.thawing import late_runs, ready_tables, rows_of, why_not_begin
from lakehouse import ends
from lakehouse.guards import require_columns, require_no_rule
from lakehouse.publish import (
    cold_files,
    fix_files,
    parts_of,
    publish,
    publish_frozen,
    publish_rewrite,
    repair_pointers,
    require_pointers,
    shards_of,
    table_lease,
)
from lakehouse.session import Failure, succeeded
from lakehouse.site import Site
from schemas.events import Event
from stores import kafka, messages
from stores.lane import key_of
from stores.leases import holding

_POLL_SECONDS = 0.2
_INTO_WARM = (moves.HOT_WARM, moves.COLD_WARM)


@dataclass(frozen=True)
class TakenIn:
    """What a CQL sink holds now of what had gathered beside the source: from here on it may leave there."""

    events: tuple[Event, ...] = ()
    runs: tuple[ledger.Run, ...] = ()


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
    """Units under way or old enough; RefusedError for a named week that is unknown, too young or held."""
    units = run.site.ledger.units()
    shell.require_known(run.site.region, units, only)
    chosen = [unit for unit in units if only is None or unit.week in only]
    if only is not None:
        for unit in chosen:
            _require_free(run, unit)
    return [unit for unit in chosen if _is_due(run, unit)]


def _require_free(run: Attempt, unit: Unit) -> None:
    policy, week = run.site.config.tiers, weeks.label(unit.week)
    if target(unit.week, run.now, policy) is Tier.HOT and unit.state is State.OPEN and not unit.move.is_thaw:
        raise RefusedError(
            f"{week} ends {weeks.end(unit.week):%Y-%m-%d}: not {policy.hot_days} days old yet",
            "wait, or give a later --now",
        )
    if moves.is_held(unit, run.now):
        raise RefusedError(
            f"{unit.name} was thawed and is held in {unit.tier} until {unit.hold_until:%Y-%m-%dT%H:%MZ}",
            f"wait, or end the hold: ./firn thaw {week} --to {unit.tier} --days 0 --reason … --apply",
        )


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
    return unit.state is State.SEALED and moves.seal_reroutes(unit.move)


def _sealed(run: Attempt, unit: Unit) -> Unit:
    """Nothing is sealed, or copied, while a table it needs is missing or not as it is declared."""
    if unit.state is State.OPEN and (why := why_not_begin(run.site, unit, run.now)):
        raise BlockedError(why, "then run the same command again; nothing was changed")
    if unit.state is State.OPEN and not unit.move.sink.is_cql:
        require_no_rule(run.site)
    if unit.state in (State.OPEN, State.SEALED):
        ready_tables(run.site, run.keeper, unit)
        require_tables(run.site, unit)
        require_columns(run.site, unit)
    if unit.state is not State.OPEN:
        return unit
    if unit.move.source is Tier.COLD:
        unit = _fixed(run, unit)
    require_sealing(run.site, unit)
    return run.to(unit, State.SEALED, shards=_shards(run, unit), sealed_at=run.now)


def _fixed(run: Attempt, unit: Unit) -> Unit:
    """The files of a cold source do not change under its move: folds that lost their lease are shut out."""
    unit = run.change(unit, unit.changed(commits=unit.commits + 1))
    with holding(run.keeper, table_lease(unit), run.site.config.clocks.gate_seconds):
        run.check(unit)
        fix_files(run.site, unit, run.name, run.now)
    return unit


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
    """A sink's files are not there for anybody until their commit; its number is taken before it is made. Those of a
    thaw take the place of a supplement, and so are committed only once they are proven."""
    if not all(run.site.ledger.put_part(part) for part in parts):
        raise BlockedError(f"unit {unit.name} was copied under a newer epoch", "let the other mover finish")
    if not unit.move.sink.is_cql and unit.move != FROZEN_COLD:
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
    if unit.move == FROZEN_COLD:
        unit = _put_in_place(run, unit)
    try:
        require_pointers(run.site, unit, parts_of(run.site, unit))
    except DamagedError as fault:
        _resealed(run, unit)
        raise BlockedError(fault.what, "run the same command again: it copies the unit anew") from fault
    return run.to(unit, State.SWITCHED, switched_at=run.now, settled=False)


def _put_in_place(run: Attempt, unit: Unit) -> Unit:
    """The proven files of a thaw, in the place of the supplement that was merged into them. Readers may see them from
    here on beside what is frozen: they say the same."""
    parts = parts_of(run.site, unit)
    with holding(run.keeper, table_lease(unit), run.site.config.clocks.gate_seconds):
        repair_pointers(run.site, [unit])
        old = {pointer.shard: pointer for pointer in cold_files(run.site, unit)}
        if [pointer.path for pointer in old.values()] == [part.path for part in parts]:
            return unit  # a killed run had come so far
        unit = run.change(unit, unit.changed(commits=unit.commits + 1))
        run.check(unit)
        publish_rewrite(run.site, unit, parts, old, run.name, run.now)
    return unit


def settle(run: Attempt, units: Iterable[Unit]) -> None:
    """After the gate no writer fills the lane of a CQL sink any more: it is taken in, read back, and cleared."""
    waiting = [unit for unit in units if unit.state is State.SWITCHED and not unit.settled]
    if any(moves.reroutes(unit.move) for unit in waiting):
        announce(run)
    lanes = dict(run.able(waiting, lambda unit: (unit, take_in(run.site, unit))))
    if any(taken.events for taken in lanes.values()):
        # Readers that began before the sink had these rows still find them in the lane.
        time.sleep(run.site.config.clocks.ledger_age_seconds + run.site.config.clocks.longest_read_seconds)
    run.able(lanes, lambda unit: _settled(run, unit, lanes[unit]))


def _settled(run: Attempt, unit: Unit, taken: TakenIn) -> Unit:
    run.check(unit)
    run.site.lane.clear(unit.week, map(key_of, taken.events))
    for one in taken.runs:
        run.site.ledger.fold_run(one)
    return run.change(unit, unit.changed(settled=True))


def take_in(site: Site, unit: Unit) -> TakenIn:
    """The unit's lane, written into a CQL sink and read back from it; DamagedError when it is not all there.

    A cold sink takes no single writes: its lane stays for the fold. Of a thaw, also runs that were imported meanwhile.
    """
    tier = unit.move.sink
    if not tier.is_cql:
        return TakenIn()
    tokens = ring.cut(unit.slice, site.config.layout.slices)
    events = tuple(site.lane.scan(unit.week, tokens))
    runs = late_runs(site, unit)
    amendments = merge_all(chain(map(row_of, events), rows_of(site, unit, runs)))
    db = site.database(tier)
    db.write(messages.batches(site.region, tier, unit.week, amendments.values()))
    missing = [row for row in amendments.values() if not messages.holds(db, site.region, tier, unit.week, row)]
    if missing:
        raise DamagedError(
            f"{unit.name}: {len(missing)} rows of the lane are not in {tier}",
            "the lane was kept; run the same command again",
        )
    return TakenIn(events, runs)


def require_tables(site: Site, unit: Unit) -> None:
    """BlockedError where a table was never made; DamagedError when the ledger says it is there and it is not, or it has
    other columns than ours: a copy would leave out what it does not know."""
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
        if drift := messages.drift(site.database(tier), site.region, tier, unit.week):
            raise DamagedError(
                f"{unit.name}: {drift[0]}",
                "see who altered the table, and set it right; nothing was sealed and nothing was dropped",
            )


def _is_due(run: Attempt, unit: Unit) -> bool:
    return moves.is_due(unit, run.now, run.site.config.tiers)


def _shards(run: Attempt, unit: Unit) -> int:
    """A cold unit's N follows from the bytes that its copy to warm counted, and stays its N when it is frozen; an
    override leaves the unit the N that it had."""
    layout = run.site.config.layout
    if unit.shards or unit.move.sink is Tier.FROZEN:
        return unit.shards
    if unit.move.sink.is_cql:
        return layout.copy_shards
    return moves.shards_for(max(copied_bytes(run.site, unit, move) for move in _INTO_WARM), layout.shard_bytes)


def copied_bytes(site: Site, unit: Unit, move: moves.Move) -> int:
    """What the last copy of the unit by this move counted."""
    return sum(part.size_bytes for part in ledger.of_newest_epoch(site.ledger.parts(replace(unit, move=move))))


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
