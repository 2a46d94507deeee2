"""The vault in memory: the rules of the one in CQL, held to it by one behaviour suite."""

import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from core.sealing import KEY_BYTES
from stores.vault import Keys, Subjects, missing_keys, unknown_references


@dataclass
class MemoryVault:
    """For as long as the process lives; safe between threads."""

    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _keys: Keys = field(default_factory=dict, repr=False)
    _subjects: dict[tuple[str, bytes], int | None] = field(default_factory=dict, repr=False)

    def make(self, people: Iterable[int]) -> Keys:
        with self._lock:
            return {person: self._keys.setdefault(person, secrets.token_bytes(KEY_BYTES)) for person in people}

    def keys(self, people: Iterable[int]) -> Keys:
        wanted = set(people)
        if lacking := wanted - self._keys.keys():
            raise missing_keys(len(lacking))
        return {person: self._keys[person] for person in wanted}

    def destroy(self, person: int) -> None:
        self._keys[person] = None

    def note(self, object_key: str, subjects: Mapping[bytes, int]) -> None:
        with self._lock:
            self._subjects |= {(object_key, reference): user for reference, user in subjects.items()}

    def subjects(self, object_key: str, references: Iterable[bytes]) -> Subjects:
        wanted = {reference: (object_key, reference) for reference in references}
        if lacking := set(wanted.values()) - self._subjects.keys():
            raise unknown_references(len(lacking))
        return {reference: self._subjects[place] for reference, place in wanted.items()}

    def noted(self, object_key: str) -> set[int]:
        return {user for (key, _), user in self._subjects.items() if key == object_key and user is not None}

    def forget_object(self, object_key: str) -> None:
        with self._lock:
            self._subjects = {place: user for place, user in self._subjects.items() if place[0] != object_key}
