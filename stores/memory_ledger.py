"""The ledger in memory: the rules of the one in CQL under one lock, held to it by one behaviour suite."""

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from core.ledger import Lease, Part, Pointer, WeekTable, as_kept, in_milliseconds
from core.moves import Unit
from core.tiers import Tier

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_Shard = tuple[int, int, Tier, int]
_Place = tuple[int, int, int, int]


@dataclass
class MemoryLedger:
    """One region's ledger, for as long as the process lives; safe between threads."""

    region: str
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _route: int = 0
    _first_week: int | None = None
    _units: dict[tuple[int, int], Unit] = field(default_factory=dict)
    _leases: dict[str, Lease] = field(default_factory=dict)
    _parts: dict[_Shard, Part] = field(default_factory=dict)
    _pointers: dict[_Place, Pointer] = field(default_factory=dict)
    _tables: dict[tuple[int, Tier], WeekTable] = field(default_factory=dict)

    def route(self) -> int:
        return self._route

    def next_route(self) -> int:
        with self._lock:
            self._route += 1
            return self._route

    def first_week(self) -> int | None:
        return self._first_week

    def begin(self, first_week: int) -> None:
        with self._lock:
            if self._first_week is None:
                self._first_week = first_week

    def units(self) -> list[Unit]:
        with self._lock:
            return [self._units[key] for key in sorted(self._units)]

    def unit(self, week: int, slice_: int) -> Unit | None:
        return self._units.get((week, slice_))

    def create(self, unit: Unit) -> bool:
        wanted = as_kept(unit)
        with self._lock:
            return self._units.setdefault((unit.week, unit.slice), wanted) == wanted

    def change(self, old: Unit, new: Unit) -> bool:
        """Applied only to the revision that `old` is."""
        key, wanted = (old.week, old.slice), as_kept(new)
        with self._lock:
            known = self._units.get(key)
            if known and known.revision == old.revision:
                self._units[key] = wanted
            return self._units.get(key) == wanted

    def lease(self, name: str) -> Lease | None:
        return self._leases.get(name)

    def take_lease(self, name: str, holder: str, now: datetime, length: timedelta) -> Lease | None:
        """None while another holds it. Each taking has an epoch one higher than the last."""
        with self._lock:
            known = self._leases.get(name) or Lease(name, "", 0, _NEVER)
            if not known.is_free(now):
                return None
            return self._write(Lease(name, holder, known.epoch + 1, in_milliseconds(now + length)))

    def renew_lease(self, lease: Lease, now: datetime, length: timedelta) -> Lease | None:
        """None when it was lost. A length of zero gives it up."""
        with self._lock:
            known = self._leases.get(lease.name)
            if known is None or (known.epoch, known.holder) != (lease.epoch, lease.holder):
                return None
            return self._write(replace(lease, expires_at=in_milliseconds(now + length)))

    def parts(self, unit: Unit) -> list[Part]:
        """Those of the unit's present move, by shard."""
        with self._lock:
            keys = sorted(key for key in self._parts if key[:3] == (unit.week, unit.slice, unit.move.source))
            return [self._parts[key] for key in keys]

    def put_part(self, part: Part) -> bool:
        """False when a newer epoch has written it: an older one never replaces it."""
        key = (part.week, part.slice, part.source, part.shard)
        with self._lock:
            known = self._parts.get(key)
            if known and known.epoch > part.epoch:
                return False
            self._parts[key] = part
            return True

    def pointers(self, week: int, slice_: int) -> list[Pointer]:
        with self._lock:
            return [self._pointers[key] for key in sorted(self._pointers) if key[:2] == (week, slice_)]

    def advance(self, pointer: Pointer) -> bool:
        """Only to a newer version of the table; the same again is done already."""
        key = (pointer.week, pointer.slice, pointer.shards, pointer.shard)
        with self._lock:
            known = self._pointers.get(key)
            if known is None or known.version < pointer.version:
                self._pointers[key] = pointer
            return self._pointers[key] == pointer

    def tables(self) -> list[WeekTable]:
        with self._lock:
            return [self._tables[key] for key in sorted(self._tables)]

    def put_table(self, old: WeekTable | None, new: WeekTable) -> bool:
        key = (new.week, new.tier)
        with self._lock:
            if self._tables.get(key) == old:
                self._tables[key] = new
            return self._tables.get(key) == new

    def _write(self, lease: Lease) -> Lease:
        self._leases[lease.name] = lease
        return lease
