"""What every ledger promises: the one in CQL and the one in memory."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TypeVar, cast

import pytest

from core.digest import Digest
from core.errors import BlockedError, OutcomeUnknownError
from core.ledger import Audited, FrozenFile, Lease, Part, Pointer, Run, TableState, Verdict, WeekTable
from core.moves import HOT_WARM, WARM_COLD, State, Unit
from core.settings import Settings
from core.tiers import Tier
from stores.cassandra import Database, Databases, Level, Params, Rows, connected
from stores.ledger import CqlLedger, Ledger
from stores.memory_ledger import MemoryLedger

R = TypeVar("R")
THREADS = 3
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
FRESH_WEEKS = count(100)


@pytest.fixture(scope="module")
def databases(config: Settings) -> Iterator[Databases]:
    with connected(config) as db:
        yield db


@pytest.fixture(params=["memory", pytest.param("cql", marks=pytest.mark.services)])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """The one in CQL serves all cases, so each case takes weeks and names of its own."""
    if request.param == "memory":
        return MemoryLedger("us")
    databases: Databases = request.getfixturevalue("databases")
    return CqlLedger(databases.hot, request.getfixturevalue("region"))


@pytest.fixture
def week() -> int:
    return next(FRESH_WEEKS)


@pytest.fixture
def name(week: int) -> str:
    return f"unit/test/{week}"


def at_once(work: Callable[[int], R]) -> list[R]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, range(THREADS)))


def part(unit: Unit, shard: int, epoch: int, rows: int = 1, source: Tier = Tier.HOT) -> Part:
    return Part(*unit.key, source, shard, epoch, Digest(rows, 2**128 - rows), f"{epoch}/{rows}", 10, "ab")


def pointer(week: int, version: int, shard: int = 0, shards: int = 2, path: str = "a") -> Pointer:
    return Pointer(week, 0, shards, shard, path, version, Digest(3, 4), 10, "ab")


# Routes


def test_a_route_is_one_more_than_the_last(ledger: Ledger) -> None:
    before = ledger.route()
    assert [ledger.next_route() for _ in range(3)] == [before + 1, before + 2, before + 3]
    assert ledger.route() == before + 3


def test_no_route_is_given_twice(ledger: Ledger) -> None:
    before = ledger.route()
    taken = [number for numbers in at_once(lambda _: [ledger.next_route() for _ in range(2)]) for number in numbers]
    assert sorted(taken) == list(range(before + 1, before + 2 * THREADS + 1))


def test_the_first_week_is_the_one_it_began_with(ledger: Ledger) -> None:
    known = ledger.first_week()
    ledger.begin(2900)
    begun = ledger.first_week()
    ledger.begin(2800)
    ledger.begin(2950)
    assert ledger.first_week() == begun == (2900 if known is None else known)


def test_many_beginnings_agree(ledger: Ledger) -> None:
    at_once(lambda number: ledger.begin(2900 + number))
    first = ledger.first_week()
    assert first is not None
    at_once(lambda number: ledger.begin(3000 + number))
    assert ledger.first_week() == first


# Units


def test_a_unit_comes_back_as_it_was_made(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 3, WARM_COLD, State.SWITCHED, 7, 9, 16, 5, 2, True, NOW, NOW + MINUTE, 2, NOW)
    assert ledger.unit(week, 3) is None
    assert ledger.create(unit)
    assert ledger.unit(week, 3) == unit
    assert ledger.unit(week, 0) is None
    assert unit in ledger.units()


def test_a_unit_is_made_once(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 0)
    made = at_once(lambda number: ledger.create(replace(unit, shards=number)))
    assert made.count(True) == 1
    standing = ledger.unit(week, 0)
    assert standing == replace(unit, shards=made.index(True))


def test_making_what_stands_is_no_conflict(ledger: Ledger, week: int) -> None:
    """The caller cannot tell a lost answer from a refusal; what stands is what was wanted."""
    unit = Unit(ledger.region, week, 0, sealed_at=NOW + timedelta(microseconds=1_234_567))
    assert ledger.create(unit)
    assert ledger.create(unit)
    assert not ledger.create(replace(unit, epoch=1))


def test_units_come_by_week_and_slice(ledger: Ledger) -> None:
    first, second = next(FRESH_WEEKS), next(FRESH_WEEKS)
    keys = [(second, 0), (first, 1), (first, 0)]
    for week, slice_ in keys:
        ledger.create(Unit(ledger.region, week, slice_))
    mine = [(unit.week, unit.slice) for unit in ledger.units() if (unit.week, unit.slice) in keys]
    assert mine == sorted(keys)


def test_a_change_applies_to_its_revision_only(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 0)
    ledger.create(unit)
    sealed = unit.to(State.SEALED, 1)
    other = unit.changed(route=5)
    assert ledger.change(unit, sealed)
    assert not ledger.change(unit, other)
    assert ledger.unit(week, 0) == sealed
    assert ledger.change(sealed, sealed.to(State.COPIED, 1))


def test_the_same_change_again_stands(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 0)
    ledger.create(unit)
    sealed = replace(unit.to(State.SEALED, 1), sealed_at=NOW + timedelta(microseconds=987_654))
    assert ledger.change(unit, sealed)
    assert ledger.change(unit, sealed)


def test_one_of_many_changes_wins(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 0)
    ledger.create(unit)
    won = at_once(lambda number: ledger.change(unit, unit.changed(shards=2**number)))
    assert won.count(True) == 1
    standing = ledger.unit(week, 0)
    assert standing is not None
    assert (standing.revision, standing.shards) == (1, 2 ** won.index(True))


def test_what_is_not_there_cannot_change(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 0)
    assert not ledger.change(unit, unit.changed(route=1))
    assert ledger.unit(week, 0) is None


# Leases


def test_a_lease_is_taken_once(ledger: Ledger, name: str) -> None:
    assert ledger.lease(name) is None
    taken = at_once(lambda number: ledger.take_lease(name, f"holder {number}", NOW, MINUTE))
    (lease,) = [lease for lease in taken if lease]
    assert lease == Lease(name, f"holder {taken.index(lease)}", 1, NOW + MINUTE)
    assert ledger.lease(name) == lease
    assert ledger.take_lease(name, "late", NOW + MINUTE - timedelta(milliseconds=1), MINUTE) is None


def test_each_taking_has_the_next_epoch(ledger: Ledger, name: str) -> None:
    epochs = []
    for number in range(4):
        lease = ledger.take_lease(name, f"holder {number % 2}", NOW + number * MINUTE, MINUTE)
        assert lease is not None
        epochs.append(lease.epoch)
    assert epochs == [1, 2, 3, 4]


def test_one_of_many_takes_an_expired_lease(ledger: Ledger, name: str) -> None:
    ledger.take_lease(name, "dead", NOW, MINUTE)
    taken = at_once(lambda number: ledger.take_lease(name, f"holder {number}", NOW + MINUTE, MINUTE))
    assert [lease.epoch for lease in taken if lease] == [2]


def test_a_renewed_lease_lasts(ledger: Ledger, name: str) -> None:
    lease = ledger.take_lease(name, "me", NOW, MINUTE)
    assert lease is not None
    renewed = ledger.renew_lease(lease, NOW + MINUTE / 2, MINUTE)
    assert renewed == replace(lease, expires_at=NOW + MINUTE * 1.5)
    assert ledger.take_lease(name, "other", NOW + MINUTE, MINUTE) is None


def test_the_old_holder_cannot_renew_after_a_takeover(ledger: Ledger, name: str) -> None:
    old = ledger.take_lease(name, "old", NOW, MINUTE)
    new = ledger.take_lease(name, "new", NOW + MINUTE, MINUTE)
    assert old is not None
    assert new is not None
    assert ledger.renew_lease(old, NOW + MINUTE, MINUTE) is None
    assert ledger.renew_lease(old, NOW + MINUTE, timedelta(0)) is None
    assert ledger.lease(name) == new


def test_not_even_a_holder_of_the_same_name(ledger: Ledger, name: str) -> None:
    old = ledger.take_lease(name, "me", NOW, MINUTE)
    new = ledger.take_lease(name, "me", NOW + MINUTE, MINUTE)
    assert old is not None
    assert ledger.renew_lease(old, NOW + MINUTE, MINUTE) is None
    assert ledger.lease(name) == new


def test_giving_up_frees(ledger: Ledger, name: str) -> None:
    lease = ledger.take_lease(name, "me", NOW, MINUTE)
    assert lease is not None
    assert ledger.renew_lease(lease, NOW, timedelta(0))
    known = ledger.lease(name)
    assert known is not None
    assert known.is_free(NOW)
    following = ledger.take_lease(name, "other", NOW, MINUTE)
    assert following is not None
    assert following.epoch == lease.epoch + 1


def test_a_lease_never_held_cannot_be_renewed(ledger: Ledger, name: str) -> None:
    assert ledger.renew_lease(Lease(name, "me", 1, NOW), NOW, MINUTE) is None
    assert ledger.lease(name) is None


# Parts


def test_parts_come_by_shard_and_only_those_of_the_move(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 0)
    parts = [part(unit, shard, 1, rows=shard) for shard in (2, 0, 1)]
    assert all(ledger.put_part(made) for made in parts)
    ledger.put_part(part(unit, 0, 1, source=Tier.WARM))
    ledger.put_part(part(replace(unit, slice=1), 0, 1))
    assert ledger.parts(unit) == [parts[1], parts[2], parts[0]]
    assert [found.source for found in ledger.parts(replace(unit, move=WARM_COLD))] == [Tier.WARM]


def test_an_older_epoch_never_replaces_a_part(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 0)
    new, old = part(unit, 0, 5), part(unit, 0, 4, rows=2)
    assert ledger.put_part(new)
    assert not ledger.put_part(old)
    assert ledger.parts(unit) == [new]


def test_the_same_epoch_replaces_its_own_part(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 0)
    made = part(unit, 0, 5)
    ledger.put_part(made)
    assert ledger.put_part(replace(made, verified=True))
    assert ledger.parts(unit) == [replace(made, verified=True)]


def test_the_newest_of_many_parts_stands(ledger: Ledger, week: int) -> None:
    unit = Unit(ledger.region, week, 0)
    at_once(lambda number: ledger.put_part(part(unit, 0, number + 1)))
    assert [found.epoch for found in ledger.parts(unit)] == [THREADS]


# Pointers


def test_a_pointer_moves_only_forward(ledger: Ledger, week: int) -> None:
    assert ledger.advance(pointer(week, 3))
    assert ledger.advance(pointer(week, 3)), "the same again is done already"
    assert not ledger.advance(pointer(week, 3, path="b"))
    assert not ledger.advance(pointer(week, 2, path="b"))
    assert ledger.pointers(week, 0) == [pointer(week, 3)]
    assert ledger.advance(pointer(week, 4, path="b"))
    assert ledger.pointers(week, 0) == [pointer(week, 4, path="b")]


def test_a_pointer_to_version_zero(ledger: Ledger, week: int) -> None:
    assert ledger.advance(pointer(week, 0))
    assert ledger.pointers(week, 0) == [pointer(week, 0)]


def test_pointers_of_two_cuts_stand_side_by_side(ledger: Ledger, week: int) -> None:
    wanted = [pointer(week, 1, shard, shards) for shards in (2, 4) for shard in range(shards)]
    for made in reversed(wanted):
        ledger.advance(made)
    assert ledger.pointers(week, 0) == wanted
    assert ledger.pointers(week, 1) == []


def test_the_newest_of_many_pointers_stands(ledger: Ledger, week: int) -> None:
    at_once(lambda number: ledger.advance(pointer(week, number, path=str(number))))
    assert [found.version for found in ledger.pointers(week, 0)] == [THREADS - 1]


# Week tables


def test_a_week_table_is_compared_and_set(ledger: Ledger, week: int) -> None:
    live = WeekTable(ledger.region, week, Tier.HOT, 1, TableState.LIVE)
    dropping, again = replace(live, state=TableState.DROPPING), replace(live, generation=2)
    assert not ledger.put_table(live, dropping), "it was not there"
    assert ledger.put_table(None, live)
    assert ledger.put_table(None, live), "it stands"
    assert not ledger.put_table(None, again)
    assert ledger.put_table(live, dropping)
    assert not ledger.put_table(live, again)
    assert [table for table in ledger.tables() if table.week == week] == [dropping]


def test_tiers_have_tables_of_their_own(ledger: Ledger, week: int) -> None:
    tables = [WeekTable(ledger.region, week, tier, 1, TableState.LIVE) for tier in (Tier.HOT, Tier.WARM)]
    assert all(ledger.put_table(None, table) for table in tables)
    assert [table for table in ledger.tables() if table.week == week] == tables


# When the answer is lost, or the process dies between two writes: only a store behind a network has that.


@dataclass
class Faulty:
    """A real database whose nth compare-and-set happens but is not answered, or, `dies`, does not happen at all."""

    db: Database
    fault_at: int
    dies: bool = False
    done: int = 0

    def rows(self, query: str, params: Params, level: Level = Level.QUORUM) -> Rows:
        return self.db.rows(query, params, level)

    def cas(self, query: str, params: Params) -> bool:
        self.done += 1
        if self.dies and self.done == self.fault_at:
            raise BlockedError("the process was killed", "start it again")
        applied = self.db.cas(query, params)
        if self.done == self.fault_at:
            raise OutcomeUnknownError("the answer was lost", "look")
        return applied


def faulty(databases: Databases, region: str, fault_at: int, dies: bool = False) -> CqlLedger:
    return CqlLedger(cast(Database, Faulty(databases.hot, fault_at, dies)), region)


def steps(ledger: Ledger, week: int, name: str) -> list[Callable[[], object]]:
    unit = Unit(ledger.region, week, 0, sealed_at=NOW + timedelta(microseconds=7))
    live = WeekTable(ledger.region, week, Tier.HOT, 1, TableState.LIVE)
    return [
        lambda: ledger.create(unit),
        lambda: ledger.change(unit, unit.changed(route=7, switched_at=NOW + timedelta(microseconds=9))),
        lambda: ledger.put_part(part(unit, 0, 1)),
        lambda: ledger.advance(pointer(week, 1)),
        lambda: ledger.put_table(None, live),
        lambda: ledger.put_table(live, replace(live, state=TableState.DROPPING)),
        lambda: ledger.take_lease(name, "me", NOW, MINUTE),
        lambda: ledger.renew_lease(Lease(name, "me", 1, NOW), NOW + MINUTE, MINUTE),
    ]


def seen(ledger: Ledger, week: int, name: str) -> list[object]:
    tables = [table for table in ledger.tables() if table.week == week]
    unit = Unit(ledger.region, week, 0)
    return [ledger.unit(week, 0), ledger.parts(unit), ledger.pointers(week, 0), tables, ledger.lease(name)]


@pytest.mark.services
def test_a_lost_answer_changes_nothing(databases: Databases, region: str) -> None:
    """Every step succeeds, and the ledger looks as one that lost no answer."""
    lossless = MemoryLedger(region)
    calls = 11  # of compare-and-set, over all steps
    for fault_at in range(1, calls + 1):
        week = next(FRESH_WEEKS)
        ledger = faulty(databases, region, fault_at)
        name = f"lost/{week}"
        assert all(step() for step in steps(ledger, week, name)), fault_at
        assert all(step() for step in steps(lossless, week, name))
        assert seen(ledger, week, name) == seen(lossless, week, name)
        assert cast(Faulty, ledger.db).done >= calls, "the fault was met"


@pytest.mark.services
def test_a_lost_answer_gives_no_route_twice(databases: Databases, region: str) -> None:
    before = CqlLedger(databases.hot, region).route()
    taken = []
    for fault_at in (1, 2):
        taken.append(faulty(databases, region, fault_at).next_route())
    assert before < taken[0] < taken[1]
    assert CqlLedger(databases.hot, region).route() == taken[1]


@pytest.mark.services
def test_half_a_part_or_pointer_is_none(databases: Databases, region: str, week: int) -> None:
    """The place is taken first, for a comparison; who reads then finds nothing rather than a row of nulls."""
    with pytest.raises(BlockedError):
        faulty(databases, region, 2, dies=True).put_part(part(Unit(region, week, 0), 0, 1))
    with pytest.raises(BlockedError):
        faulty(databases, region, 2, dies=True).advance(pointer(week, 1))
    whole = CqlLedger(databases.hot, region)
    assert whole.parts(Unit(region, week, 0, HOT_WARM)) == []
    assert whole.pointers(week, 0) == []
    assert whole.put_part(part(Unit(region, week, 0), 0, 1))
    assert whole.advance(pointer(week, 1))


@dataclass
class Interleaved:
    """A real database; something else happens right after the first read."""

    db: Database
    between: Callable[[], object]
    done: bool = False

    def rows(self, query: str, params: Params, level: Level = Level.QUORUM) -> Rows:
        found = self.db.rows(query, params, level)
        if not self.done:
            self.done = True
            self.between()
        return found

    def cas(self, query: str, params: Params) -> bool:
        return self.db.cas(query, params)


@pytest.mark.services
def test_a_renewal_that_the_taker_has_not_seen_stands(databases: Databases, region: str, name: str) -> None:
    ledger = CqlLedger(databases.hot, region)
    lease = ledger.take_lease(name, "slow", NOW, MINUTE)
    assert lease is not None
    between = Interleaved(databases.hot, lambda: ledger.renew_lease(lease, NOW + MINUTE, MINUTE))
    taker = CqlLedger(cast(Database, between), region)
    assert taker.take_lease(name, "other", NOW + MINUTE, MINUTE) is None
    assert ledger.lease(name) == replace(lease, expires_at=NOW + 2 * MINUTE)


def test_a_retired_pointer_leads_nowhere_until_a_newer_one(ledger: Ledger, week: int) -> None:
    first, other = pointer(week, 4), pointer(week, 4, shard=1)
    assert ledger.advance(first)
    assert ledger.advance(other)
    assert ledger.retire(first, 6)
    assert ledger.retire(first, 6), "the same again is done already"
    assert ledger.pointers(week, 0) == [other]
    assert not ledger.advance(pointer(week, 5, path="late"))
    assert not ledger.retire(other, 4), "never at its own version"
    assert ledger.advance(pointer(week, 7, path="b"))
    assert ledger.pointers(week, 0) == [pointer(week, 7, path="b"), other]


# Runs, frozen objects, verdicts


def run(week: int, name: str = "r", rows: int = 3) -> Run:
    return Run(week, 0, name, f"runs/{name}", Digest(rows, 4), 10, "ab")


def test_a_run_is_known_once_and_for_good(ledger: Ledger, week: int) -> None:
    assert ledger.runs(week, 0) == []
    assert ledger.add_run(run(week))
    assert ledger.add_run(run(week))
    assert not ledger.add_run(run(week, rows=4)), "another file of the same name"
    assert ledger.add_run(run(week, "q"))
    assert ledger.runs(week, 0) == [run(week, "q"), run(week)]


def test_a_folded_run_stays_folded(ledger: Ledger, week: int) -> None:
    ledger.add_run(run(week))
    assert ledger.fold_run(run(week))
    assert ledger.fold_run(run(week))
    assert ledger.add_run(run(week)), "the same file again is no news"
    assert ledger.runs(week, 0) == [replace(run(week), folded=True)]
    assert not ledger.fold_run(run(week, "unknown"))
    assert len(ledger.runs(week, 0)) == 1


def frozen(week: int, epoch: int, generation: int = 0, shard: int = 0) -> FrozenFile:
    path = f"frozen/{generation}/{shard}/{epoch}"
    return FrozenFile(week, 0, generation, shard, epoch, 2, path, Digest(3, 4), 10, "ab", "GLACIER", NOW)


def test_a_frozen_object_is_replaced_only_by_one_of_a_newer_epoch(ledger: Ledger, week: int) -> None:
    assert ledger.put_frozen(frozen(week, 4))
    assert ledger.put_frozen(frozen(week, 5))
    assert not ledger.put_frozen(frozen(week, 4))
    assert ledger.put_frozen(frozen(week, 5)), "the same again is done already"
    assert ledger.frozen(week, 0) == [frozen(week, 5)]


def test_frozen_objects_come_by_generation_and_shard(ledger: Ledger, week: int) -> None:
    wanted = [frozen(week, 1, generation, shard) for generation in (0, 1) for shard in (0, 1)]
    assert [ledger.put_frozen(file) for file in reversed(wanted)] == [True] * 4
    assert ledger.frozen(week, 0) == wanted


def test_a_frozen_object_is_retired_only_as_the_one_that_was_seen(ledger: Ledger, week: int) -> None:
    first, second = frozen(week, 4), frozen(week, 4, shard=1)
    assert ledger.put_frozen(first)
    assert ledger.put_frozen(second)
    assert ledger.retire_frozen(first)
    assert ledger.retire_frozen(first), "the same again is done already"
    assert ledger.frozen(week, 0) == [second]
    assert not ledger.put_frozen(frozen(week, 3)), "an older epoch does not bring it back"
    newer = frozen(week, 5)
    assert ledger.put_frozen(newer)
    assert ledger.retire_frozen(first)
    assert ledger.frozen(week, 0) == [newer, second]


def audited(week: int, name: str, at: datetime = NOW) -> Audited:
    return Audited(name, at, "override", week, 0, "hot → warm", "copied", "sealed", 4, 9, "someone", "a reason")


def test_what_was_done_by_hand_is_noted_before_and_confirmed_after(ledger: Ledger, week: int) -> None:
    first, later = audited(week, "a"), audited(week, "b", NOW + timedelta(microseconds=61_234))
    assert ledger.note(first)
    assert ledger.note(first), "the same again is done already"
    assert not ledger.note(replace(first, reason="another"))
    assert ledger.note(later)
    assert ledger.confirm(first)
    assert not ledger.confirm(audited(week, "c"))
    kept = replace(later, at=NOW + timedelta(milliseconds=61))
    assert [one for one in ledger.audit() if one.week == week] == [kept, replace(first, applied=True)]


def test_the_last_verdict_stands(ledger: Ledger, week: int) -> None:
    assert ledger.verdict(week, 0) is None
    good = Verdict(week, 0, "files", "suite", True, (), NOW + timedelta(microseconds=1234))
    bad = Verdict(week, 0, "other files", "suite", False, ("a rule", "another rule"), NOW)
    ledger.put_verdict(good)
    assert ledger.verdict(week, 0) == replace(good, judged_at=NOW + timedelta(microseconds=1000))
    ledger.put_verdict(bad)
    assert ledger.verdict(week, 0) == bad
