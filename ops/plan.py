"""What the next runs of the jobs would do: which units move, how much that is, and which tables may be dropped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from core import moves, settings, weeks
from core.moves import Unit
from core.tiers import Tier
from jobs import drop
from jobs.freezing import why_not_freeze
from lakehouse.site import Site, opened
from ops import holdings
from ops.holdings import Amount
from ops.status import due_since, mover

At = Callable[[int, int], None]


@dataclass(frozen=True)
class Step:
    """One unit's move. `shards` None: fixed only at the seal. `kept`: why the planner leaves it where it is."""

    unit: Unit
    amount: Amount | None
    shards: int | None
    since: datetime | None
    kept: str | None


@dataclass(frozen=True)
class Drop:
    """The tables of one week in one tier, whose rows lie in the sink too; `why_not` is empty when they may go."""

    name: str
    week: int
    tier: Tier
    amount: Amount | None
    why_not: tuple[str, ...]


@dataclass(frozen=True)
class Region:
    name: str
    now: datetime
    moves: tuple[Step, ...]
    drops: tuple[Drop, ...]


def gather(config: settings.Settings, now: datetime, regions: Sequence[str], at: At) -> list[Region]:
    """Changes nothing; `at` hears units done of all."""
    found = []
    for name in regions:
        with opened(config, name) as site:
            found.append(Region(name, now, _moves(site, now, at), _drops(site, now)))
    return found


def _moves(site: Site, now: datetime, at: At) -> tuple[Step, ...]:
    policy = site.config.tiers
    due = [unit for unit in site.ledger.units() if moves.is_due(unit, now, policy)]
    steps = []
    for done, unit in enumerate(sorted(due, key=lambda unit: (unit.week, unit.slice)), 1):
        following, amount = mover(unit), holdings.weigh(site, unit)
        shards = _shards(following, amount, site.config.layout)
        since = due_since(unit, now, policy)
        steps.append(Step(following, amount, shards, since, why_not_freeze(site, following)))
        at(done, len(due))
    return tuple(steps)


def _shards(unit: Unit, amount: Amount | None, layout: settings.Layout) -> int | None:
    if unit.shards or unit.move.sink is Tier.FROZEN:
        return unit.shards
    if unit.move.sink is Tier.WARM:
        return layout.copy_shards
    return moves.shards_for(amount.size_bytes, layout.shard_bytes) if amount else None


def _drops(site: Site, now: datetime) -> tuple[Drop, ...]:
    return tuple(_drop(site, week, now) for week in drop.candidates(site, None))


def _drop(site: Site, week: drop.Week, now: datetime) -> Drop:
    tier = week.table.tier
    move = next(move for move in moves.MOVES if move.source is tier)
    amount = holdings.total(holdings.parted(site, replace(unit, move=move)) for unit in week.units)
    return Drop(week.name, week.table.week, tier, amount, tuple(drop.why_not(site, week, now)))


def as_data(region: Region) -> dict[str, Any]:
    doable = [step for step in region.moves if not step.kept]
    return {
        "now": region.now,
        "total": {"units": len(doable), **holdings.amount_as_data(holdings.total(step.amount for step in doable))},
        "moves": [_step_as_data(step) for step in region.moves],
        "drops": [_drop_as_data(one) for one in region.drops],
    }


def _step_as_data(step: Step) -> dict[str, Any]:
    return {
        "week": weeks.label(step.unit.week),
        "slice": step.unit.slice,
        "from": step.unit.move.source,
        "to": step.unit.move.sink,
        "state": step.unit.state,
        "shards": step.shards,
        "due_since": step.since,
        "kept": step.kept,
        **holdings.amount_as_data(step.amount),
    }


def _drop_as_data(one: Drop) -> dict[str, Any]:
    return {
        "week": weeks.label(one.week),
        "tier": one.tier,
        "may_go": not one.why_not,
        "why_not": list(one.why_not),
        **holdings.amount_as_data(one.amount),
    }
