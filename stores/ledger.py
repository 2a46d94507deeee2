"""The ledger in CQL: every change is a compare-and-set, every read that decides is SERIAL.

An answer that was lost is looked up before anything else happens: the row either is what was wanted, or is not.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from core.errors import BlockedError, OutcomeUnknownError
from core.ledger import Audited, FrozenFile, Lease, Part, Pointer, Run, Verdict, WeekTable, as_kept, in_milliseconds
from core.moves import Unit
from core.steps import irreversible
from stores import ledger_rows
from stores.cassandra import Database, Level
from stores.ledger_rows import (
    NEVER,
    audited_facts,
    audited_of,
    frozen_of,
    part_of,
    pointer_of,
    run_of,
    table_of,
    unit_facts,
    unit_of,
    utc,
    verdict_of,
)

_SERIAL_READS = 3


class Ledger(Protocol):
    """One region's ledger. Every method that changes returns whether this call's change is the one that stands."""

    @property
    def region(self) -> str: ...
    def route(self) -> int: ...
    def next_route(self) -> int: ...
    def first_week(self) -> int | None: ...
    def begin(self, first_week: int) -> None: ...
    def units(self) -> list[Unit]: ...
    def unit(self, week: int, slice_: int) -> Unit | None: ...
    def create(self, unit: Unit) -> bool: ...
    def change(self, old: Unit, new: Unit) -> bool: ...
    def lease(self, name: str) -> Lease | None: ...
    def take_lease(self, name: str, holder: str, now: datetime, length: timedelta) -> Lease | None: ...
    def renew_lease(self, lease: Lease, now: datetime, length: timedelta) -> Lease | None: ...
    def parts(self, unit: Unit) -> list[Part]: ...
    def put_part(self, part: Part) -> bool: ...
    def pointers(self, week: int, slice_: int) -> list[Pointer]: ...
    def advance(self, pointer: Pointer) -> bool: ...
    def retire(self, pointer: Pointer, version: int) -> bool: ...
    def runs(self, week: int, slice_: int) -> list[Run]: ...
    def add_run(self, run: Run) -> bool: ...
    def fold_run(self, run: Run) -> bool: ...
    def frozen(self, week: int, slice_: int) -> list[FrozenFile]: ...
    def put_frozen(self, file: FrozenFile) -> bool: ...
    def retire_frozen(self, file: FrozenFile) -> bool: ...
    def verdict(self, week: int, slice_: int) -> Verdict | None: ...
    def put_verdict(self, verdict: Verdict) -> None: ...
    def tables(self) -> list[WeekTable]: ...
    def put_table(self, old: WeekTable | None, new: WeekTable) -> bool: ...
    def audit(self) -> list[Audited]: ...
    def note(self, entry: Audited) -> bool: ...
    def confirm(self, entry: Audited) -> bool: ...


@dataclass(frozen=True)
class CqlLedger:
    db: Database
    region: str

    def route(self) -> int:
        """0 before the first routing change."""
        rows = self._rows("SELECT route FROM {meta}.routes WHERE region = ?", self.region)
        return rows[0][0] or 0 if rows else 0

    @irreversible("ledger: next route")
    def next_route(self) -> int:
        """Takes the next number. After a lost answer the number may be skipped, never given twice with effect."""
        self._once("INSERT INTO {meta}.routes (region, route) VALUES (?, 0) IF NOT EXISTS", self.region)
        while True:
            # Only the comparison has to be serial; a serial read here would contend with it.
            query = f"SELECT route FROM {self.region}_meta.routes WHERE region = ?"
            now: int = self.db.rows(query, (self.region,))[0][0]
            try:
                if self._cas(
                    "UPDATE {meta}.routes SET route = ? WHERE region = ? IF route = ?", now + 1, self.region, now
                ):
                    return now + 1
            except OutcomeUnknownError:
                continue

    def first_week(self) -> int | None:
        """The oldest week that may ever have had a table; older ones are born cold."""
        rows = self._rows("SELECT first_week FROM {meta}.routes WHERE region = ?", self.region)
        return rows[0][0] if rows else None

    def begin(self, first_week: int) -> None:
        self._once("INSERT INTO {meta}.routes (region, route) VALUES (?, 0) IF NOT EXISTS", self.region)
        self._once(
            "UPDATE {meta}.routes SET first_week = ? WHERE region = ? IF first_week = null", first_week, self.region
        )

    def units(self) -> list[Unit]:
        query = f"SELECT {ledger_rows.UNIT} FROM {{meta}}.moves WHERE region = ?"
        return [unit_of(self.region, row) for row in self._rows(query, self.region)]

    def unit(self, week: int, slice_: int) -> Unit | None:
        query = f"SELECT {ledger_rows.UNIT} FROM {{meta}}.moves WHERE region = ? AND week = ? AND slice = ?"
        rows = self._rows(query, self.region, week, slice_)
        return unit_of(self.region, rows[0]) if rows else None

    def create(self, unit: Unit) -> bool:
        query = f"INSERT INTO {{meta}}.moves (region, {ledger_rows.UNIT}) VALUES ({_marks(16)}) IF NOT EXISTS"
        return self._settled(
            lambda: self._cas(query, self.region, unit.week, unit.slice, *unit_facts(unit)),
            lambda: self.unit(unit.week, unit.slice) == as_kept(unit),
        )

    @irreversible("ledger: unit changed")
    def change(self, old: Unit, new: Unit) -> bool:
        """Applied only to the revision that `old` is."""
        names = ledger_rows.UNIT.split(", ")[2:]
        query = (
            f"UPDATE {{meta}}.moves SET {', '.join(f'{name} = ?' for name in names)} "
            "WHERE region = ? AND week = ? AND slice = ? IF revision = ?"
        )
        return self._settled(
            lambda: self._cas(query, *unit_facts(new), self.region, old.week, old.slice, old.revision),
            lambda: self.unit(old.week, old.slice) == as_kept(new),
        )

    def lease(self, name: str) -> Lease | None:
        rows = self._rows("SELECT holder, epoch, expires_at FROM {meta}.leases WHERE name = ?", name)
        return Lease(name, rows[0][0], rows[0][1], utc(rows[0][2]) or NEVER) if rows else None

    def take_lease(self, name: str, holder: str, now: datetime, length: timedelta) -> Lease | None:
        """None while another holds it. Each taking has an epoch one higher than the last."""
        known = self.lease(name)
        if known is None:
            self._once(
                "INSERT INTO {meta}.leases (name, holder, epoch, expires_at) VALUES (?, '', 0, ?) IF NOT EXISTS",
                name,
                NEVER,
            )
            known = self.lease(name) or Lease(name, "", 0, NEVER)
        if not known.is_free(now):
            return None
        taken = Lease(name, holder, known.epoch + 1, in_milliseconds(now + length))
        return self._write_lease(known, taken, unless_renewed=True)

    def renew_lease(self, lease: Lease, now: datetime, length: timedelta) -> Lease | None:
        """None when it was lost. A length of zero gives it up."""
        return self._write_lease(lease, replace(lease, expires_at=in_milliseconds(now + length)), unless_renewed=False)

    def parts(self, unit: Unit) -> list[Part]:
        """Those of the unit's present move, by shard."""
        where = "region = ? AND week = ? AND slice = ? AND source = ?"
        query = f"SELECT {ledger_rows.PART} FROM {{meta}}.move_parts WHERE {where}"
        rows = self._rows(query, self.region, unit.week, unit.slice, unit.move.source)
        # Where there is no path only a place was taken; what belongs there never came.
        return [part_of(unit, row) for row in rows if row[2] is not None]

    @irreversible("ledger: part told")
    def put_part(self, part: Part) -> bool:
        """False when a newer epoch has written it: an older one never replaces it."""
        key = (self.region, part.week, part.slice, part.source, part.shard)
        facts = (part.epoch, part.path, part.digest.rows, part.size_bytes, str(part.digest), part.sha256, part.verified)
        self._once(
            "INSERT INTO {meta}.move_parts (region, week, slice, source, shard, epoch) VALUES (?, ?, ?, ?, ?, 0) "
            "IF NOT EXISTS",
            *key,
        )
        return self._settled(
            lambda: self._cas(
                "UPDATE {meta}.move_parts SET epoch = ?, path = ?, rows = ?, bytes = ?, digest = ?, sha256 = ?, "
                "verified = ? WHERE region = ? AND week = ? AND slice = ? AND source = ? AND shard = ? IF epoch <= ?",
                *facts,
                *key,
                part.epoch,
            ),
            lambda: False,
        )

    def pointers(self, week: int, slice_: int) -> list[Pointer]:
        query = f"SELECT {ledger_rows.POINTER} FROM {{meta}}.pointers WHERE region = ? AND week = ? AND slice = ?"
        rows = self._rows(query, self.region, week, slice_)
        # Where there is no path only a place was taken, or its file was retired.
        return [pointer_of(week, slice_, row) for row in rows if row[2]]

    @irreversible("ledger: pointer moved")
    def advance(self, pointer: Pointer) -> bool:
        """Only to a newer version of the table; the same again is done already."""
        key = (self.region, pointer.week, pointer.slice, pointer.shards, pointer.shard)
        digest = pointer.digest
        facts = (pointer.path, pointer.version, digest.rows, pointer.size_bytes, pointer.sha256, str(digest))
        self._once(
            "INSERT INTO {meta}.pointers (region, week, slice, shards, shard, version) VALUES (?, ?, ?, ?, ?, -1) "
            "IF NOT EXISTS",
            *key,
        )
        return self._settled(
            lambda: self._cas(
                "UPDATE {meta}.pointers SET path = ?, version = ?, rows = ?, bytes = ?, sha256 = ?, digest = ? "
                "WHERE region = ? AND week = ? AND slice = ? AND shards = ? AND shard = ? IF version < ?",
                *facts,
                *key,
                pointer.version,
            ),
            lambda: pointer in self.pointers(pointer.week, pointer.slice),
        )

    @irreversible("ledger: pointer retired")
    def retire(self, pointer: Pointer, version: int) -> bool:
        """No file is to be read there from this version of the table on; only forward, as `advance`."""
        key = (self.region, pointer.week, pointer.slice, pointer.shards, pointer.shard)
        return self._settled(
            lambda: self._cas(
                "UPDATE {meta}.pointers SET path = '', version = ?, rows = 0, bytes = 0, sha256 = '', digest = '0' "
                "WHERE region = ? AND week = ? AND slice = ? AND shards = ? AND shard = ? IF version < ?",
                version,
                *key,
                version,
            ),
            lambda: pointer not in self.pointers(pointer.week, pointer.slice),
        )

    def runs(self, week: int, slice_: int) -> list[Run]:
        """Folded ones too, by name."""
        query = f"SELECT {ledger_rows.RUN} FROM {{meta}}.runs WHERE region = ? AND week = ? AND slice = ?"
        return [run_of(week, slice_, row) for row in self._rows(query, self.region, week, slice_)]

    def add_run(self, run: Run) -> bool:
        """False when a run of that name is known with other facts; one that is folded already stands as it is."""
        query = (
            f"INSERT INTO {{meta}}.runs (region, week, slice, {ledger_rows.RUN}) "
            f"VALUES ({_marks(9)}, false) IF NOT EXISTS"
        )
        facts = (run.path, run.digest.rows, run.size_bytes, run.sha256, str(run.digest))
        return self._settled(
            lambda: self._cas(query, self.region, run.week, run.slice, run.name, *facts),
            lambda: run in [replace(known, folded=run.folded) for known in self.runs(run.week, run.slice)],
        )

    @irreversible("ledger: run folded")
    def fold_run(self, run: Run) -> bool:
        query = (
            "UPDATE {meta}.runs SET folded = true WHERE region = ? AND week = ? AND slice = ? AND name = ? IF EXISTS"
        )
        return self._settled(lambda: self._cas(query, self.region, run.week, run.slice, run.name), lambda: False)

    def frozen(self, week: int, slice_: int) -> list[FrozenFile]:
        """By generation and shard."""
        query = f"SELECT {ledger_rows.FROZEN} FROM {{meta}}.frozen WHERE region = ? AND week = ? AND slice = ?"
        rows = self._rows(query, self.region, week, slice_)
        # Where there is no path only a place was taken, or its object was retired.
        return [frozen_of(week, slice_, row) for row in rows if row[4]]

    @irreversible("ledger: frozen file told")
    def put_frozen(self, file: FrozenFile) -> bool:
        """False when a newer epoch has written it: an older one never replaces it."""
        key = (self.region, file.week, file.slice, file.generation, file.shard)
        self._once(
            "INSERT INTO {meta}.frozen (region, week, slice, generation, shard, epoch) VALUES (?, ?, ?, ?, ?, 0) "
            "IF NOT EXISTS",
            *key,
        )
        facts = (file.epoch, file.shards, file.path, file.digest.rows, file.size_bytes, file.sha256, str(file.digest))
        return self._settled(
            lambda: self._cas(
                "UPDATE {meta}.frozen SET epoch = ?, shards = ?, path = ?, rows = ?, bytes = ?, sha256 = ?, "
                "digest = ?, storage_class = ?, frozen_at = ? "
                "WHERE region = ? AND week = ? AND slice = ? AND generation = ? AND shard = ? IF epoch <= ?",
                *facts,
                file.storage_class,
                file.frozen_at,
                *key,
                file.epoch,
            ),
            lambda: False,
        )

    def retire_frozen(self, file: FrozenFile) -> bool:
        """It is not to be read any more; an object that came since, of a newer epoch, is."""
        key = (self.region, file.week, file.slice, file.generation, file.shard)
        return self._settled(
            lambda: self._cas(
                "UPDATE {meta}.frozen SET path = '', rows = 0, bytes = 0, sha256 = '', digest = '0' "
                "WHERE region = ? AND week = ? AND slice = ? AND generation = ? AND shard = ? IF epoch = ?",
                *key,
                file.epoch,
            ),
            lambda: file not in self.frozen(file.week, file.slice),
        )

    def verdict(self, week: int, slice_: int) -> Verdict | None:
        query = f"SELECT {ledger_rows.VERDICT} FROM {{meta}}.verdicts WHERE region = ? AND week = ? AND slice = ?"
        rows = self._rows(query, self.region, week, slice_)
        return verdict_of(week, slice_, rows[0]) if rows and rows[0][0] is not None else None

    def put_verdict(self, verdict: Verdict) -> None:
        """The last one stands; it names the files that it is about."""
        where = (self.region, verdict.week, verdict.slice)
        self._once("INSERT INTO {meta}.verdicts (region, week, slice) VALUES (?, ?, ?) IF NOT EXISTS", *where)
        facts = (verdict.files, verdict.suite, verdict.passed, "\n".join(verdict.failed), verdict.judged_at)
        self._once(
            "UPDATE {meta}.verdicts SET files = ?, suite = ?, passed = ?, failed = ?, judged_at = ? "
            "WHERE region = ? AND week = ? AND slice = ? IF EXISTS",
            *facts,
            *where,
        )

    def tables(self) -> list[WeekTable]:
        query = f"SELECT {ledger_rows.TABLE} FROM {{meta}}.weeks WHERE region = ?"
        return [table_of(self.region, row) for row in self._rows(query, self.region)]

    @irreversible("ledger: table marked")
    def put_table(self, old: WeekTable | None, new: WeekTable) -> bool:
        key = (self.region, new.week, new.tier)
        if old is None:
            query = (
                "INSERT INTO {meta}.weeks (region, week, tier, generation, state) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS"
            )
            return self._settled(
                lambda: self._cas(query, *key, new.generation, new.state), lambda: new in self.tables()
            )
        query = (
            "UPDATE {meta}.weeks SET generation = ?, state = ? WHERE region = ? AND week = ? AND tier = ? "
            "IF generation = ? AND state = ?"
        )
        return self._settled(
            lambda: self._cas(query, new.generation, new.state, *key, old.generation, old.state),
            lambda: new in self.tables(),
        )

    def audit(self) -> list[Audited]:
        """Newest first."""
        query = f"SELECT {ledger_rows.AUDIT} FROM {{meta}}.audit WHERE region = ?"
        found = [audited_of(row) for row in self._rows(query, self.region)]
        return sorted(found, key=lambda one: (one.at, one.id), reverse=True)

    def note(self, entry: Audited) -> bool:
        """False when an entry of that id and time says something else."""
        query = f"INSERT INTO {{meta}}.audit (region, {ledger_rows.AUDIT}) VALUES ({_marks(14)}) IF NOT EXISTS"
        kept = replace(entry, at=in_milliseconds(entry.at))
        return self._settled(lambda: self._cas(query, self.region, *audited_facts(kept)), lambda: kept in self.audit())

    def confirm(self, entry: Audited) -> bool:
        """What was noted was done."""
        query = "UPDATE {meta}.audit SET applied = true WHERE region = ? AND at = ? AND id = ? IF EXISTS"
        when = in_milliseconds(entry.at)
        return self._settled(lambda: self._cas(query, self.region, when, entry.id), lambda: False)

    def _rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """A serial read contends with every compare-and-set of its row: losing that is no reason to give up."""
        text = query.replace("{meta}", f"{self.region}_meta")
        for _ in range(_SERIAL_READS - 1):
            with suppress(BlockedError):
                return self.db.rows(text, params, Level.SERIAL)
        return self.db.rows(text, params, Level.SERIAL)

    def _cas(self, query: str, *params: Any) -> bool:
        return self.db.cas(query.replace("{meta}", f"{self.region}_meta"), params)

    def _once(self, query: str, *params: Any) -> None:
        """For what stands or not, whoever wrote it: a place to compare against. A lost answer means: again."""
        self._settled(lambda: self._cas(query, *params), lambda: False)

    def _settled(self, attempt: Callable[[], bool], stands: Callable[[], bool]) -> bool:
        """Tries; when that was refused or its answer lost, looks whether the wanted row stands all the same."""
        for _ in range(3):
            try:
                return attempt() or stands()
            except OutcomeUnknownError:
                if stands():
                    return True
        raise OutcomeUnknownError("the ledger did not confirm a change", "run the same command again: it looks first")

    def _write_lease(self, old: Lease, new: Lease, unless_renewed: bool) -> Lease | None:
        """A taker must not win over a renewal that it has not seen; a holder renews over its own."""
        condition, seen = (" AND expires_at = ?", (old.expires_at,)) if unless_renewed else ("", ())
        won = self._settled(
            lambda: self._cas(
                "UPDATE {meta}.leases SET holder = ?, epoch = ?, expires_at = ? WHERE name = ? "
                f"IF epoch = ? AND holder = ?{condition}",
                *(new.holder, new.epoch, new.expires_at, new.name, old.epoch, old.holder, *seen),
            ),
            lambda: self.lease(new.name) == new,
        )
        return new if won else None


def _marks(count: int) -> str:
    return ", ".join("?" * count)
