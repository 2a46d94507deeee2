"""Takes one stuck unit back to a state from which the mover proves all of it again. A dry run unless told otherwise.

Which way leads back is for `core.overrides` to say. The operator names the state that he saw: a unit that went on since
is left alone. Nothing is copied, dropped or deleted here; the next move begins where this has put the unit.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from core import settings, weeks
from core.errors import BlockedError, RefusedError
from core.ledger import OVERRIDE, Account, Lease, audited, lease_name
from core.moves import State, Unit
from core.overrides import checked_actor, checked_reason, overridden, reroutes_back
from jobs import shell
from jobs.handwork import noted
from lakehouse.publish import cold_files, repair_pointers, table_lease
from lakehouse.site import Site, opened
from stores.leases import Keeper, holding, keeping


@dataclass(frozen=True)
class Order:
    """`slice` may be left out where the week has one unit only."""

    week: int
    slice: int | None
    found_in: State
    account: Account
    apply: bool


def run(
    config: settings.Settings, now: datetime, regions: Sequence[str], order: Order, say: shell.Say
) -> dict[str, Any]:
    """Returns what became of the unit, or would."""
    account = Account(checked_actor(order.account.actor), checked_reason(order.account.reason))
    if len(regions) != 1:
        raise RefusedError("an override is of one unit", "name its region: --region R")
    with opened(config, regions[0], now) as site:
        unit = named(site, order)
        back = overridden(unit, order.found_in, unit.epoch + 1, bool(_supplement(site, unit)))
        if order.apply:
            back = applied(site, unit, order, account, now)
    verb = "taken back" if order.apply else "would be taken back"
    say(f"{unit.name}: {verb} from {unit.state} ({unit.move}) to {back.state} ({back.move})")
    return {
        "applied": order.apply,
        "unit": unit.name,
        "from": {"state": unit.state, "move": str(unit.move)},
        "to": {"state": back.state, "move": str(back.move)},
        "epoch": back.epoch,
        "reroutes": reroutes_back(unit),
    }


def named(site: Site, order: Order) -> Unit:
    units = site.ledger.units()
    shell.require_known(site.region, units, [order.week])
    found = [unit for unit in units if unit.week == order.week and order.slice in (None, unit.slice)]
    if len(found) != 1:
        slices = ", ".join(str(unit.slice) for unit in units if unit.week == order.week)
        raise RefusedError(
            f"{weeks.label(order.week)} in {site.region} has the slices {slices}", "name one of them: --slice N"
        )
    return found[0]


def applied(site: Site, seen: Unit, order: Order, account: Account, now: datetime) -> Unit:
    with keeping(site.ledger, uuid4().hex, site.config.clocks.lease_seconds) as keeper:
        lease = _taken(site, keeper, seen)
        unit = site.ledger.unit(seen.week, seen.slice) or seen
        back = overridden(unit, order.found_in, lease.epoch, _has_supplement(site, keeper, unit))
        with noted(site.ledger, audited(uuid4().hex, now, OVERRIDE, unit, back, account)):
            keeper.check(lease.name)
            if not site.ledger.change(unit, back):
                raise BlockedError(f"unit {unit.name} was changed by another process", "look again, then decide")
        if reroutes_back(unit):
            # No gate is waited for: readers look where writers were and where they will be; the next seal has its own.
            site.ledger.next_route()
        return back


def _taken(site: Site, keeper: Keeper, unit: Unit) -> Lease:
    if lease := keeper.take(lease_name(unit)):
        return lease
    held = site.ledger.lease(lease_name(unit))
    until = f" until {held.expires_at:%Y-%m-%dT%H:%M:%SZ}, unless it is renewed" if held else ""
    raise BlockedError(
        f"{unit.name} is held by {held.holder if held else 'another process'}{until}",
        "a process that works is not stuck: let it end, or end it yourself; then run the same command again",
    )


def _has_supplement(site: Site, keeper: Keeper, unit: Unit) -> bool:
    """By the Delta log, which is the truth where a killed process left pointers behind it."""
    if unit.move.is_thaw and not unit.move.source.is_cql:
        with holding(keeper, table_lease(unit), site.config.clocks.gate_seconds):
            repair_pointers(site, [unit])
    return _supplement(site, unit)


def _supplement(site: Site, unit: Unit) -> bool:
    return bool(cold_files(site, unit))


def parser() -> argparse.ArgumentParser:
    made = shell.options("python -m jobs.override", "Take one stuck unit back to where the mover proves it again.")
    made.add_argument("--week", required=True, type=shell.week, metavar="W", help="the week, e.g. 2026-W08")
    made.add_argument("--slice", type=int, metavar="N", help="the slice, where the week has several")
    made.add_argument(
        "--from", required=True, dest="found_in", type=State, choices=list(State), help="the state that you saw it in"
    )
    made.add_argument("--reason", required=True, metavar="TEXT", help="why, in a few words that name nobody")
    made.add_argument("--by", required=True, metavar="NAME", help="who does it, for the audit")
    made.add_argument("--apply", action="store_true", help="do it; without it only say what would be done")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)

    def work() -> dict[str, Any]:
        config = settings.load()
        order = Order(args.week, args.slice, args.found_in, Account(args.by, args.reason), args.apply)
        return run(config, args.now, shell.regions(config, args.region), order, shell.say)

    return shell.finish(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
