"""What every vault promises: the one in CQL and the one in memory."""

import base64
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import pytest

from core import settings
from core.errors import DamagedError, OutcomeUnknownError, RefusedError
from core.sealing import KEY_BYTES, NONCE_BYTES, unwrap, wrap
from core.settings import Secret, Settings
from stores.cassandra import Databases, connected
from stores.memory_vault import MemoryVault
from stores.vault import CqlVault, Vault, WrappingKey, wrapping_key

PEOPLE = count(1, 10)


@pytest.fixture(scope="module")
def databases(config: Settings) -> Iterator[Databases]:
    with connected(config) as db:
        yield db


@pytest.fixture
def in_cql(databases: Databases, config: Settings, region: str) -> CqlVault:
    return CqlVault(databases.hot, region, wrapping_key(config.vault, region))


@pytest.fixture(params=["memory", pytest.param("cql", marks=pytest.mark.services)])
def vault(request: pytest.FixtureRequest) -> Vault:
    if request.param == "memory":
        return MemoryVault()
    found: CqlVault = request.getfixturevalue("in_cql")
    return found


@pytest.fixture
def person() -> int:
    """The one in CQL serves all cases, so each has people of its own: this one and the nine after."""
    return next(PEOPLE)


def test_a_key_is_made_once_and_stays(vault: Vault, person: int) -> None:
    made = vault.make([person, person + 1])
    key, other = made[person], made[person + 1]
    assert key is not None
    assert len(key) == KEY_BYTES
    assert key != other
    assert vault.make([person + 1, person + 2, person])[person] == key
    assert vault.keys([person, person + 1]) == made


def test_many_makers_agree(vault: Vault, person: int) -> None:
    everybody = range(person, person + 9)
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: vault.make(everybody), range(3)))
    assert made[0] == made[1] == made[2] == vault.keys(everybody)


def test_a_key_that_nobody_made_is_damage(vault: Vault, person: int) -> None:
    vault.make([person])
    with pytest.raises(DamagedError, match="lacks 1 keys"):
        vault.keys([person, person + 1])


def test_a_destroyed_key_never_comes_back(vault: Vault, person: int) -> None:
    vault.make([person, person + 1])
    vault.destroy(person)
    vault.destroy(person)
    vault.destroy(person + 2)  # who had none
    assert vault.make([person, person + 2]) == {person: None, person + 2: None}
    assert vault.keys([person, person + 2]) == {person: None, person + 2: None}
    assert vault.keys([person + 1])[person + 1] is not None


def test_a_reference_stands_for_whom_it_was_made_for(vault: Vault, person: int) -> None:
    references = [secrets.token_bytes(16) for _ in range(250)]
    wanted = {reference: person + number % 9 for number, reference in enumerate(references)}
    object_key = f"frozen/{person}"
    vault.note(object_key, wanted)
    vault.note(object_key, wanted)
    assert vault.subjects(object_key, references) == wanted
    assert vault.subjects(object_key, references[:1]) == {references[0]: person}
    assert vault.subjects(object_key, []) == {}


def test_a_reference_that_nobody_noted_is_damage(vault: Vault, person: int) -> None:
    """It must not pass for a person who was forgotten."""
    known = secrets.token_bytes(16)
    vault.note(f"frozen/{person}", {known: person})
    with pytest.raises(DamagedError, match="does not know 1 references"):
        vault.subjects(f"frozen/{person}", [known, secrets.token_bytes(16)])
    with pytest.raises(DamagedError, match="does not know 1 references"):
        vault.subjects("frozen/other", [known])


def test_all_that_an_object_stands_for_is_told(vault: Vault, person: int) -> None:
    object_key = f"frozen/{person}/told"
    assert vault.noted(object_key) == set()
    vault.note(object_key, {secrets.token_bytes(16): person + number % 3 for number in range(9)})
    vault.note(f"{object_key}/other", {secrets.token_bytes(16): person + 5})
    assert vault.noted(object_key) == {person, person + 1, person + 2}


def test_a_forgotten_object_takes_no_other_along(vault: Vault, person: int) -> None:
    references = [secrets.token_bytes(16) for _ in range(3)]
    going, staying = f"frozen/{person}/going", f"frozen/{person}/staying"
    for key in (going, staying):
        vault.note(key, dict.fromkeys(references, person))
    vault.make([person])
    vault.forget_object(going)
    vault.forget_object(going)
    vault.forget_object(f"frozen/{person}/never")
    for reference in references:
        with pytest.raises(DamagedError, match="does not know 1 references"):
            vault.subjects(going, [reference])
    assert vault.subjects(staying, references) == dict.fromkeys(references, person)
    assert vault.keys([person])[person] is not None
    vault.note(going, {references[0]: person})
    assert vault.subjects(going, references[:1]) == {references[0]: person}


