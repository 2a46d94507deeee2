"""The ledger in CQL: every change is a compare-and-set, every read that decides is SERIAL.

An answer that was lost is looked up before anything else happens: the row either is what was wanted, or is not.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from core.digest import Digest
from core.errors import BlockedError, DamagedError, OutcomeUnknownError
from core.ledger import Lease, Part, Pointer, TableState, WeekTable, as_kept, in_milliseconds
from core.moves import Move, State, Unit
from core.tiers import Tier
from stores.cassandra import Database, Level

_SERIAL_READS = 3
Word = TypeVar("Word", bound=StrEnum)
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_UNIT = "week, slice, source, sink, state, epoch, revision, shards, route, commits, settled, sealed_at, switched_at"
_PART = "shard, epoch, path, rows, bytes, digest, sha256, verified"
_POINTER = "shards, shard, path, version, rows, bytes, sha256, digest"


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
    def tables(self) -> list[WeekTable]: ...
    def put_table(self, old: WeekTable | None, new: WeekTable) -> bool: ...


@dataclass(frozen=True)
class CqlLedger:
    db: Database
    region: str

    def route(self) -> int:
        """0 before the first routing change."""
        rows = self._rows("SELECT route FROM {meta}.routes WHERE region = ?", self.region)
        return rows[0][0] or 0 if rows else 0

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
        return [
            self._unit(row) for row in self._rows(f"SELECT {_UNIT} FROM {{meta}}.moves WHERE region = ?", self.region)
        ]

    def unit(self, week: int, slice_: int) -> Unit | None:
        query = f"SELECT {_UNIT} FROM {{meta}}.moves WHERE region = ? AND week = ? AND slice = ?"
        rows = self._rows(query, self.region, week, slice_)
        return self._unit(rows[0]) if rows else None

    def create(self, unit: Unit) -> bool:
        query = f"INSERT INTO {{meta}}.moves (region, {_UNIT}) VALUES ({_marks(14)}) IF NOT EXISTS"
        return self._settled(
            lambda: self._cas(query, self.region, unit.week, unit.slice, *_facts(unit)),
            lambda: self.unit(unit.week, unit.slice) == as_kept(unit),
        )

    def change(self, old: Unit, new: Unit) -> bool:
        """Applied only to the revision that `old` is."""
        names = _UNIT.split(", ")[2:]
        query = (
            f"UPDATE {{meta}}.moves SET {', '.join(f'{name} = ?' for name in names)} "
            "WHERE region = ? AND week = ? AND slice = ? IF revision = ?"
        )
        return self._settled(
            lambda: self._cas(query, *_facts(new), self.region, old.week, old.slice, old.revision),
            lambda: self.unit(old.week, old.slice) == as_kept(new),
        )

    def lease(self, name: str) -> Lease | None:
        rows = self._rows("SELECT holder, epoch, expires_at FROM {meta}.leases WHERE name = ?", name)
        return Lease(name, rows[0][0], rows[0][1], _utc(rows[0][2]) or NEVER) if rows else None

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
        query = f"SELECT {_PART} FROM {{meta}}.move_parts WHERE region = ? AND week = ? AND slice = ? AND source = ?"
        rows = self._rows(query, self.region, unit.week, unit.slice, unit.move.source)
        return [
            Part(*unit.key, unit.move.source, shard, epoch, _digest(count, total), path, size, sha, verified)
            for shard, epoch, path, count, size, total, sha, verified in rows
            if path is not None  # else only its place was taken; what belongs there never came
        ]

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
        query = f"SELECT {_POINTER} FROM {{meta}}.pointers WHERE region = ? AND week = ? AND slice = ?"
        rows = self._rows(query, self.region, week, slice_)
        return [
            Pointer(week, slice_, shards, shard, path, version, _digest(count, total), size, sha)
            for shards, shard, path, version, count, size, sha, total in rows
            if path is not None
        ]

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

    def tables(self) -> list[WeekTable]:
        rows = self._rows("SELECT week, tier, generation, state FROM {meta}.weeks WHERE region = ?", self.region)
        return [
            WeekTable(self.region, week, _word(Tier, tier), number, _word(TableState, state))
            for week, tier, number, state in rows
        ]

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

    def _unit(self, row: tuple[Any, ...]) -> Unit:
        week, slice_, source, sink, state, epoch, revision, shards, route, commits, settled, sealed_at, switched_at = (
            row
        )
        move = Move(_word(Tier, source), _word(Tier, sink))
        numbers = (epoch, revision, shards, route, commits)
        return Unit(
            self.region, week, slice_, move, _word(State, state), *numbers, settled, _utc(sealed_at), _utc(switched_at)
        )


def _facts(unit: Unit) -> tuple[Any, ...]:
    numbers = (unit.epoch, unit.revision, unit.shards, unit.route, unit.commits)
    return unit.move.source, unit.move.sink, unit.state, *numbers, unit.settled, unit.sealed_at, unit.switched_at


def _word(kind: type[Word], word: str) -> Word:
    """DamagedError for one that is none of ours: to guess what it means could drop what must stay."""
    try:
        return kind(word)
    except ValueError as fault:
        raise DamagedError(
            f"the ledger says {word!r} where a {kind.__name__} belongs",
            "find out who wrote it, set the row right, and run the same command again; nothing was changed",
        ) from fault


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _digest(rows: int | None, total: str | None) -> Digest:
    return Digest(rows or 0, int(total or "0", 16))


def _utc(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value else None
