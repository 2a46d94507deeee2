"""Purges what nothing needs any more, and keeps the logs of the Delta tables short. A dry run unless told otherwise.

    repair pointers ─ look ─ wait for readers ─ look again ─ purge ─ checkpoints ─ logs
                      └ replaced files, folded runs, orphans

What may go is for `lakehouse.maintenance` and `lakehouse.deltalog` to say. Everything here is safe to kill and to
repeat; who purges holds the region's lease `maintain/…`, so that a process that was paused deletes nothing afterwards.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from core import settings
from core.archive import sized
from core.errors import FirnError, gravest
from core.ledger import lease_name
from core.moves import Unit, why_not_fold
from jobs import shell
from lakehouse.commit import checkpoint
from lakehouse.deltalog import Log, base_of, expired, log_of, require_same
from lakehouse.maintenance import (
    Ages,
    Going,
    Kind,
    Stays,
    Tables,
    early_dollars,
    groups_of,
    judged,
    listed,
    names_of,
    purge,
    store_time,
    tables_of,
)
from lakehouse.publish import astray, repair_pointers
from lakehouse.site import Site, opened
from lakehouse.tables import TableRef, quarantine_table
from stores.leases import Keeper, holding, keeping

R = TypeVar("R")
T = TypeVar("T")
NAMES_SHOWN = 20
_BATCH = 200  # groups between two looks at the lease


@dataclass(frozen=True)
class Sweep:
    """One run in one region. `aside` collects the faults of slices and tables that could not be done; others are."""

    site: Site
    keeper: Keeper
    ages: Ages
    apply: bool
    say: shell.Say
    aside: list[FirnError] = field(default_factory=list)

    @property
    def lease(self) -> str:
        return f"maintain/{self.site.region}"

    def able(self, items: Iterable[T], step: Callable[[T], R]) -> list[R]:
        """What `step` gives for each, without those that it failed for."""
        done = []
        for item in items:
            try:
                done.append(step(item))
            except FirnError as fault:
                self.say(f"{self.site.region}: set aside: {fault.what}")
                self.aside.append(fault)
        return done

    @contextmanager
    def table(self, slice_: int) -> Iterator[None]:
        """Held while the tables of a slice are read or changed."""
        name = f"table/{self.site.region}/{slice_}"
        with holding(self.keeper, name, self.site.config.clocks.gate_seconds):
            yield


@dataclass(frozen=True)
class Found:
    """What may go of one slice. `astray`: units whose pointers were (or would be) brought up to the log; `busy`: those
    that another process has in hand."""

    tables: Tables
    going: tuple[Going, ...]
    kept: Counter[Stays]
    astray: int
    busy: int


@dataclass(frozen=True)
class Tended:
    """A table's log: whether it got (or would get) a checkpoint, and what of it may go."""

    root: str
    has_checkpoint: bool
    expired: dict[str, int]


def run(
    config: settings.Settings, now: datetime, regions: tuple[str, ...], apply: bool, say: shell.Say
) -> dict[str, Any]:
    """Returns what went (or would go), by kind. A fault of one region or slice does not keep the others."""
    report: dict[str, dict[str, Any]] = {}
    faults: list[FirnError] = []
    for region in regions:
        try:
            with (
                opened(config, region, now) as site,
                keeping(site.ledger, uuid4().hex, config.clocks.lease_seconds) as keeper,
            ):
                ours = Sweep(site, keeper, ages_of(site, now), apply, say)
                report[region] = maintain_region(ours)
                faults += ours.aside
        except FirnError as fault:
            faults.append(fault)
    if faults:
        raise gravest(faults)
    kinds = [kind for region in report.values() for kind in region["goes"].values()]
    totals = {name: sum(kind[name] for kind in kinds) for name in ("objects", "size_bytes")}
    return {"applied": apply, **totals, "regions": report}


def ages_of(site: Site, now: datetime) -> Ages:
    policy = site.config.maintenance
    replaced, orphan = timedelta(days=policy.replaced_days), timedelta(hours=policy.orphan_hours)
    return Ages(now, store_time(site.objects), replaced, orphan)


def maintain_region(run: Sweep) -> dict[str, Any]:
    if not run.apply:
        return _maintained(run)
    with holding(run.keeper, run.lease, run.site.config.clocks.gate_seconds):
        return _maintained(run)


def _maintained(run: Sweep) -> dict[str, Any]:
    found = run.able(range(run.site.config.layout.slices), lambda slice_: look(run, slice_))
    if run.apply:
        if any(one.going for one in found):
            _wait_for_readers(run.site)
        found = run.able(found, lambda one: purged(run, one))
    tended = [table for one in found for table in run.able([one.tables], lambda tables: _tend_both(run, tables))]
    tended += run.able([_quarantine(run.site)], lambda table: [tend(run, table)])
    return _told(run, found, [one for of_slice in tended for one in of_slice])


def look(run: Sweep, slice_: int) -> Found:
    """The bucket is listed before the names are read: what is written meanwhile is not in the list."""
    wrong, busy = repair(run, slice_)
    tables, groups = tables_of(run.site, slice_), groups_of(listed(run.site.objects, slice_))
    with run.table(slice_):
        names = names_of(run.site.ledger, tables, run.ages.stored_now)
    going, kept = judged(groups, names, run.ages)
    return Found(tables, tuple(going), kept, wrong, busy)


