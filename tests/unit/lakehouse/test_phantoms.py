"""What is named and not there is told, whoever names it; what is there and whole is not, and nothing is changed."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core import digest
from core.ledger import FrozenFile, Part, Pointer, Run
from core.moves import COLD_FROZEN, WARM_COLD, State, Unit
from core.settings import Objects as ObjectSettings
from core.tiers import Tier
from lakehouse import maintenance
from lakehouse import phantoms as looking
from lakehouse.commit import PartFile, commit, create_table
from lakehouse.maintenance import Tables
from lakehouse.paths import data_path, frozen_key, index_key, run_key, table_root
from lakehouse.phantoms import Named, Witness, judged, phantoms
from lakehouse.tables import frozen_table, messages_table
from schemas.tables import FROZEN_MANIFEST
from stores.buckets import open_objects
from stores.memory_ledger import MemoryLedger
from tests.unit.lakehouse.test_maintenance import NOW, WEEK

ROOT = table_root(0)
UNIT = Unit("us", WEEK, 0, COLD_FROZEN, State.OPEN, epoch=1, shards=1)
ATTEMPTS = (f"a{number}" for number in count())
BYTES = b"x" * 100


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    store = ObjectSettings(url=f"file:{tmp_path}")
    where = (open_objects(store, "us"), store, "us", 0)
    made = Tables(0, messages_table(*where), frozen_table(*where))
    for table in (made.messages, made.frozen):
        create_table(table)
    return made


@pytest.fixture
def ledger() -> MemoryLedger:
    made = MemoryLedger("us")
    made.create(UNIT)
    return made


def put(tables: Tables, key: str, data: bytes = BYTES, has_index: bool = True) -> str:
    for one in (key, index_key(key)) if has_index else (key,):
        tables.messages.objects.put(one, data)
    return key


def cold(tables: Tables, ledger: MemoryLedger, witnesses: str = "pointer, log") -> str:
    path = data_path(WEEK, 0, 1, next(ATTEMPTS))
    key = put(tables, f"{ROOT}/{path}")
    if "pointer" in witnesses:
        ledger.advance(Pointer(WEEK, 0, 1, 0, path, 1, digest.Digest(), len(BYTES), "0" * 64))
    if "log" in witnesses:
        file = PartFile(path, len(BYTES), 1, (WEEK, 0))
        commit(tables.messages, [file], app_id="us/unit", number=1, attempt_id=path, now=NOW)
    return key


def frozen(tables: Tables, ledger: MemoryLedger) -> str:
    key = frozen_key(0, WEEK, 0, 0, 1, next(ATTEMPTS))
    facts = (key, digest.Digest(), len(BYTES), "0" * 64)
    ledger.put_frozen(FrozenFile(WEEK, 0, 0, 0, 1, 1, *facts, "GLACIER", NOW))
    return put(tables, key)


def run(tables: Tables, ledger: MemoryLedger) -> str:
    name = next(ATTEMPTS)
    key = run_key(0, WEEK, name)
    ledger.add_run(Run(WEEK, 0, name, key, digest.Digest(), len(BYTES), "0" * 64))
    return put(tables, key, has_index=False)


def moving(tables: Tables, ledger: MemoryLedger, state: State = State.COPIED) -> str:
    unit = replace(UNIT, week=WEEK + 1, move=WARM_COLD, state=state)
    ledger.create(unit)
    path = data_path(WEEK + 1, 0, 1, next(ATTEMPTS))
    ledger.put_part(Part(*unit.key, Tier.WARM, 0, 1, digest.Digest(), path, 100, "0"))
    return put(tables, f"{ROOT}/{path}")


CASES = {
    "a cold file": (cold, (Witness.DELTA, Witness.POINTER)),
    "a frozen object": (frozen, (Witness.FROZEN_ROW,)),
    "a run": (run, (Witness.RUN,)),
    "a part": (moving, (Witness.PART,)),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_gone_is_told_with_who_names_it(tables: Tables, ledger: MemoryLedger, case: str) -> None:
    make, witnesses = CASES[case]
    key = make(tables, ledger)
    objects = tables.messages.objects
    assert phantoms(ledger, tables) == []
    objects.delete(key)
    (found,) = phantoms(ledger, tables)
    assert (found.key, found.witnesses, found.found_bytes) == (key, witnesses, None)
    assert "is missing; named by" in found.sentence
    objects.put(key, BYTES)
    assert phantoms(ledger, tables) == []


@pytest.mark.parametrize("case", ["a cold file", "a frozen object", "a part"])
def test_an_index_is_named_by_its_file(tables: Tables, ledger: MemoryLedger, case: str) -> None:
    key = CASES[case][0](tables, ledger)
    tables.messages.objects.delete(index_key(key))
    assert [(one.key, one.witnesses) for one in phantoms(ledger, tables)] == [(index_key(key), (Witness.FILE,))]


@pytest.mark.parametrize("case", ["a cold file", "a frozen object", "a run"])
def test_another_size_is_told(tables: Tables, ledger: MemoryLedger, case: str) -> None:
    key = CASES[case][0](tables, ledger)
    tables.messages.objects.put(key, BYTES[:-1])
    (found,) = phantoms(ledger, tables)
    assert (found.found_bytes, found.wanted_bytes) == (99, 100)
    assert "has 99 bytes, not 100" in found.sentence


@pytest.mark.parametrize("witness", ["pointer", "log"])
def test_one_witness_is_enough(tables: Tables, ledger: MemoryLedger, witness: str) -> None:
    key = cold(tables, ledger, witness)
    tables.messages.objects.delete(key)
    assert [one.key for one in phantoms(ledger, tables)] == [key]


def test_a_manifest_names_objects_that_the_ledger_forgot(tables: Tables, ledger: MemoryLedger) -> None:
    gone = frozen_key(0, WEEK, 0, 0, 1, next(ATTEMPTS))
    path = f"week={WEEK}/generation=0/00000001-a.parquet"
    sink = pa.BufferOutputStream()
    empty = {field.name: pa.array([gone if field.name == "object" else None], field.type) for field in FROZEN_MANIFEST}
    pq.write_table(pa.table(empty), sink)
    tables.frozen.objects.put(f"{tables.frozen.root}/{path}", data := sink.getvalue().to_pybytes())
    file = PartFile(path, len(data), 1, (WEEK, 0))
    commit(tables.frozen, [file], app_id="us/unit", number=1, attempt_id="a", now=NOW)
    found = {one.key: one.witnesses for one in phantoms(ledger, tables)}
    assert found == {gone: (Witness.MANIFEST,), index_key(gone): (Witness.FILE,)}
    tables.frozen.objects.delete(f"{tables.frozen.root}/{path}")
    assert [one.witnesses for one in phantoms(ledger, tables)] == [(Witness.LOG,)]


@pytest.mark.parametrize("state", [State.OPEN, State.SEALED, State.DROPPED])
def test_parts_of_a_copy_that_counts_no_more_name_nothing(tables: Tables, ledger: MemoryLedger, state: State) -> None:
    tables.messages.objects.delete(moving(tables, ledger, state))
    assert phantoms(ledger, tables) == []


def test_what_a_mover_took_out_meanwhile_is_no_phantom(
    tables: Tables, ledger: MemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = frozen(tables, ledger)
    listed = maintenance.listed

    def after_a_thaw(*given: object) -> Iterator[object]:
        (file,) = ledger.frozen(WEEK, 0)
        ledger.retire_frozen(file)
        for one in (key, index_key(key)):
            tables.messages.objects.delete(one)
        return iter(list(listed(*given)))  # type: ignore[arg-type]

    monkeypatch.setattr(looking, "listed", after_a_thaw)
    assert phantoms(ledger, tables) == []


def test_witnesses_of_different_sizes_are_never_both_right() -> None:
    both = [Named("k", Witness.POINTER, 1), Named("k", Witness.DELTA, 2)]
    assert [one.found_bytes for one in judged({"k": both}, {"k": 2})] == [2]
