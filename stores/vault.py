"""The vault: one key per person, and whom the references in frozen objects stand for.

A person key is made once, by a lightweight transaction, and leaves this module only unwrapped, in memory. One that was
destroyed stays destroyed: no maker brings it back.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from core import settings
from core.errors import DamagedError, OutcomeUnknownError, RefusedError
from core.sealing import KEY_BYTES, NONCE_BYTES, region_key, unwrap, wrap
from core.steps import irreversible
from stores.cassandra import BATCH_STATEMENTS, Database, Level, Statement

_IDS_AT_ONCE = 100  # in one IN of a partition
Keys = dict[int, bytes | None]
Subjects = dict[bytes, int | None]


class Vault(Protocol):
    """A key of None: destroyed; a subject of None: forgotten. Every answer is read anew; the caller may keep it for one
    piece of work, no longer."""

    def make(self, people: Iterable[int]) -> Keys:
        """The key of each, made for those who have none."""
        ...

    def keys(self, people: Iterable[int]) -> Keys:
        """DamagedError for a person who never had one: what is sealed with it could not be read again."""
        ...

    def destroy(self, person: int) -> None:
        """For ever, also where there was no key yet."""
        ...

    def note(self, object_key: str, subjects: Mapping[bytes, int]) -> None:
        """What each reference in an object stands for; before the object is there."""
        ...

    def subjects(self, object_key: str, references: Iterable[bytes]) -> Subjects:
        """DamagedError for a reference that nobody noted: whose it is could not be told from an erasure."""
        ...

    def noted(self, object_key: str) -> set[int]:
        """Who the references of an object stand for, and on every replica; without who was forgotten."""
        ...

    def forget_object(self, object_key: str) -> None:
        """All that its references stood for; before the object goes, and never while something names it."""
        ...


@dataclass(frozen=True)
class WrappingKey:
    """`name` says which key a row was wrapped by and tells nothing of it."""

    key: bytes = field(repr=False)

    @property
    def name(self) -> str:
        return hashlib.sha256(b"firn/wrapping/1" + self.key).hexdigest()[:16]


def wrapping_key(config: settings.Vault, region: str) -> WrappingKey:
    """The region's own, derived from the configured one, so that no wrapped key can be carried to another region.

    RefusedError when there is none, or it is not 32 bytes.
    """
    try:
        key = base64.b64decode(config.wrapping_key.reveal(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise RefusedError(
            "the vault has no wrapping key of 32 bytes in base64",
            "set FIRN_VAULT__WRAPPING_KEY; the local stack makes its own (./firn stack up)",
        )
    return WrappingKey(region_key(key, region))


@dataclass(frozen=True)
class CqlVault:
    db: Database
    region: str
    wrapping: WrappingKey

    def make(self, people: Iterable[int]) -> Keys:
        wanted = set(people)
        known = self._known(wanted)
        missing = sorted(wanted - known.keys())
        if missing:
            # A lost answer does not matter: what counts is what is there afterwards.
            with suppress(OutcomeUnknownError):
                self._insert(missing)
            known |= self._known(missing)
        if lacking := wanted - known.keys():
            raise OutcomeUnknownError(
                f"the vault did not confirm {len(lacking)} new keys", "run the same command again: it looks first"
            )
        return known

    def keys(self, people: Iterable[int]) -> Keys:
        wanted = set(people)
        known = self._known(wanted)
        if lacking := wanted - known.keys():
            raise missing_keys(len(lacking))
        return known

    @irreversible("vault: key destroyed")
    def destroy(self, person: int) -> None:
        query = f"UPDATE {self.region}_vault.person_keys SET destroyed = true, wrapped = null WHERE user_id = ?"
        insert = (
            f"INSERT INTO {self.region}_vault.person_keys (user_id, destroyed) VALUES (?, true) IF NOT EXISTS",
            f"{query} IF EXISTS",
        )
        for _ in range(3):
            with suppress(OutcomeUnknownError):
                for statement in insert:
                    self.db.cas(statement, (person,))
            if self._known([person]).get(person, b"") is None:
                return
        raise OutcomeUnknownError("the vault did not confirm that a key is destroyed", "run the same command again")

    @irreversible("vault: references noted")
    def note(self, object_key: str, subjects: Mapping[bytes, int]) -> None:
        query = f"INSERT INTO {self.region}_vault.subjects (object, reference, user_id) VALUES (?, ?, ?)"
        statements = (Statement(query, (object_key, reference, user)) for reference, user in subjects.items())
        self.db.write(_chunks(statements, BATCH_STATEMENTS))

    def subjects(self, object_key: str, references: Iterable[bytes]) -> Subjects:
        wanted = set(references)
        query = f"SELECT reference, user_id FROM {self.region}_vault.subjects WHERE object = ? AND reference IN ?"
        asked = [(object_key, chunk) for chunk in _chunks(iter(wanted), _IDS_AT_ONCE)]
        known: Subjects = dict(row for rows in self.db.each(query, asked) for row in rows)
        if lacking := wanted - known.keys():
            raise unknown_references(len(lacking))
        return known

    def noted(self, object_key: str) -> set[int]:
        query = f"SELECT user_id FROM {self.region}_vault.subjects WHERE object = ?"
        found = (row for rows in self.db.each(query, [(object_key,)], Level.ALL) for row in rows)
        return {user_id for (user_id,) in found if user_id is not None}

    @irreversible("vault: references forgotten")
    def forget_object(self, object_key: str) -> None:
        query = f"DELETE FROM {self.region}_vault.subjects WHERE object = ?"
        self.db.write([[Statement(query, (object_key,))]])

    @irreversible("vault: keys made")
    def _insert(self, people: list[int]) -> None:
        query = (
            f"INSERT INTO {self.region}_vault.person_keys (user_id, wrapped, wrapped_by, destroyed) "
            "VALUES (?, ?, ?, false) IF NOT EXISTS"
        )
        fresh = [(person, self._wrapped(person), self.wrapping.name) for person in people]
        for _ in self.db.each(query, fresh):
            pass

    def _wrapped(self, person: int) -> bytes:
        return wrap(person, secrets.token_bytes(KEY_BYTES), self.wrapping.key, secrets.token_bytes(NONCE_BYTES))

    def _known(self, people: Iterable[int]) -> Keys:
        query = f"SELECT user_id, wrapped, wrapped_by, destroyed FROM {self.region}_vault.person_keys WHERE user_id = ?"
        asked = [(person,) for person in sorted(people)]
        found = [row for rows in self.db.each(query, asked, Level.SERIAL) for row in rows]
        return {person: self._unwrapped(person, *facts) for person, *facts in found}

    def _unwrapped(self, person: int, wrapped: bytes | None, wrapped_by: str | None, destroyed: bool) -> bytes | None:
        if destroyed:
            return None
        if wrapped is None or wrapped_by != self.wrapping.name:
            raise DamagedError(
                f"a person key is wrapped by {wrapped_by}, and this process has {self.wrapping.name}",
                "set vault.wrapping_key to the key of that name; nothing was changed",
            )
        return unwrap(person, wrapped, self.wrapping.key)


def missing_keys(count: int) -> DamagedError:
    return DamagedError(
        f"the vault lacks {count} keys that frozen values were sealed with",
        "restore the vault's tables from their backup; until then these weeks cannot be read",
    )


def unknown_references(count: int) -> DamagedError:
    return DamagedError(
        f"the vault does not know {count} references of a frozen object",
        "restore the vault's tables from their backup; until then this object cannot be read",
    )


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(items, size)):
        yield chunk
