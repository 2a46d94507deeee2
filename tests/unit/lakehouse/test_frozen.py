"""A frozen file opens to the rows that went in, for those whose keys are there, and never otherwise."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from core import digest, rows
from core.errors import DamagedError
from core.overlay import Reaction, Row
from core.sealing import NOBODY, Sealed, people_of, seal, subject_of
from lakehouse import frozen
from lakehouse.frozen import (
    ErasedPersonError,
    fresh_place,
    read_frozen_file,
    read_frozen_groups,
    require_attested,
    require_opening,
    write_frozen_file,
)
from lakehouse.index import load_index
from lakehouse.paths import frozen_key, index_key
from lakehouse.writer import ColdFile
from stores.memory import MemoryObjects
from stores.memory_vault import MemoryVault
from stores.objects import Capabilities, FrozenObjectError, NotFoundError, ObjectInfo
from tests import strategies

KEY = frozen_key(0, 2913, 0, 1, 7, "a0")
GROUP_BYTES = 400  # a few rows
some_rows = st.lists(strategies.rows, min_size=1, max_size=12, unique_by=lambda row: row.key).map(
    lambda found: sorted(found, key=lambda row: row.key)
)


def freeze(
    objects: MemoryObjects, vault: MemoryVault, found: Sequence[Row], key: str = KEY, storage_class: str = "GLACIER_IR"
) -> ColdFile:
    batches, place = rows.to_batches(found, 5), fresh_place("us", 2913, 0, 0, 1, 7)
    return write_frozen_file(batches, vault, objects, place, key, GROUP_BYTES, storage_class)


def thaw(objects: MemoryObjects, vault: MemoryVault, file: ColdFile) -> list[Row]:
    return list(read_frozen_file(objects, vault, file.key, file.sha256))


@given(some_rows)
def test_what_was_frozen_comes_back(found: list[Row]) -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    file = freeze(objects, vault, found)
    assert thaw(objects, vault, file) == found
    assert file.digest == digest.of_rows(found) == load_index(objects, KEY).digest
    info = objects.head(KEY)
    assert info is not None
    assert (info.storage_class, info.sha256, info.size_bytes) == ("GLACIER_IR", file.sha256, file.size_bytes)


@given(some_rows)
def test_row_groups_open_alone_for_one_conversation(found: list[Row]) -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    freeze(objects, vault, found)
    index = load_index(objects, KEY)
    for numbers in (*((number,) for number in range(len(index.groups))), range(1, len(index.groups))):
        if not numbers:
            continue
        first = sum(one.rows for one in index.groups[: numbers[0]])
        held = found[first : first + sum(index.groups[number].rows for number in numbers)]
        for mine in {row.conversation_id for row in found}:
            opened = list(read_frozen_groups(objects, vault, index, numbers, mine))
            assert opened == [row for row in held if row.conversation_id == mine]


@given(some_rows, st.data())
def test_a_destroyed_key_takes_all_of_that_person_and_nothing_else(found: list[Row], data: st.DataObject) -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    file = freeze(objects, vault, found)
    erased = data.draw(
        st.sampled_from(sorted({person for row in found for person in people_of(row)} - {NOBODY}) or [0])
    )
    vault.destroy(erased)
    left = [
        replace(row, reactions=tuple(one for one in row.reactions if one.user_id != erased))
        for row in found
        if subject_of(row) != erased
    ]
    assert thaw(objects, vault, file) == left


MESSAGE = Row(bytes(16), bytes(8) + b"\x80" + bytes(7), sender_id=5, message_type=0, body=b"ciphertext")
REACTED = replace(MESSAGE, reactions=(Reaction(8, MESSAGE.message_id, b"heart"),))


def test_the_object_holds_no_value_and_no_person() -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    canaries = [b"canary body", b"canary media", b"canary heart", (2**60 + 12345).to_bytes(8, "little")]
    row = replace(
        MESSAGE,
        sender_id=2**60 + 12345,
        body=canaries[0],
        media_ref=canaries[1].decode(),
        reactions=(Reaction(2**60 + 12345, MESSAGE.message_id, canaries[2]),),
    )
    freeze(objects, vault, [row])
    data = objects.get(KEY) + objects.get(index_key(KEY))
    assert row.conversation_id in data
    assert [canary for canary in canaries if canary in data] == []


def test_the_same_rows_are_never_sealed_alike() -> None:
    """Salt and references are random: no nonce comes twice, and files tell nothing of whom they share."""
    objects, vault = MemoryObjects(), MemoryVault()
    files = [freeze(objects, vault, [REACTED], frozen_key(0, 2913, 0, 1, 7, name)) for name in ("a", "b")]
    assert files[0].sha256 != files[1].sha256
    assert files[0].digest == files[1].digest


def test_a_person_who_was_erased_is_not_sealed() -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    vault.destroy(8)
    with pytest.raises(ErasedPersonError, match="a person who was erased"):
        freeze(objects, vault, [REACTED])
    assert list(objects.list("")) == []


def test_a_vault_that_lost_a_key_is_damage_and_no_erasure() -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    file = freeze(objects, vault, [REACTED])
    del vault._keys[8]
    with pytest.raises(DamagedError, match="lacks 1 keys"):
        thaw(objects, vault, file)


def test_a_vault_that_lost_a_reference_is_damage_and_no_erasure() -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    file = freeze(objects, vault, [REACTED])
    vault._subjects.popitem()
    with pytest.raises(DamagedError, match="does not know 1 references"):
        thaw(objects, vault, file)


def test_a_key_that_is_not_the_one_that_sealed_is_seen() -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    file = freeze(objects, vault, [REACTED])
    vault._keys[5] = bytes(32)
    with pytest.raises(DamagedError, match="does not open with its key"):
        thaw(objects, vault, file)


def test_what_opens_an_object_is_looked_at_before_its_source_goes() -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    file = freeze(objects, vault, [REACTED])
    people = set(people_of(REACTED))
    require_opening(vault, objects, KEY, people, file.digest)
    with pytest.raises(DamagedError, match="its index is of other rows"):
        require_opening(vault, objects, KEY, people, digest.Digest())
    with pytest.raises(DamagedError, match=f"references for {len(people)} of {len(people) + 1} people"):
        require_opening(vault, objects, KEY, people | {10**6}, file.digest)
    vault.destroy(min(people))
    require_opening(vault, objects, KEY, people, file.digest)  # erased since: that is no damage
    del vault._keys[max(people)]
    with pytest.raises(DamagedError, match="lacks 1 keys"):
        require_opening(vault, objects, KEY, people, file.digest)
    vault.forget_object(KEY)
    with pytest.raises(DamagedError, match="references for 0 of"):
        require_opening(vault, objects, KEY, people, file.digest)


def test_what_is_frozen_waits_for_its_restore() -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    file = freeze(objects, vault, [MESSAGE], storage_class="GLACIER")
    with pytest.raises(FrozenObjectError):
        thaw(objects, vault, file)
    with pytest.raises(FrozenObjectError):
        list(read_frozen_groups(objects, vault, load_index(objects, KEY), [0], MESSAGE.conversation_id))


def test_an_altered_object_is_seen() -> None:
    objects, vault = MemoryObjects(), MemoryVault()
    file = freeze(objects, vault, [MESSAGE])
    objects.put(KEY, objects.get(KEY)[:-1] + b"X", storage_class="GLACIER_IR")
    with pytest.raises(DamagedError, match="SHA-256 differs"):
        thaw(objects, vault, file)
    with pytest.raises(DamagedError, match="other bytes than were sent"):
        require_attested(objects, KEY, file.sha256, file.size_bytes)
    objects.delete(KEY)
    with pytest.raises(NotFoundError):
        require_attested(objects, KEY, file.sha256, file.size_bytes)


def test_a_store_that_does_not_attest_is_not_trusted() -> None:
    class Silent(MemoryObjects):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, attests=False)

        def attest(self, key: str) -> ObjectInfo | None:
            info = super().attest(key)
            return info and replace(info, attested=False)

    with pytest.raises(DamagedError, match="does not attest the SHA-256"):
        freeze(Silent(), MemoryVault(), [MESSAGE])


def test_what_does_not_open_again_is_not_put(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof comes before the put, because afterwards nobody can look."""
    objects, vault = MemoryObjects(), MemoryVault()

    def forgetful(row: Row, at: int, keys: dict[int, AESGCM]) -> Sealed:
        return seal(replace(row, body=b"another"), at, keys)

    monkeypatch.setattr(frozen, "seal", forgetful)
    with pytest.raises(DamagedError, match="does not open to the rows that went in"):
        freeze(objects, vault, [MESSAGE])
    assert list(objects.list("")) == []
