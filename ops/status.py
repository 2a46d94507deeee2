"""Where every unit is, what lies in a tier although it is due for the next one, and how far the consumer has read."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from core import alarms, moves, settings, tiers, weeks
from core.alarms import Stuck
from core.errors import BlockedError, FirnError
from core.gate import PartitionState, blocking
from core.ledger import THAW
from core.moves import MOVES, Move, State, Unit
from core.tiers import Tier
from core.topics import dead_letter_topic
from lakehouse.site import Site, opened
from ops import holdings
from ops.holdings import Amount, Weight
from stores import kafka

At = Callable[[int, int], None]


@dataclass(frozen=True)
class Lag:
    """What one move has before it. `since` is when the oldest of it fell due."""

    move: Move
    units: int
    amount: Amount | None
    since: datetime | None


@dataclass(frozen=True)
class Log:
    """`behind`: events sent, not yet written; None while a partition has no commit. `shut`: why a gate would be."""

    partitions: int
    behind: int | None
    shut: tuple[str, ...]
    dead_letters: int


@dataclass(frozen=True)
class Region:
    """`log` is the fault where Kafka did not answer. `asked`: when thaws that are not sealed yet were asked for, by the
    key of their unit."""

    name: str
    now: datetime
    route: int
    policy: settings.Tiers
    weights: tuple[Weight, ...]
    log: Log | FirnError
    alarms: settings.Alarms = field(default_factory=settings.Alarms)
    asked: Mapping[tuple[str, int, int], datetime] = field(default_factory=dict)


def gather(config: settings.Settings, now: datetime, regions: Sequence[str], at: At) -> dict[str, Region | FirnError]:
    """A region that cannot be looked at now is its fault and hides no other one; `at` hears units done of all."""
    found: dict[str, Region | FirnError] = {}
    for name in regions:
        try:
            with opened(config, name) as site:
                found[name] = _region(site, now, at)
        except BlockedError as fault:
            found[name] = fault
    return found


def _region(site: Site, now: datetime, at: At) -> Region:
    units = sorted(site.ledger.units(), key=lambda unit: (unit.week, unit.slice))
    route = site.ledger.route()
    weights = []
    for done, unit in enumerate(units, 1):
        weights.append(Weight(unit, holdings.weigh(site, unit)))
        at(done, len(units))
    config = site.config
    return Region(
        site.region, now, route, config.tiers, tuple(weights), _log(site, route), config.alarms, _asked(site, units)
    )


def _asked(site: Site, units: Sequence[Unit]) -> dict[tuple[str, int, int], datetime]:
    """By the audit, which is read only where such a thaw is."""
    open_ = {(unit.week, unit.slice): unit.key for unit in units if unit.state is State.OPEN and unit.move.is_thaw}
    entries = site.ledger.audit() if open_ else []
    begun = sorted((one for one in entries if one.action == THAW), key=lambda one: one.at)
    return {open_[one.week, one.slice]: one.at for one in begun if (one.week, one.slice) in open_}


def _log(site: Site, route: int) -> Log | FirnError:
    try:
        letters = kafka.positions(site.config.kafka, site.region, [dead_letter_topic(site.region)])
        return log_of(kafka.positions(site.config.kafka, site.region), letters, route)
    except BlockedError as fault:
        return fault


def log_of(messages: Sequence[PartitionState], letters: Iterable[PartitionState], route: int) -> Log:
    behind = [None if one.committed is None else one.end - one.committed for one in messages]
    known = [number for number in behind if number is not None]
    waiting = sum(known) if len(known) == len(behind) else None
    return Log(len(messages), waiting, blocking(messages, route), sum(one.end - one.start for one in letters))


def mover(unit: Unit) -> Unit:
    """The unit in the move that is next for it: a dropped one rests before the move that follows."""
    return unit.next_move() if unit.state is State.DROPPED and unit.move.sink is not Tier.FROZEN else unit


def due_since(unit: Unit, now: datetime, policy: settings.Tiers) -> datetime | None:
    """When the unit fell due for the next tier down; None while it is not."""
    following = mover(unit)
    if following.move.is_thaw:
        return None
    return tiers.leaves_at(unit.week, following.move.source, policy) if moves.is_due(unit, now, policy) else None


def lags(region: Region) -> list[Lag]:
    """One per move, in order; a unit whose sink already holds the truth no longer lags."""
    due = [
        (mover(weight.unit).move, weight, since)
        for weight in region.weights
        if (since := due_since(weight.unit, region.now, region.policy)) and weight.unit.state is not State.SWITCHED
    ]
    found = []
    for move in MOVES:
        mine = [(weight, since) for its, weight, since in due if its == move]
        amount = holdings.total(weight.amount for weight, _ in mine)
        found.append(Lag(move, len(mine), amount, min((since for _, since in mine), default=None)))
    return found


def stuck_units(region: Region) -> list[Stuck]:
    """Those that have waited longest first."""
    asked = [(weight.unit, region.asked.get(weight.unit.key)) for weight in region.weights]
    found = [alarms.stuck(unit, at, region.now, region.policy, region.alarms) for unit, at in asked]
    return sorted((one for one in found if one), key=lambda one: one.since)


def is_thawing(unit: Unit) -> bool:
    return unit.move.is_thaw and unit.state is not State.DROPPED


def counts(region: Region) -> dict[Tier, Counter[State]]:
    """Units per state as the ledger has it, by the tier where their truth lies."""
    found: dict[Tier, Counter[State]] = {tier: Counter() for tier in Tier}
    for weight in region.weights:
        found[weight.unit.tier][weight.unit.state] += 1
    return found


def as_data(region: Region | FirnError) -> dict[str, Any]:
    if isinstance(region, FirnError):
        return region.as_data()
    return {
        "now": region.now,
        "route": region.route,
        "states": {tier: dict(states) for tier, states in counts(region).items()},
        "lag": {lag.move.source: _lag_as_data(lag, region.now) for lag in lags(region)},
        "stuck": [_stuck_as_data(one, region.now) for one in stuck_units(region)],
        "log": _log_as_data(region.log),
        "units": [_unit_as_data(weight, region) for weight in region.weights],
        "weeks": [holdings.as_data(one) for one in holdings.by_week(region.weights)],
    }


def _lag_as_data(lag: Lag, now: datetime) -> dict[str, Any]:
    late_seconds = int((now - lag.since).total_seconds()) if lag.since else 0
    return {
        "next": lag.move.sink,
        "units": lag.units,
        **holdings.amount_as_data(lag.amount),
        "due_since": lag.since,
        "late_seconds": max(0, late_seconds),
    }


def _stuck_as_data(one: Stuck, now: datetime) -> dict[str, Any]:
    unit = one.unit
    place = {"week": weeks.label(unit.week), "slice": unit.slice, "move": str(unit.move), "state": unit.state}
    return {**place, "since": one.since, "waited_seconds": int((now - one.since).total_seconds())}


def _log_as_data(log: Log | FirnError) -> dict[str, Any]:
    if isinstance(log, FirnError):
        return log.as_data()
    return {
        "partitions": log.partitions,
        "behind_messages": log.behind,
        "shut": list(log.shut),
        "dead_letters": log.dead_letters,
    }


def _unit_as_data(weight: Weight, region: Region) -> dict[str, Any]:
    unit = weight.unit
    return {
        "week": weeks.label(unit.week),
        "slice": unit.slice,
        "tier": unit.tier,
        "state": unit.state,
        "move": str(unit.move),
        "settled": unit.settled,
        "epoch": unit.epoch,
        "due_since": due_since(unit, region.now, region.policy),
        **holdings.amount_as_data(weight.amount),
    }
