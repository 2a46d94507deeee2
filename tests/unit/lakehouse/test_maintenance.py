"""What may go: nothing that anything names, nothing younger than its age, nothing of a unit that nobody knows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import digest
from core.errors import DamagedError
from core.ledger import FrozenFile, Part, Pointer, Run, lease_name
from core.moves import COLD_FROZEN, HOT_WARM, MOVES, WARM_COLD, Move, State, Unit
from core.settings import Objects as ObjectSettings
from core.tiers import Tier
from lakehouse.commit import PartFile, commit, create_table
from lakehouse.maintenance import (
    Ages,
    Going,
    Group,
    Kind,
    Names,
    Stays,
    Tables,
    early_dollars,
    fate,
    groups_of,
    judged,
    listed,
    named_by,
    names_of,
    store_time,
)
from lakehouse.paths import data_path, frozen_key, index_key, run_key, table_root
from lakehouse.tables import frozen_table, messages_table
from stores.buckets import open_objects
from stores.memory import MemoryObjects
from stores.memory_ledger import MemoryLedger
from stores.objects import ListedObject

NOW = datetime(2026, 3, 2, tzinfo=UTC)
STORED_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
AGES = Ages(NOW, STORED_NOW, replaced=DAY, orphan=DAY)
WEEK = 2913
ROOT = table_root(0)
MOVING = (State.SEALED, State.COPIED, State.VERIFIED, State.SWITCHED)
NOTHING = Names(0, frozenset({WEEK}), frozenset(), {}, frozenset(), frozenset())
ATTEMPTS = (f"a{number}" for number in count())


def cold(epoch: int = 1, week: int = WEEK, slice_: int = 0) -> str:
    return f"{table_root(slice_)}/{data_path(week, 0, epoch, next(ATTEMPTS))}"


def frozen(epoch: int = 1, week: int = WEEK) -> str:
    return frozen_key(0, week, 0, 0, epoch, next(ATTEMPTS))


def manifest(epoch: int = 1, week: int = WEEK) -> str:
    return f"lake/frozen/s000/week={week}/generation=0/{epoch:08d}-{next(ATTEMPTS)}.parquet"


def run(epoch: int = 1, week: int = WEEK) -> str:
    return run_key(0, week, next(ATTEMPTS))


def stored(key: str, age: timedelta = 9 * DAY) -> ListedObject:
    return ListedObject(key, 100, "STANDARD", STORED_NOW - age)


def group(key: str, age: timedelta = 9 * DAY) -> Group:
    return Group(key, (stored(key, age),))


# The rules

Make = Callable[..., str]
KINDS: list[Make] = [cold, frozen, manifest, run]
ages = st.timedeltas(timedelta(hours=-1), timedelta(days=3))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Group, Names]:
    """One object, with and without its index, and anything that may be known of it."""
    epoch = draw(st.integers(1, 3))
    week = draw(st.sampled_from([WEEK, WEEK + 1]))
    key = draw(st.sampled_from(KINDS))(epoch=epoch, week=week)
    objects = [stored(key, draw(ages))]
    if key.startswith(("lake/messages", "frozen/")):
        objects = draw(st.sampled_from([objects, [*objects, stored(index_key(key), draw(ages))]]))
    some = st.sampled_from([frozenset(), frozenset({key})])
    return Group(key, tuple(objects)), Names(
        draw(st.sampled_from([0, 0, 0, 1])),
        draw(st.sampled_from([frozenset(), frozenset({WEEK}), frozenset({WEEK, WEEK + 1})])),
        draw(some),
        draw(st.sampled_from([{}, {key: NOW - draw(ages)}])),
        draw(some),
        frozenset(draw(st.sets(st.tuples(st.sampled_from([WEEK, WEEK + 1]), st.integers(1, 3)), max_size=2))),
    )


@given(cases())
def test_what_goes_is_named_by_nothing_and_old_enough(case: tuple[Group, Names]) -> None:
    one, names = case
    verdict = fate(one, names, AGES)
    if not isinstance(verdict, Kind):
        return
    assert one.key not in names.named
    assert names.slice == 0
    assert f"week={WEEK}/" in one.key or WEEK + 1 in names.weeks
    if verdict is Kind.REPLACED:
        assert names.removed[one.key] <= NOW - DAY
    else:
        assert one.key not in names.removed
        assert all(each.modified_at <= STORED_NOW - DAY for each in one.objects)
        assert verdict is (Kind.FOLDED if one.key in names.folded else Kind.ORPHAN)


@given(cases())
def test_one_witness_is_enough_to_stay(case: tuple[Group, Names]) -> None:
    one, names = case
    assert judged([one], replace(names, named=names.named | {one.key}), AGES) == ([], {Stays.NAMED: len(one.objects)})
    assert judged([one], replace(names, weeks=frozenset()), AGES)[0] == []
    earlier = replace(AGES, stored_now=STORED_NOW - 9 * DAY, now=NOW - 9 * DAY)
    assert judged([one], names, earlier)[0] == []


@pytest.mark.parametrize("make", KINDS)
def test_what_nothing_names_goes_when_it_is_old(make: Make) -> None:
    """The positive control of each kind."""
    key = make()
    assert fate(group(key, DAY), NOTHING, AGES) is Kind.ORPHAN
    assert fate(group(key, DAY - timedelta(seconds=1)), NOTHING, AGES) is Stays.YOUNG
    assert fate(group(key), replace(NOTHING, named=frozenset({key})), AGES) is Stays.NAMED
    assert fate(group(key), replace(NOTHING, weeks=frozenset({WEEK + 1})), AGES) is Stays.UNKNOWN
    assert fate(group(key), replace(NOTHING, slice=1), AGES) is Stays.UNKNOWN


@pytest.mark.parametrize("make", [cold, manifest])
def test_a_replaced_file_goes_by_when_it_was_replaced(make: Make) -> None:
    key = make()

    def after(age: timedelta) -> object:
        return fate(group(key, timedelta()), replace(NOTHING, removed={key: NOW - age}), AGES)

    assert after(DAY) is Kind.REPLACED
    assert after(DAY - timedelta(milliseconds=1)) is Stays.YOUNG
    named = replace(NOTHING, named=frozenset({key}), removed={key: NOW - 9 * DAY})
    assert fate(group(key), named, AGES) is Stays.NAMED, "a pointer that was not repaired"


def test_a_folded_run_goes_and_one_that_waits_stays() -> None:
    key = run()
    assert fate(group(key), replace(NOTHING, folded=frozenset({key})), AGES) is Kind.FOLDED
    assert fate(group(key), replace(NOTHING, folded=frozenset({key}), named=frozenset({key})), AGES) is Stays.NAMED
    assert fate(group(key, timedelta()), replace(NOTHING, folded=frozenset({key})), AGES) is Stays.YOUNG


def test_what_a_live_process_writes_stays_whatever_its_age() -> None:
    held = replace(NOTHING, writers=frozenset({(WEEK, 7)}))
    for make in (cold, frozen, manifest):
        assert fate(group(make(7)), held, AGES) is Stays.WRITING
        assert fate(group(make(6)), held, AGES) is Kind.ORPHAN
        assert fate(group(make(7, WEEK + 1)), replace(held, weeks=frozenset({WEEK + 1})), AGES) is Kind.ORPHAN


@pytest.mark.parametrize(
    "key",
    [
        f"{ROOT}/week={WEEK}/shard=00000/part-00000-0f0e0d0c.snappy.parquet",
        f"{ROOT}/week={WEEK}/notes.txt",
        f"{ROOT}/_delta_log/{0:020d}.json",
        f"index/messages/s000/week={WEEK}/shard=00000/x.other",
        "media/0f0e",
        f"runs/s000/week={WEEK}/x/y.parquet",
    ],
)
def test_what_we_did_not_name_is_not_ours_to_delete(key: str) -> None:
    assert [fate(one, NOTHING, AGES) for one in groups_of([stored(key)])] == [Stays.UNKNOWN]


def test_a_file_and_its_index_go_together_and_the_index_first() -> None:
    keys = [cold(), frozen()]
    objects = [stored(name) for key in keys for name in (key, index_key(key))]
    going, _ = judged(groups_of(objects), NOTHING, AGES)
    assert [[one.key for one in each.group.in_order] for each in going] == [[index_key(key), key] for key in keys]
    for key in keys:
        young_index = [stored(key), stored(index_key(key), timedelta())]
        assert judged(groups_of(young_index), NOTHING, AGES) == ([], {Stays.YOUNG: 2})
        alone = judged(groups_of([stored(index_key(key))]), NOTHING, AGES)[0]
        assert [(one.kind, one.group.key) for one in alone] == [(Kind.ORPHAN, key)]
        named = replace(NOTHING, named=frozenset({key}))
        assert judged(groups_of([stored(index_key(key))]), named, AGES)[0] == []


def test_an_archive_is_left_early_for_money() -> None:
    object_ = ListedObject(frozen(), 2**30, "DEEP_ARCHIVE", STORED_NOW - 150 * DAY)
    going = [Going(Kind.ORPHAN, Group(object_.key, (object_,)))]
    assert early_dollars(going, AGES) == pytest.approx(0.00099, rel=0.01)
    assert early_dollars([Going(Kind.ORPHAN, group(cold()))], AGES) == 0


# What the ledger names


def file_facts(key: str) -> tuple[str, digest.Digest, int, str]:
    return key, digest.Digest(), 100, "0" * 64


def pointer(week: int, shard: int, key: str, version: int = 1, shards: int = 2) -> Pointer:
    path = key.removeprefix(f"{ROOT}/")
    return Pointer(week, 0, shards, shard, path, version, digest.Digest(), 100, "0" * 64)


def part(unit: Unit, shard: int, key: str) -> Part:
    return Part(*unit.key, unit.move.source, shard, unit.epoch, digest.Digest(), key.removeprefix(f"{ROOT}/"), 100, "0")


def frozen_file(week: int, generation: int, key: str) -> FrozenFile:
    return FrozenFile(week, 0, generation, 0, 1, 1, *file_facts(key), "GLACIER", NOW)


def run_row(week: int, key: str, folded: bool = False) -> Run:
    return Run(week, 0, key.rpartition("/")[2].removesuffix(".parquet"), *file_facts(key), folded)


def key_of_sink(unit: Unit, week: int) -> str:
    return frozen(week=week) if unit.move == COLD_FROZEN else cold(week=week)


@st.composite
def regions(draw: st.DrawFn) -> tuple[MemoryLedger, set[str], set[str]]:
    """A ledger, what it names, and what lies there beside."""
    ledger, named, beside = MemoryLedger("us"), set[str](), set[str]()
    for week in range(WEEK, WEEK + draw(st.integers(1, 3))):
        unit = Unit("us", week, 0, draw(st.sampled_from(MOVES)), draw(st.sampled_from(State)), epoch=1, shards=2)
        ledger.create(unit)
        for shard in range(draw(st.integers(0, 2))):
            old, new = cold(week=week), cold(week=week)
            ledger.advance(pointer(week, shard, old, 1))
            ledger.advance(pointer(week, shard, new, 2, draw(st.sampled_from([2, 2, 4]))))
            named |= {f"{ROOT}/{one.path}" for one in ledger.pointers(week, 0)}
            beside |= {old, new}
        for shard in range(draw(st.integers(0, 2)) if unit.move != HOT_WARM else 0):
            key = key_of_sink(unit, week)
            ledger.put_part(part(unit, shard, key))
            (named if unit.state in MOVING else beside).add(key)
        for generation in range(draw(st.integers(0, 2))):
            key = frozen(week=week)
            ledger.put_frozen(frozen_file(week, generation, key))
            named.add(key)
        for is_folded in draw(st.lists(st.booleans(), max_size=2)):
            key = run(week=week)
            ledger.add_run(run_row(week, key))
            if is_folded:
                ledger.fold_run(run_row(week, key))
            (beside if is_folded else named).add(key)
        beside |= {make(week=week) for make in draw(st.lists(st.sampled_from(KINDS), max_size=3))}
    return ledger, named, beside - named


@given(regions())
def test_nothing_that_the_ledger_names_ever_goes_and_all_else_does(
    region: tuple[MemoryLedger, set[str], set[str]],
) -> None:
    ledger, named, beside = region
    found = named_by(ledger, ROOT, ledger.units())
    assert found == named
    names = replace(NOTHING, weeks=frozenset(unit.week for unit in ledger.units()), named=frozenset(found))
    going, kept = judged(map(group, sorted(named | beside)), names, AGES)
    assert {one.group.key for one in going} == beside
    assert kept[Stays.NAMED] == len(named)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("move", [WARM_COLD, COLD_FROZEN])
def test_a_part_is_named_while_its_move_is_under_way(move: Move, state: State) -> None:
    ledger = MemoryLedger("us")
    unit = Unit("us", WEEK, 0, move, state, epoch=3, shards=1)
    ledger.create(unit)
    key = key_of_sink(unit, WEEK)
    ledger.put_part(part(unit, 0, key))
    assert named_by(ledger, ROOT, [unit]) == ({key} if state in MOVING else set())


def test_a_part_of_another_move_names_nothing() -> None:
    ledger = MemoryLedger("us")
    unit = Unit("us", WEEK, 0, COLD_FROZEN, State.SEALED, epoch=3, shards=1)
    ledger.create(unit)
    ledger.put_part(replace(part(unit, 0, cold()), source=Tier.WARM))
    assert named_by(ledger, ROOT, [unit]) == set()


# What tables say, read from real ones


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    store = ObjectSettings(url=f"file:{tmp_path}")
    where = (open_objects(store, "us"), store, "us", 0)
    return Tables(0, messages_table(*where), frozen_table(*where))


def commit_file(tables: Tables, number: int, replaces: Sequence[str] = (), now: datetime = NOW) -> str:
    path, table = data_path(WEEK, 0, 1, next(ATTEMPTS)), tables.messages
    table.objects.put(f"{table.root}/{path}", b"rows")
    file = PartFile(path, 4, 1, (WEEK, 0), tuple(replaces))
    commit(table, [file], app_id="us/unit", number=number, attempt_id=path, now=now)
    return path


def held(ledger: MemoryLedger, units: Iterable[Unit]) -> MemoryLedger:
    for unit in units:
        ledger.create(unit)
    return ledger


RESTING = Unit("us", WEEK, 0, COLD_FROZEN, State.OPEN, epoch=1, shards=2)


def test_before_there_is_a_table_the_ledger_alone_names(tables: Tables) -> None:
    ledger = held(MemoryLedger("us"), [RESTING, replace(RESTING, slice=1, week=WEEK + 1)])
    names = names_of(ledger, tables, STORED_NOW)
    assert names == NOTHING
    assert list(tables.messages.objects.list("")) == [], "and looking makes none"


def test_live_files_are_named_and_the_log_says_since_when_others_are_not(tables: Tables) -> None:
    create_table(tables.messages)
    old = commit_file(tables, 1)
    new = commit_file(tables, 2, [old], NOW - 2 * DAY)
    ledger = held(MemoryLedger("us"), [RESTING])
    names = names_of(ledger, tables, STORED_NOW)
    assert names.named == {f"{ROOT}/{new}"}
    assert names.removed == {f"{ROOT}/{old}": NOW - 2 * DAY}
    going, kept = judged(groups_of(listed(tables.messages.objects, 0)), names, AGES)
    assert [(one.kind, one.group.key) for one in going] == [(Kind.REPLACED, f"{ROOT}/{old}")]
    assert kept == {Stays.NAMED: 1}
    ledger.advance(pointer(WEEK, 0, old, version=1))
    assert names_of(ledger, tables, STORED_NOW).named == {f"{ROOT}/{new}", f"{ROOT}/{old}"}


def test_a_log_that_is_behind_its_pointers_is_not_believed(tables: Tables) -> None:
    create_table(tables.messages)
    ledger = held(MemoryLedger("us"), [RESTING])
    ledger.advance(pointer(WEEK, 0, commit_file(tables, 1), version=2))
    with pytest.raises(DamagedError, match=r"comes from version 2 .* ends at 1"):
        names_of(ledger, tables, STORED_NOW)
    for one in list(tables.messages.objects.list(f"{ROOT}/_delta_log/")):
        tables.messages.objects.delete(one.key)
    with pytest.raises(DamagedError, match="ends at -1"):
        names_of(ledger, tables, STORED_NOW)


def test_a_lease_that_is_held_is_a_writer(tables: Tables) -> None:
    ledger = held(MemoryLedger("us"), [RESTING])
    for _ in range(3):
        lease = ledger.take_lease(lease_name(RESTING), "x", STORED_NOW, timedelta(minutes=1))
        assert lease
        assert names_of(ledger, tables, STORED_NOW).writers == {(WEEK, lease.epoch)}
        ledger.renew_lease(lease, STORED_NOW, timedelta())
    assert names_of(ledger, tables, STORED_NOW).writers == frozenset()


def test_folded_runs_are_known_as_such(tables: Tables) -> None:
    ledger = held(MemoryLedger("us"), [RESTING])
    done, waiting = run_row(WEEK, run()), run_row(WEEK, run())
    for one in (done, waiting):
        ledger.add_run(one)
    ledger.fold_run(done)
    names = names_of(ledger, tables, STORED_NOW)
    assert names.named == {waiting.path}
    assert names.folded == {done.path}


def test_a_listing_has_what_jobs_write_and_no_log(tables: Tables) -> None:
    objects = tables.messages.objects
    create_table(tables.messages)
    mine = [cold(), frozen(), manifest(), run()]
    mine += [index_key(key) for key in mine[:2]]
    for key in [*mine, cold(slice_=1), "media/x", "maintenance/clock"]:
        objects.put(key, b"x")
    assert {one.key for one in listed(objects, 0)} == set(mine)


def test_the_time_is_the_store_s() -> None:
    assert store_time(MemoryObjects(lambda: STORED_NOW)) == STORED_NOW
