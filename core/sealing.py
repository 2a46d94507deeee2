"""How a value is sealed in a frozen object, so that destroying one person's key erases them there for good.

    region key   HKDF-SHA-256(configured key, the region)                       wraps its person keys
    person key   32 random bytes, made once, wrapped by the region's key        AES-256-GCM
    data key     HKDF-SHA-256(person key, salt of the file, the file's place)   one per person and file
    value        AES-256-GCM under the data key of whom it is about             nonce = (row, column, item)

A file's salt is random, so a retry never uses a nonce twice under one key. What a row is about stands beside it as a
random reference; which person that is, only the vault can tell. The exact bytes are in docs/architecture.md.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core import ids
from core.encoding import field, fields, number, number_in
from core.errors import DamagedError
from core.overlay import Reaction, Row

VERSION = b"\x01"
KEY_BYTES = 32
SALT_BYTES = 32
REFERENCE_BYTES = 16
NONCE_BYTES = 12
_ROW, _REACTION = 0, 1
_INFO = b"firn/frozen/1"
# The subject of a row that no person is known for: an amendment whose message never came.
NOBODY = -1


@dataclass(frozen=True)
class Place:
    """Which file: what binds a data key to it beside the salt."""

    region: str
    week: int
    slice: int
    generation: int
    shard: int
    epoch: int
    salt: bytes

    @cached_property
    def info(self) -> bytes:
        where = f"{self.region}/{self.week}/{self.slice}/{self.generation}/{self.shard}/{self.epoch}"
        return _INFO + b"/" + where.encode()


@dataclass(frozen=True)
class Sealed:
    """One row of a frozen file without its references: the row's own values, and each reaction's."""

    conversation_id: bytes
    message_id: bytes
    sealed: bytes
    reactions: tuple[bytes, ...]


def subject_of(row: Row) -> int:
    """Under whose key the row's own values are sealed."""
    return NOBODY if row.sender_id is None else row.sender_id


def people_of(row: Row) -> Iterator[int]:
    yield subject_of(row)
    yield from (reaction.user_id for reaction in row.reactions)


def data_key(person_key: bytes, place: Place) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=place.salt, info=place.info).derive(person_key))


def seal(row: Row, at: int, keys: Mapping[int, AESGCM]) -> Sealed:
    """`at` is the row's number in its file; `keys` holds the data key of each of `people_of(row)`."""
    aad = VERSION + row.conversation_id + row.message_id
    own = keys[subject_of(row)].encrypt(_nonce(at, _ROW, 0), _payload(row), aad)
    reactions = tuple(
        keys[one.user_id].encrypt(_nonce(at, _REACTION, item), _reaction_payload(one), aad)
        for item, one in enumerate(row.reactions)
    )
    return Sealed(row.conversation_id, row.message_id, own, reactions)


def unseal(sealed: Sealed, at: int, own: AESGCM | None, reactors: Sequence[AESGCM | None]) -> Row | None:
    """The row, or None where its own key is gone: that person was erased. Reactions whose key is gone are left out.

    DamagedError when a value was not sealed with its key, for this row of this file.
    """
    if own is None:
        return None
    aad = VERSION + sealed.conversation_id + sealed.message_id
    try:
        reactions = tuple(
            _reaction(key.decrypt(_nonce(at, _REACTION, item), value, aad))
            for item, (key, value) in enumerate(zip(reactors, sealed.reactions, strict=True))
            if key is not None
        )
        return _row(sealed, own.decrypt(_nonce(at, _ROW, 0), sealed.sealed, aad), reactions)
    except (InvalidTag, ValueError) as fault:
        raise DamagedError(
            f"row {at} of a frozen file does not open with its key ({type(fault).__name__})",
            "compare the object's SHA-256 with the manifest; nothing was changed",
        ) from fault


def region_key(configured: bytes, region: str) -> bytes:
    info = b"firn/wrapping/1/" + region.encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(configured)


def wrap(person: int, key: bytes, wrapping_key: bytes, nonce: bytes) -> bytes:
    """The nonce, then the sealed key; bound to the person, so that two wrapped keys cannot be exchanged."""
    return nonce + AESGCM(wrapping_key).encrypt(nonce, key, _person(person))


def unwrap(person: int, wrapped: bytes, wrapping_key: bytes) -> bytes:
    """DamagedError when it was wrapped by another key or for another person."""
    try:
        return AESGCM(wrapping_key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _person(person))
    except (InvalidTag, ValueError) as fault:
        raise DamagedError(
            "a person key in the vault does not open with the region's wrapping key",
            "set vault.wrapping_key to the key that wrapped it (the vault's rows name it); nothing was changed",
        ) from fault


def _nonce(row: int, column: int, item: int) -> bytes:
    return struct.pack(">III", row, column, item)


def _person(person: int) -> bytes:
    return b"firn/person/1" + struct.pack(">q", person)


def _payload(row: Row) -> bytes:
    """As the digest encodes them, without the key and the reactions, which stand or are sealed beside it."""
    server_us = None if row.server_ts is None else (row.server_ts - ids.UNIX_EPOCH) // timedelta(microseconds=1)
    return VERSION + b"".join(
        (
            number(row.sender_id),
            number(row.message_type),
            field(row.body),
            field(None if row.media_ref is None else row.media_ref.encode()),
            field(row.reply_to),
            field(row.edit_id),
            field(bytes((row.deleted,))),
            number(server_us),
        )
    )


def _row(sealed: Sealed, payload: bytes, reactions: tuple[Reaction, ...]) -> Row:
    sender, kind, body, media, reply_to, edit_id, deleted, server_us = _opened(payload)
    microseconds = number_in(server_us)
    return Row(
        sealed.conversation_id,
        sealed.message_id,
        sender_id=number_in(sender),
        message_type=number_in(kind),
        body=body,
        media_ref=None if media is None else media.decode(),
        reply_to=reply_to,
        edit_id=edit_id,
        deleted=deleted == b"\x01",
        server_ts=None if microseconds is None else ids.UNIX_EPOCH + timedelta(microseconds=microseconds),
        reactions=reactions,
    )


def _reaction_payload(reaction: Reaction) -> bytes:
    return VERSION + number(reaction.user_id) + field(reaction.event_id) + field(reaction.reaction)


def _reaction(payload: bytes) -> Reaction:
    user, event_id, reaction = _opened(payload)
    user_id = number_in(user)
    if user_id is None or event_id is None:
        raise ValueError("a reaction without its user or event")
    return Reaction(user_id, event_id, reaction)


def _opened(payload: bytes) -> list[bytes | None]:
    if payload[:1] != VERSION:
        raise ValueError("a payload of another version")
    return fields(payload[1:])
