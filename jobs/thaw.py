"""Brings the units of one week back one tier, with the proof that every move has. A dry run unless told otherwise.

    take leases ─ repair pointers ─ open in the thaw ─ seal ─ gate ─ copy ─ verify ─ switch ─ settle
                                    └ held from now on └ as in jobs.move: whoever runs next finishes it

Frozen objects must be restored first. The source stays for its grace; `jobs.drop` drops it, as that of any move. Then
the unit rests where it was brought, and goes down again by its age when the hold has ended.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession

from core import moves, settings, weeks
from core.errors import BlockedError, RefusedError
from core.ledger import HOLD, THAW, Account, audited
from core.moves import State, Unit
from core.overrides import checked_actor, checked_reason
from core.tiers import Tier
from jobs import attempt, move, shell
from jobs.attempt import Attempt, each_region
from jobs.handwork import noted
from jobs.thawing import why_not_begin
from lakehouse.publish import repair_pointers, table_lease
from stores.leases import holding


@dataclass(frozen=True)
class Order:
    """`to` None: one tier above that in which the coldest unit lies. `days` None: those of the settings."""

    week: int
    to: Tier | None
    days: int | None
    account: Account
    apply: bool


@dataclass(frozen=True)
class Plan:
    """Units of one week, by what is to be done: `ready` to begin or go on, `there` already, `later` and why."""

    to: Tier
    ready: tuple[Unit, ...]
    there: tuple[Unit, ...]
    later: dict[str, str]


def run(
    spark: SparkSession | None,
    config: settings.Settings,
    now: datetime,
    regions: tuple[str, ...],
    order: Order,
    say: shell.Say,
) -> dict[str, Any]:
    """Returns what was thawed, or would be, per region that knows the week."""
    by, why = order.account.actor, order.account.reason
    if order.apply:
        order = replace(order, account=Account(checked_actor(by), checked_reason(why)))
    report = each_region(spark, config, now, regions, say, lambda ours: thaw_region(ours, order))
    known = {region: told for region, told in report.items() if told}
    if not known:
        raise RefusedError(
            f"no region knows the week {weeks.label(order.week)}", "see the weeks that are known: ./firn status --all"
        )
    return {
        "week": weeks.label(order.week),
        "applied": order.apply,
        "thawed": sum(len(region["thawed"]) for region in known.values()),
        "regions": known,
    }


def thaw_region(run: Attempt, order: Order) -> dict[str, Any]:
    """Empty for a region that does not know the week."""
    units = [unit for unit in run.site.ledger.units() if unit.week == order.week]
    if not units:
        return {}
    plan = planned(units, order.to)
    hold_until = run.now + timedelta(days=run.site.config.tiers.hold_days if order.days is None else order.days)
    waiting = {} if order.apply else waits(run, plan)
    done, busy = [unit for unit in plan.ready if unit.name not in waiting], 0
    if order.apply:
        done, busy = thawed(run, plan, order, hold_until)
    return {
        "to": plan.to,
        "thawed": [unit.name for unit in done],
        "there": [unit.name for unit in plan.there],
        "later": plan.later | waiting,
        "held_elsewhere": busy,
        "hold_until": f"{hold_until:%Y-%m-%dT%H:%M:%SZ}",
    }


def planned(units: Sequence[Unit], to: Tier | None) -> Plan:
    """RefusedError where a unit lies more than one tier below, or where nothing is above it."""
    order = list(Tier)
    goal = to or goal_of(units)
    ready, there, later = list[Unit](), list[Unit](), dict[str, str]()
    for unit in units:
        is_under_way = _is_under_way(unit)
        distance = order.index(unit.tier) - order.index(goal)
        if is_under_way and unit.move.sink is goal:
            (there if unit.settled else ready).append(unit)
        elif distance <= 0 and not is_under_way:
            there.append(unit)
        elif why := moves.why_not_thaw(unit):
            later[unit.name] = why
        elif distance > 1:
            raise RefusedError(
                f"{unit.name} lies in {unit.tier}, and a thaw goes one tier up",
                f"bring it to {order[order.index(unit.tier) - 1]} first",
            )
        else:
            ready.append(unit)
    return Plan(goal, tuple(ready), tuple(there), later)


def goal_of(units: Sequence[Unit]) -> Tier:
    """Of a thaw under way its own; else one tier above that of the coldest unit."""
    order = list(Tier)
    if begun := [unit.move.sink for unit in units if _is_under_way(unit)]:
        return max(begun, key=order.index)
    coldest = max((unit.tier for unit in units), key=order.index)
    return order[max(order.index(coldest) - 1, 0)]


def _is_under_way(unit: Unit) -> bool:
    return unit.move.is_thaw and unit.state is not State.DROPPED


def waits(run: Attempt, plan: Plan) -> dict[str, str]:
    """What a unit that would be thawed still waits for, before anything of it is changed."""
    coming = [unit if _is_under_way(unit) else unit.thawed(run.now) for unit in plan.ready]
    reasons = {unit.name: why_not_begin(run.site, unit, run.now) for unit in coming if unit.state is State.OPEN}
    return {name: why for name, why in reasons.items() if why}


def thawed(run: Attempt, plan: Plan, order: Order, hold_until: datetime) -> tuple[list[Unit], int]:
    """The units that were brought up, and how many others hold."""
    if order.days is not None:
        hold(run, plan, order, hold_until)
    wanted = {unit.key: unit for unit in plan.ready}
    units, busy = run.take(plan.ready, lambda unit: (unit.move, unit.state) == _place(wanted[unit.key]))
    units = run.able(units, lambda unit: begin(run, unit, plan.to, order, hold_until))
    units = move.seal(run, units)
    units = move.copy(run, units)
    units = move.verify(run, units)
    units = move.switch(run, units)
    move.settle(run, units)
    return units, busy


def _place(unit: Unit) -> tuple[moves.Move, State]:
    return unit.move, unit.state


def begin(run: Attempt, unit: Unit, to: Tier, order: Order, hold_until: datetime) -> Unit:
    """Nothing is changed of a unit whose thaw could not be sealed now."""
    if unit.move.is_thaw and unit.move.sink is to:
        return unit
    begun = unit.thawed(hold_until)
    if why := why_not_begin(run.site, begun, run.now):
        raise BlockedError(why, "then run the same command again; nothing was changed")
    if not unit.tier.is_cql:
        with holding(run.keeper, table_lease(unit), run.site.config.clocks.gate_seconds):
            repair_pointers(run.site, [unit])
    with noted(run.site.ledger, audited(f"{run.name}-{unit.slice}", run.now, THAW, unit, begun, order.account)):
        return run.change(unit, begun)


def hold(run: Attempt, plan: Plan, order: Order, hold_until: datetime) -> None:
    """Of units that are there already only how long they are held changes."""
    at_rest = [unit for unit in plan.there if unit.state in (State.OPEN, State.DROPPED)]
    units, _ = run.take(at_rest, lambda unit: unit.state in (State.OPEN, State.DROPPED))
    for unit in units:
        held = unit.changed(hold_until=hold_until)
        entry = audited(f"{run.name}-{unit.slice}", run.now, HOLD, unit, held, order.account)
        with noted(run.site.ledger, entry):
            run.change(unit, held)


def parser() -> Any:
    made = shell.options("python -m jobs.thaw", "Bring the units of one week back one tier.")
    made.add_argument("--week", required=True, type=shell.week, metavar="W", help="the week, e.g. 2024-W08")
    made.add_argument(
        "--to",
        type=Tier,
        choices=[Tier.HOT, Tier.WARM, Tier.COLD],
        help="the tier to bring it to; one above that of its coldest unit if left out",
    )
    made.add_argument("--days", type=int, metavar="N", help="how long it is held there; tiers.hold_days if left out")
    made.add_argument("--reason", default="", metavar="TEXT", help="why, for the audit; --apply needs it")
    made.add_argument("--by", default="", metavar="NAME", help="who does it, for the audit; --apply needs it")
    made.add_argument("--apply", action="store_true", help="thaw; without it only say what would be thawed")
    return made


def main(argv: list[str]) -> int:
    return attempt.main(
        argv,
        parser(),
        "firn thaw",
        lambda spark, config, regions, args: run(
            spark,
            config,
            args.now,
            regions,
            Order(args.week, args.to, args.days, Account(args.by, args.reason), args.apply),
            shell.say,
        ),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
