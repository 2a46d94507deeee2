"""What is named and is not there, or is not what was named: the reverse of an orphan, and nothing a rule may mend.

    read the names ─ list the bucket ─ of what is missing: read the names again
                                       └ a mover may have gone on meanwhile

Nothing is changed here. Everything in the list is older than the names, for an object is put before it is named.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from core import weeks
from core.ledger import of_newest_epoch
from core.moves import State, Unit
from core.tiers import Tier
from lakehouse.commit import live_files
from lakehouse.deltalog import log_of
from lakehouse.maintenance import Tables, frozen_by, listed
from lakehouse.paths import index_key, placed
from lakehouse.tables import TableRef
from stores.ledger import Ledger

_HAS_PARTS = (State.COPIED, State.VERIFIED, State.SWITCHED)


class Witness(StrEnum):
    """What names an object."""

    POINTER = "a pointer"
    DELTA = "the Delta log"
    FROZEN_ROW = "the ledger's frozen row"
    LOG = "the log of the manifests"
    MANIFEST = "a manifest"
    RUN = "a run that waits"
    PART = "a part of a move under way"
    FILE = "its data file"


@dataclass(frozen=True)
class Named:
    """`size_bytes` None: the witness does not say."""

    key: str
    witness: Witness
    size_bytes: int | None = None


@dataclass(frozen=True)
class Phantom:
    """`found_bytes` None: there is no such object; else it has another size than was written."""

    key: str
    week: int | None
    witnesses: tuple[Witness, ...]
    found_bytes: int | None
    wanted_bytes: int | None

    @property
    def sentence(self) -> str:
        what = "is missing" if self.found_bytes is None else f"has {self.found_bytes} bytes, not {self.wanted_bytes}"
        week = f"{weeks.label(self.week)}: " if self.week is not None else ""
        return f"{week}{self.key} {what}; named by {' and '.join(self.witnesses)}"


def phantoms(ledger: Ledger, tables: Tables) -> list[Phantom]:
    """Of one slice, by key."""
    before = by_key(names(ledger, tables))
    sizes = {one.key: one.size_bytes for one in listed(tables.messages.objects, tables.slice)}
    if not (wrong := judged(before, sizes)):
        return []
    still = by_key(names(ledger, tables))
    return [one for one in wrong if one.key in still]


def judged(named: Mapping[str, list[Named]], sizes: Mapping[str, int]) -> list[Phantom]:
    return [phantom for key in sorted(named) if (phantom := _judged(key, named[key], sizes.get(key)))]


def _judged(key: str, named: Iterable[Named], found: int | None) -> Phantom | None:
    wanted = {one.size_bytes for one in named if one.size_bytes is not None}
    witnesses = tuple(dict.fromkeys(one.witness for one in named))
    if found is not None and wanted <= {found}:
        return None
    place = placed(key)
    return Phantom(key, place.week if place else None, witnesses, found, next(iter(wanted - {found}), None))


def by_key(named: Iterable[Named]) -> dict[str, list[Named]]:
    """With the index of each file: it lives and goes with it."""
    found: dict[str, list[Named]] = {}
    for one in named:
        found.setdefault(one.key, []).append(one)
        if one.witness not in (Witness.LOG, Witness.RUN):
            found.setdefault(index_key(one.key), [Named(index_key(one.key), Witness.FILE)])
    return found


def names(ledger: Ledger, tables: Tables) -> Iterator[Named]:
    yield from _in_log(tables.messages, Witness.DELTA)
    manifests = list(_in_log(tables.frozen, Witness.LOG))
    yield from manifests
    there = [one.key for one in manifests if tables.frozen.objects.head(one.key)]
    yield from (Named(key, Witness.MANIFEST) for key in sorted(frozen_by(tables.frozen, there)))
    for unit in ledger.units():
        if unit.slice == tables.slice:
            yield from _in_ledger(ledger, tables.messages.root, unit)


def _in_log(table: TableRef, witness: Witness) -> Iterator[Named]:
    if log_of(table).commits:
        for path, file in live_files(table).items():
            yield Named(f"{table.root}/{path}", witness, file.size_bytes)


def _in_ledger(ledger: Ledger, root: str, unit: Unit) -> Iterator[Named]:
    for pointer in ledger.pointers(unit.week, unit.slice):
        yield Named(f"{root}/{pointer.path}", Witness.POINTER, pointer.size_bytes)
    for file in ledger.frozen(unit.week, unit.slice):
        yield Named(file.path, Witness.FROZEN_ROW, file.size_bytes)
    for run in ledger.runs(unit.week, unit.slice):
        if not run.folded:
            yield Named(run.path, Witness.RUN, run.size_bytes)
    if unit.state in _HAS_PARTS and not unit.move.sink.is_cql:
        for part in of_newest_epoch(ledger.parts(unit)):
            yield Named(f"{root}/{part.path}" if unit.move.sink is Tier.COLD else part.path, Witness.PART)
