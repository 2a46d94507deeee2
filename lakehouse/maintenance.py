"""Which objects nobody needs any more, decided by rules over what the bucket holds and what names things in it.

    list the bucket ─ read the names ─ rules ─ wait for readers ─ read the names again ─ index, then file
                      └ logs, manifests, pointers, parts, frozen rows, runs

One witness that names an object is enough to keep it, and what is of no unit that the ledger knows is never touched: a
ledger or a log that was lost must not take the data along. A file and its index live and go together.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import pyarrow as pa
import pyarrow.parquet as pq

from core.archive import early_deletion_dollars
from core.errors import DamagedError
from core.ledger import Pointer, lease_name
from core.moves import State, Unit
from core.steps import irreversible
from core.tiers import Tier
from lakehouse.commit import live_files
from lakehouse.deltalog import log_of, removed_files
from lakehouse.paths import FROZEN, INDEX, data_key_of, placed, prefixes
from lakehouse.site import Site
from lakehouse.tables import TableRef, frozen_table, messages_table
from stores.ledger import Ledger
from stores.objects import ListedObject, Objects

CLOCK_KEY = "maintenance/clock"
AT_ONCE = 8
_MOVING = (State.SEALED, State.COPIED, State.VERIFIED, State.SWITCHED)


class Kind(StrEnum):
    """Why something may go."""

    REPLACED = "replaced"
    FOLDED = "folded_runs"
    ORPHAN = "orphans"
    LOG = "log"


class Stays(StrEnum):
    NAMED = "named"
    YOUNG = "too_young"
    WRITING = "being_written"
    UNKNOWN = "of_no_known_unit"


Fate = Kind | Stays


@dataclass(frozen=True)
class Ages:
    """`now` is by what logs date removals, `stored_now` the object store's own time, by which it dates what it holds.

    `orphan` is a promise about running processes and so real time: no job runs longer between a file and its name.
    """

    now: datetime
    stored_now: datetime
    replaced: timedelta
    orphan: timedelta


@dataclass(frozen=True)
class Names:
    """What is known of a slice's objects, by key. `removed`: when the log took it out of its table; `folded`: runs
    whose rows are in a file; `writers`: week and epoch of leases that are held now; `weeks`: of its units."""

    slice: int
    weeks: frozenset[int]
    named: frozenset[str]
    removed: Mapping[str, datetime]
    folded: frozenset[str]
    writers: frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Group:
    """A data file, frozen object, manifest or run with its index, or what is there of the two; `key` is never the
    index's."""

    key: str
    objects: tuple[ListedObject, ...]

    @property
    def modified_at(self) -> datetime:
        return max(one.modified_at for one in self.objects)

    @property
    def in_order(self) -> tuple[ListedObject, ...]:
        """The index first: killed in between, the next run still finds the file and goes on."""
        return tuple(sorted(self.objects, key=lambda one: not one.key.startswith(INDEX)))


@dataclass(frozen=True)
class Going:
    kind: Kind
    group: Group


@dataclass(frozen=True)
class Tables:
    """Those of one slice."""

    slice: int
    messages: TableRef
    frozen: TableRef


def groups_of(listed: Iterable[ListedObject]) -> list[Group]:
    found: dict[str, list[ListedObject]] = {}
    for one in listed:
        found.setdefault(data_key_of(one.key), []).append(one)
    return [Group(key, tuple(objects)) for key, objects in found.items()]


def fate(group: Group, names: Names, ages: Ages) -> Fate:
    place = placed(group.key)
    if group.key in names.named:
        return Stays.NAMED
    if place is None or place.slice != names.slice or place.week not in names.weeks:
        return Stays.UNKNOWN
    if group.key in names.removed:
        return Kind.REPLACED if ages.now - names.removed[group.key] >= ages.replaced else Stays.YOUNG
    if ages.stored_now - group.modified_at < ages.orphan:
        return Stays.YOUNG
    if group.key in names.folded:
        return Kind.FOLDED
    return Stays.WRITING if (place.week, place.epoch) in names.writers else Kind.ORPHAN


def judged(groups: Iterable[Group], names: Names, ages: Ages) -> tuple[list[Going], Counter[Stays]]:
    """What may go, and how many objects stay for each reason."""
    going: list[Going] = []
    kept: Counter[Stays] = Counter()
    for group in groups:
        verdict = fate(group, names, ages)
        if isinstance(verdict, Kind):
            going.append(Going(verdict, group))
        else:
            kept[verdict] += len(group.objects)
    return going, kept


