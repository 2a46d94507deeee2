"""One attempt of a job on a region's units: leases, compare-and-set, and the faults that keep some from going on."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable
from uuid import uuid4

from pyspark.sql import SparkSession

from core import ledger, moves, settings
from core.errors import BlockedError, DamagedError, FirnError, RefusedError, gravest
from core.moves import State, Unit
from core.tiers import Tier
from jobs import shell
from lakehouse.session import Failure, spark_session, spread
from lakehouse.site import Site, opened
from stores.leases import Keeper, keeping

R = TypeVar("R")
T = TypeVar("T")


class Named(Protocol):
    @property
    def name(self) -> str: ...


@runtime_checkable
class OfUnits(Protocol):
    """What is more than one unit, as the ledger had them."""

    @property
    def units(self) -> Sequence[Unit]: ...


N = TypeVar("N", bound=Named)


@dataclass(frozen=True)
class AtTime(Generic[T, R]):
    """Work that meets restored copies: whether they are there goes by `now`, in a task as here."""

    work: Callable[[Site, T], R]
    now: datetime

    def __call__(self, site: Site, item: T) -> R:
        return self.work(replace(site, now=self.now), item)


@dataclass(frozen=True)
class Attempt:
    """`aside` collects the faults of units that could not go on; the others go on. `name` is in what it writes."""

    site: Site
    keeper: Keeper
    spark: SparkSession | None
    now: datetime
    name: str
    say: shell.Say
    aside: list[FirnError] = field(default_factory=list)

    def check(self, unit: Unit) -> None:
        """Stands before every irreversible step."""
        self.keeper.check(ledger.lease_name(unit))

    def able(self, things: Iterable[N], step: Callable[[N], R]) -> list[R]:
        """What `step` gives for each, without those that it failed for."""
        done = []
        for thing in things:
            try:
                done.append(step(thing))
            except FirnError as found:
                fault = self._as_it_is(thing, found)
                self.say(f"{thing.name}: set aside: {fault.what}")
                self.aside.append(fault)
        return done

    def _as_it_is(self, thing: Named, fault: FirnError) -> FirnError:
        """What looks like damage to a process that stood still, because another has moved a unit on, is none."""
        if not isinstance(fault, (DamagedError, RefusedError)):
            return fault
        units = [thing] if isinstance(thing, Unit) else thing.units if isinstance(thing, OfUnits) else []
        gone = next((unit for unit in units if self._was_moved_on(unit)), None)
        if gone is None:
            return fault
        return BlockedError(f"{fault.what}; but {gone.name} was moved on meanwhile", "run the same command again")

    def _was_moved_on(self, unit: Unit) -> bool:
        fresh = self.site.ledger.unit(unit.week, unit.slice)
        return bool(fresh and fresh.epoch > unit.epoch and (fresh.move, fresh.state) != (unit.move, unit.state))

    def take(self, units: Sequence[Unit], is_for_us: Callable[[Unit], bool]) -> tuple[list[Unit], int]:
        """Those that nobody else holds and that still are for us, each as it is now, under a new epoch of ours; and
        how many others hold or have done meanwhile."""
        taken = self.able(units, lambda unit: self._take(unit, is_for_us))
        found = [unit for unit in taken if unit]
        if busy := len(taken) - len(found):
            self.say(f"{self.site.region}: {busy} units are held by another process")
        return found, busy

    def _take(self, unit: Unit, is_for_us: Callable[[Unit], bool]) -> Unit | None:
        name = ledger.lease_name(unit)
        lease = self.keeper.take(name)
        if lease is None:
            return None
        fresh = self.site.ledger.unit(unit.week, unit.slice)
        if fresh is None or not is_for_us(fresh):
            self.keeper.give_up(name)
            return None
        return self.change(fresh, replace(resting(fresh), epoch=lease.epoch, revision=fresh.revision + 1))

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

    def spread(
        self, work: Callable[[Site, T], R], items: Sequence[tuple[Unit, T]]
    ) -> dict[tuple[str, int, int], list[R | Failure]]:
        """What became of the items of each unit, by its key; one Spark job for all."""
        is_timed = any(unit.move.source is Tier.FROZEN for unit, _ in items)
        chosen = AtTime(work, self.now) if is_timed else work
        outcomes = spread(self.spark, self.site.config, self.site.region, chosen, [item for _, item in items])
        found: dict[tuple[str, int, int], list[R | Failure]] = {}
        for (unit, _), outcome in zip(items, outcomes, strict=True):
            found.setdefault(unit.key, []).append(outcome)
        return found


def resting(unit: Unit) -> Unit:
    """A dropped unit as the open one of its next move; any other as it is."""
    return unit.next_move() if unit.state is State.DROPPED and unit.move != moves.COLD_FROZEN else unit


@contextmanager
def attempt(
    spark: SparkSession | None, config: settings.Settings, region: str, now: datetime, say: shell.Say
) -> Iterator[Attempt]:
    with (
        opened(config, region, now) as site,
        keeping(site.ledger, uuid4().hex, config.clocks.lease_seconds) as keeper,
    ):
        yield Attempt(site, keeper, spark, now, uuid4().hex[:12], say)


def each_region(
    spark: SparkSession | None,
    config: settings.Settings,
    now: datetime,
    regions: Iterable[str],
    say: shell.Say,
    work: Callable[[Attempt], R],
) -> dict[str, R]:
    """A fault of one unit or region does not keep the others; the gravest is raised when all have been tried."""
    report, faults = {}, []
    for region in regions:
        try:
            with attempt(spark, config, region, now, say) as ours:
                report[region] = work(ours)
                faults += ours.aside
        except FirnError as fault:
            faults.append(fault)
    if faults:
        raise gravest(faults)
    return report


def main(
    argv: list[str],
    options: argparse.ArgumentParser,
    name: str,
    work: Callable[[SparkSession, settings.Settings, tuple[str, ...], argparse.Namespace], Mapping[str, Any]],
) -> int:
    """Runs `work` in a Spark session of its own; the exit code tells how it ended."""
    args = options.parse_args(argv)

    def with_spark() -> Mapping[str, Any]:
        config = settings.load()
        regions = shell.regions(config, args.region)
        with spark_session(config, name) as spark:
            return work(spark, config, regions, args)

    return shell.finish(with_spark)
