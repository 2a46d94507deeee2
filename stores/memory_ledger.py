"""The ledger in memory: the rules of the one in CQL under one lock, held to it by one behaviour suite."""

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from core.ledger import Audited, FrozenFile, Lease, Part, Pointer, Run, Verdict, WeekTable, as_kept, in_milliseconds
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
    _runs: dict[tuple[int, int, str], Run] = field(default_factory=dict)
    _frozen: dict[_Place, FrozenFile] = field(default_factory=dict)
    _verdicts: dict[tuple[int, int], Verdict] = field(default_factory=dict)
    _tables: dict[tuple[int, Tier], WeekTable] = field(default_factory=dict)
    _audit: dict[tuple[datetime, str], Audited] = field(default_factory=dict)

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
            found = [self._pointers[key] for key in sorted(self._pointers) if key[:2] == (week, slice_)]
            return [pointer for pointer in found if pointer.path]

    def advance(self, pointer: Pointer) -> bool:
        """Only to a newer version of the table; the same again is done already."""
        key = (pointer.week, pointer.slice, pointer.shards, pointer.shard)
        with self._lock:
            known = self._pointers.get(key)
            if known is None or known.version < pointer.version:
                self._pointers[key] = pointer
            return self._pointers[key] == pointer

    def retire(self, pointer: Pointer, version: int) -> bool:
        """No file is to be read there from this version of the table on; only forward, as `advance`."""
        key = (pointer.week, pointer.slice, pointer.shards, pointer.shard)
        with self._lock:
            known = self._pointers[key]
            if known.version < version:
                self._pointers[key] = replace(known, path="", version=version)
            return self._pointers[key] != pointer

    def runs(self, week: int, slice_: int) -> list[Run]:
        """Folded ones too, by name."""
        with self._lock:
            return [self._runs[key] for key in sorted(self._runs) if key[:2] == (week, slice_)]

    def add_run(self, run: Run) -> bool:
        """False when a run of that name is known with other facts; one that is folded already stands as it is."""
        with self._lock:
            known = self._runs.setdefault((run.week, run.slice, run.name), replace(run, folded=False))
            return replace(known, folded=run.folded) == run

    def fold_run(self, run: Run) -> bool:
        key = (run.week, run.slice, run.name)
        with self._lock:
            if key in self._runs:
                self._runs[key] = replace(self._runs[key], folded=True)
            return key in self._runs

    def frozen(self, week: int, slice_: int) -> list[FrozenFile]:
        """By generation and shard."""
        with self._lock:
            found = [self._frozen[key] for key in sorted(self._frozen) if key[:2] == (week, slice_)]
            return [file for file in found if file.path]

    def put_frozen(self, file: FrozenFile) -> bool:
        """False when a newer epoch has written it: an older one never replaces it."""
        key = (file.week, file.slice, file.generation, file.shard)
        with self._lock:
            known = self._frozen.get(key)
            if known and known.epoch > file.epoch:
                return False
            self._frozen[key] = replace(file, frozen_at=in_milliseconds(file.frozen_at))
            return True

    def retire_frozen(self, file: FrozenFile) -> bool:
        """It is not to be read any more; an object that came since, of a newer epoch, is."""
        key = (file.week, file.slice, file.generation, file.shard)
        with self._lock:
            known = self._frozen.get(key)
            if known and known.epoch == file.epoch:
                self._frozen[key] = replace(known, path="")
            return self._frozen.get(key) != file

    def verdict(self, week: int, slice_: int) -> Verdict | None:
        return self._verdicts.get((week, slice_))

    def put_verdict(self, verdict: Verdict) -> None:
        """The last one stands; it names the files that it is about."""
        with self._lock:
            kept = replace(verdict, judged_at=in_milliseconds(verdict.judged_at))
            self._verdicts[verdict.week, verdict.slice] = kept

    def tables(self) -> list[WeekTable]:
        with self._lock:
            return [self._tables[key] for key in sorted(self._tables)]

    def put_table(self, old: WeekTable | None, new: WeekTable) -> bool:
        key = (new.week, new.tier)
        with self._lock:
            if self._tables.get(key) == old:
                self._tables[key] = new
            return self._tables.get(key) == new

    def audit(self) -> list[Audited]:
        """Newest first."""
        with self._lock:
            return [self._audit[key] for key in sorted(self._audit, reverse=True)]

    def note(self, entry: Audited) -> bool:
        """False when an entry of that id and time says something else."""
        kept = replace(entry, at=in_milliseconds(entry.at))
        with self._lock:
            return self._audit.setdefault((kept.at, kept.id), kept) == kept

    def confirm(self, entry: Audited) -> bool:
        """What was noted was done."""
        key = (in_milliseconds(entry.at), entry.id)
        with self._lock:
            if key in self._audit:
                self._audit[key] = replace(self._audit[key], applied=True)
            return key in self._audit

    def _write(self, lease: Lease) -> Lease:
        self._leases[lease.name] = lease
        return lease