def early_dollars(going: Iterable[Going], ages: Ages) -> float:
    """What is billed for going before a storage class allows it: an archive's objects are not meant to go at all."""
    objects = (one for each in going for one in each.group.objects)
    return sum(
        early_deletion_dollars(one.size_bytes, one.storage_class, ages.stored_now - one.modified_at) for one in objects
    )


def store_time(objects: Objects) -> datetime:
    """By the clock that dates the objects: ages by another would be wrong by their difference."""
    return objects.put(CLOCK_KEY, b"what time it is here").modified_at


def tables_of(site: Site, slice_: int) -> Tables:
    where = (site.objects, site.config.objects, site.region, slice_)
    return Tables(slice_, messages_table(*where), frozen_table(*where))


def listed(objects: Objects, slice_: int) -> Iterator[ListedObject]:
    """All that jobs wrote for the slice's units. It comes before the names: what is written since is not in it."""
    for prefix in prefixes(slice_):
        yield from objects.list(prefix)


def names_of(ledger: Ledger, tables: Tables, stored_now: datetime) -> Names:
    """Runs under the tables' lease. DamagedError when a pointer comes from a version that the log does not reach."""
    units = [unit for unit in ledger.units() if unit.slice == tables.slice]
    pointers = [pointer for unit in units for pointer in ledger.pointers(unit.week, unit.slice)]
    live, removed = _in_table(tables.messages, pointers)
    manifests, replaced = _in_table(tables.frozen, ())
    named = named_by(ledger, tables.messages.root, units)
    return Names(
        tables.slice,
        frozenset(unit.week for unit in units),
        frozenset(named | live | manifests | frozen_by(tables.frozen, manifests)),
        removed | replaced,
        frozenset(run.path for unit in units for run in ledger.runs(unit.week, unit.slice) if run.folded),
        frozenset(writer for unit in units for writer in _writers(ledger, unit, stored_now)),
    )


def named_by(ledger: Ledger, root: str, units: Iterable[Unit]) -> set[str]:
    """The keys of all that the ledger names of `units`; `root` is that of their cold table."""
    named: set[str] = set()
    for unit in units:
        named |= {f"{root}/{pointer.path}" for pointer in ledger.pointers(unit.week, unit.slice)}
        named |= {file.path for file in ledger.frozen(unit.week, unit.slice)}
        named |= {run.path for run in ledger.runs(unit.week, unit.slice) if not run.folded}
        named |= set(_moving(ledger, root, unit))
    return named


def _in_table(table: TableRef, pointers: Iterable[Pointer]) -> tuple[set[str], dict[str, datetime]]:
    """The keys of what is live, and of what was removed and when. Of a table that nobody made yet nothing is."""
    log = log_of(table)
    newest, reached = max((pointer.version for pointer in pointers), default=-1), max(log.commits, default=-1)
    if newest > reached:
        raise DamagedError(
            f"a pointer comes from version {newest} of table {table.root}, whose log ends at {reached}",
            "bring the log back from a version or a copy of the bucket; nothing of this slice was deleted",
        )
    if not log.commits:
        return set(), {}
    live = {f"{table.root}/{path}" for path in live_files(table)}
    return live, {f"{table.root}/{path}": at for path, at in removed_files(table, log).items()}


def frozen_by(table: TableRef, manifests: Iterable[str]) -> set[str]:
    """The objects that the manifests name: a second witness beside the ledger."""
    files = (pa.BufferReader(table.objects.get(key)) for key in manifests)
    return {str(key) for file in files for key in pq.read_table(file, columns=["object"])["object"].to_pylist()}


def _moving(ledger: Ledger, root: str, unit: Unit) -> Iterator[str]:
    """The keys of parts of a move under way: committed or not, they are what it goes on with."""
    if unit.state in _MOVING and not unit.move.sink.is_cql:
        for part in ledger.parts(unit):
            yield f"{root}/{part.path}" if unit.move.sink is Tier.COLD else part.path


def _writers(ledger: Ledger, unit: Unit, stored_now: datetime) -> Iterator[tuple[int, int]]:
    lease = ledger.lease(lease_name(unit))
    if lease and not lease.is_free(stored_now):
        yield unit.week, lease.epoch


def purge(site: Site, going: Sequence[Going]) -> None:
    """Harmless to repeat and to kill; every one is tried, and the first fault is raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(_purge, site, one.group) for one in going]:
            done.result()


@irreversible("object: purged")
def _purge(site: Site, group: Group) -> None:
    """Of a frozen object the vault forgets the references first: what is named nowhere is opened by nobody."""
    if group.key.startswith(FROZEN):
        site.vault.forget_object(group.key)
    for one in group.in_order:
        site.objects.delete(one.key)