def repair(run: Sweep, slice_: int) -> tuple[int, int]:
    """How many units' pointers were (or would be) brought up to the log, and how many units are in the hands of others.
    A log that is not there says nothing."""
    site = run.site
    resting = [unit for unit in site.ledger.units() if unit.slice == slice_ and _rests(unit)]
    if not log_of(tables_of(site, slice_).messages).commits:
        return 0, 0
    with run.table(slice_):
        wrong = astray(site, resting)
    if not run.apply:
        return len(wrong), 0
    done = run.able(wrong, lambda unit: _repaired(run, unit))
    return sum(done), len(done) - sum(done)


def _rests(unit: Unit) -> bool:
    return bool(unit.shards) and why_not_fold(unit) is None


def _repaired(run: Sweep, unit: Unit) -> bool:
    """False where another holds the unit: it knows better."""
    name = lease_name(unit)
    if run.keeper.take(name) is None:
        return False
    try:
        with run.table(unit.slice):
            fresh = run.site.ledger.unit(unit.week, unit.slice)
            run.keeper.check(name)
            number = repair_pointers(run.site, [fresh]) if fresh and _rests(fresh) else 0
        run.say(f"{unit.name}: {number} pointers brought up to the Delta log")
        return True
    finally:
        run.keeper.give_up(name)


def purged(run: Sweep, found: Found) -> Found:
    """Only what may go still, now that every reader who began before the first look has ended."""
    with run.table(found.tables.slice):
        names = names_of(run.site.ledger, found.tables, run.ages.stored_now)
    going, kept = judged([one.group for one in found.going], names, run.ages)
    for start in range(0, len(going), _BATCH):
        run.keeper.check(run.lease)
        purge(run.site, going[start : start + _BATCH])
    return replace(found, going=tuple(going), kept=found.kept + kept)


def _wait_for_readers(site: Site) -> None:
    """Real time: T for copies of pointers, then the longest read."""
    time.sleep(site.config.clocks.ledger_age_seconds + site.config.clocks.longest_read_seconds)


def _tend_both(run: Sweep, tables: Tables) -> list[Tended]:
    with run.table(tables.slice):
        return [tend(run, table) for table in (tables.messages, tables.frozen)]


def tend(run: Sweep, table: TableRef) -> Tended:
    """A checkpoint when one is due; then what an older one stands for, once replaying has shown that it does."""
    policy, log = run.site.config.maintenance, log_of(table)
    is_due = 0 < policy.checkpoint_commits <= log.since_checkpoint
    if is_due and run.apply:
        checkpoint(table)
        log = log_of(table)
    base = base_of(log, run.ages.stored_now, timedelta(days=max(policy.log_days, policy.replaced_days)))
    gone = expired(log, base)
    if gone and base is not None:
        _clean(run, table, log, base)
    return Tended(table.root, is_due, {one.key: one.size_bytes for one in gone})


def _clean(run: Sweep, table: TableRef, log: Log, base: int) -> None:
    require_same(table, log, base)
    if run.apply:
        run.keeper.check(run.lease)
        for one in expired(log, base):
            table.objects.delete(one.key)


def _quarantine(site: Site) -> TableRef:
    return quarantine_table(site.objects, site.config.objects, site.region)


def _told(run: Sweep, found: Sequence[Found], tended: Sequence[Tended]) -> dict[str, Any]:
    sizes: dict[Kind, dict[str, int]] = {kind: {} for kind in Kind}
    for going in (one for each in found for one in each.going):
        sizes[going.kind] |= {stored.key: stored.size_bytes for stored in going.group.in_order}
    for table in tended:
        sizes[Kind.LOG] |= table.expired
    goes = {kind: _kind(run, kind, sizes[kind]) for kind in Kind}
    kept = sum((one.kept for one in found), Counter[Stays]())
    for kind, one in goes.items():
        if one["objects"]:
            size = sized(one["size_bytes"])
            verb = "gone" if run.apply else "would go"
            run.say(f"{run.site.region}: {one['objects']:,} {kind.replace('_', ' ')}, {size}: {verb}")
    return {
        "goes": goes,
        "kept": {why: kept[why] for why in Stays},
        "early_dollars": early_dollars((one for each in found for one in each.going), run.ages),
        "units_astray": sum(each.astray for each in found),
        "held_elsewhere": sum(each.busy for each in found),
        "checkpoints": [table.root for table in tended if table.has_checkpoint],
    }


def _kind(run: Sweep, kind: Kind, sizes: Mapping[str, int]) -> dict[str, Any]:
    names = list(sizes)[:NAMES_SHOWN]
    return {"objects": len(sizes), "size_bytes": sum(sizes.values()), "why": _why(run, kind), "names": names}


def _why(run: Sweep, kind: Kind) -> str:
    policy = run.site.config.maintenance
    match kind:
        case Kind.REPLACED:
            return f"out of its table for {_counted(policy.replaced_days, 'day')}, and no pointer names it"
        case Kind.FOLDED:
            return f"its rows are in cold files, and it is older than {_counted(policy.orphan_hours, 'hour')}"
        case Kind.ORPHAN:
            return f"nothing names it, and it is older than {_counted(policy.orphan_hours, 'hour')}"
        case Kind.LOG:
            return f"a checkpoint that is older than {_counted(policy.log_days, 'day')} says the same"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def parser() -> Any:
    options = shell.options("python -m jobs.maintain", "Purge what nothing names any more; keep table logs short.")
    options.add_argument("--apply", action="store_true", help="purge; without it only say what would go")
    return options


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)

    def work() -> dict[str, Any]:
        config = settings.load()
        return run(config, args.now, shell.regions(config, args.region), args.apply, shell.say)

    return shell.finish(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
