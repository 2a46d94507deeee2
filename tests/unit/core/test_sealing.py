"""Sealing: with the keys a row comes back as it was; without a key nothing of that person does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, given
from hypothesis import strategies as st

from core.errors import DamagedError
from core.overlay import Row
from core.sealing import (
    KEY_BYTES,
    NOBODY,
    NONCE_BYTES,
    SALT_BYTES,
    Place,
    Sealed,
    data_key,
    people_of,
    seal,
    subject_of,
    unseal,
    unwrap,
    wrap,
)
from tests import strategies
from tests.unit.core.test_digest import EXAMPLES

PLACE = Place("us", 2913, 0, 0, 3, 7, bytes(SALT_BYTES))
GOLDEN = Path(__file__).parents[2] / "golden" / "sealing.json"
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)


def keys_of(row: Row, place: Place = PLACE) -> dict[int, AESGCM]:
    """A key for each person, made of who they are."""
    return {person: data_key(key_of(person), place) for person in people_of(row)}


def key_of(person: int) -> bytes:
    return person.to_bytes(KEY_BYTES, "big", signed=True)


def opened(row: Row, sealed: Sealed, at: int, known: dict[int, AESGCM]) -> Row | None:
    return unseal(sealed, at, known.get(subject_of(row)), [known.get(one.user_id) for one in row.reactions])


@given(strategies.rows, st.integers(0, 2**32 - 1))
def test_a_row_comes_back_as_it_was(row: Row, at: int) -> None:
    known = keys_of(row)
    assert opened(row, seal(row, at, known), at, known) == row


@given(strategies.rows)
def test_without_its_key_nothing_of_a_row_comes_back(row: Row) -> None:
    known = keys_of(row)
    sealed = seal(row, 1, known)
    del known[subject_of(row)]
    assert opened(row, sealed, 1, known) is None


@given(strategies.rows.filter(lambda row: row.reactions and row.reactions[0].user_id != row.sender_id))
def test_without_the_reactor_s_key_only_the_reaction_is_gone(row: Row) -> None:
    known = keys_of(row)
    sealed = seal(row, 1, known)
    del known[row.reactions[0].user_id]
    assert opened(row, sealed, 1, known) == replace(row, reactions=row.reactions[1:])


@given(strategies.rows.filter(lambda row: row.body is not None and len(row.body) >= 4), keys)
def test_what_lies_there_tells_nothing(row: Row, other: bytes) -> None:
    assert row.body is not None
    assume(other != key_of(subject_of(row)))
    known = keys_of(row)
    sealed = seal(row, 1, known)
    assert row.body not in sealed.sealed
    with pytest.raises(DamagedError):
        opened(row, sealed, 1, known | {subject_of(row): data_key(other, PLACE)})


@given(strategies.rows, st.data())
def test_a_value_opens_only_where_it_was_sealed(row: Row, data: st.DataObject) -> None:
    """Another row number, another row's key, another file: each binds the value."""
    known = keys_of(row)
    sealed = seal(row, 5, known)
    with pytest.raises(DamagedError):
        opened(row, sealed, 6, known)
    with pytest.raises(DamagedError):
        opened(row, replace(sealed, message_id=bytes(16)), 5, known)
    other = data.draw(
        st.sampled_from(
            [
                replace(PLACE, region="eu"),
                replace(PLACE, week=2914),
                replace(PLACE, slice=1),
                replace(PLACE, generation=1),
                replace(PLACE, shard=4),
                replace(PLACE, epoch=8),
                replace(PLACE, salt=bytes(31) + b"\x01"),
            ]
        )
    )
    with pytest.raises(DamagedError):
        opened(row, sealed, 5, keys_of(row, other))


@given(strategies.rows, st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_is_seen(row: Row, at: int, bit: int) -> None:
    known = keys_of(row)
    sealed = seal(row, 1, known)
    changed = bytearray(sealed.sealed)
    changed[at % len(changed)] ^= 1 << bit
    with pytest.raises(DamagedError, match="row 1"):
        opened(row, replace(sealed, sealed=bytes(changed)), 1, known)


@given(keys, st.integers(-1, 2**63 - 1), keys, st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES))
def test_a_wrapped_key_opens_for_its_person_and_its_wrapper_only(
    key: bytes, person: int, wrapper: bytes, nonce: bytes
) -> None:
    wrapped = wrap(person, key, wrapper, nonce)
    assert unwrap(person, wrapped, wrapper) == key
    for other, by in ((person - 1 if person else 1, wrapper), (person, bytes(byte ^ 1 for byte in wrapper))):
        with pytest.raises(DamagedError, match="does not open"):
            unwrap(other, wrapped, by)


def test_a_row_without_a_sender_belongs_to_nobody() -> None:
    assert list(people_of(Row(bytes(16), bytes(16)))) == [NOBODY]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_bytes_are_those_of_the_golden_file(name: str) -> None:
    """Frozen objects are read years later: what seals them never changes under its version."""
    row = EXAMPLES[name]
    sealed = seal(row, 5, keys_of(row))
    found = {"sealed": sealed.sealed.hex(), "reactions": [one.hex() for one in sealed.reactions]}
    assert found == json.loads(GOLDEN.read_text())[name]