def test_a_maker_and_a_destroyer_at_once_leave_it_destroyed(vault: Vault, person: int) -> None:
    for one in range(person, person + 5):
        with ThreadPoolExecutor(3) as pool:
            makers = [pool.submit(vault.make, [one]) for _ in range(2)]
            pool.submit(vault.destroy, one).result()
        for maker in makers:
            maker.result()
        assert vault.keys([one]) == {one: None}


# The one in CQL


@pytest.mark.services
def test_what_lies_in_the_vault_is_wrapped(in_cql: CqlVault, person: int) -> None:
    (key,) = in_cql.make([person]).values()
    query = f"SELECT wrapped, wrapped_by, destroyed FROM {in_cql.region}_vault.person_keys WHERE user_id = ?"
    ((wrapped, wrapped_by, destroyed),) = in_cql.db.rows(query, (person,))
    assert key is not None
    assert key not in wrapped
    assert (wrapped_by, destroyed) == (in_cql.wrapping.name, False)
    in_cql.destroy(person)
    assert in_cql.db.rows(query, (person,)) == [(None, wrapped_by, True)]


@pytest.mark.services
def test_another_wrapping_key_opens_nothing(in_cql: CqlVault, person: int) -> None:
    in_cql.make([person])
    stranger = replace(in_cql, wrapping=WrappingKey(bytes(KEY_BYTES)))
    with pytest.raises(DamagedError, match=f"wrapped by {in_cql.wrapping.name}, and this process has"):
        stranger.keys([person])


@pytest.mark.services
def test_a_wrapped_key_of_another_person_is_seen(in_cql: CqlVault, person: int) -> None:
    in_cql.make([person, person + 1])
    table = f"{in_cql.region}_vault.person_keys"
    ((other,),) = in_cql.db.rows(f"SELECT wrapped FROM {table} WHERE user_id = ?", (person + 1,))
    assert in_cql.db.cas(f"UPDATE {table} SET wrapped = ? WHERE user_id = ? IF EXISTS", (other, person))
    with pytest.raises(DamagedError, match="does not open"):
        in_cql.keys([person])


@pytest.mark.services
def test_a_lost_answer_is_looked_up(in_cql: CqlVault, person: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(in_cql)._insert

    def lost(self: CqlVault, people: list[int]) -> None:
        real(self, people)
        raise OutcomeUnknownError("lost", "look")

    monkeypatch.setattr(CqlVault, "_insert", lost)
    made = in_cql.make([person])
    monkeypatch.setattr(CqlVault, "_insert", real)
    assert in_cql.keys([person]) == made


@pytest.mark.services
def test_an_answer_that_never_comes_is_unknown(in_cql: CqlVault, person: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise OutcomeUnknownError("lost", "look")

    monkeypatch.setattr(CqlVault, "_insert", never)
    with pytest.raises(OutcomeUnknownError, match="did not confirm 1 new keys"):
        in_cql.make([person])


@pytest.mark.parametrize("text", ["", "no base64!", base64.b64encode(b"too short").decode()])
def test_a_wrapping_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="no wrapping key of 32 bytes"):
        wrapping_key(settings.Vault(Secret(text)), "eu")


def test_a_wrapping_key_never_prints_itself() -> None:
    key = WrappingKey(bytes(range(KEY_BYTES)))
    assert "x01" not in repr(key)
    assert key.name != WrappingKey(bytes(KEY_BYTES)).name


def test_each_region_has_a_wrapping_key_of_its_own() -> None:
    """What is wrapped in one region opens in no other, though one key is configured for all."""
    config = settings.Vault(Secret(base64.b64encode(bytes(range(KEY_BYTES))).decode()))
    here, there = wrapping_key(config, "eu"), wrapping_key(config, "us")
    assert here == wrapping_key(config, "eu")
    wrapped = wrap(7, bytes(KEY_BYTES), here.key, bytes(NONCE_BYTES))
    assert unwrap(7, wrapped, here.key) == bytes(KEY_BYTES)
    with pytest.raises(DamagedError, match="does not open"):
        unwrap(7, wrapped, there.key)
