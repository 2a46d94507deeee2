"""Writes and reads one frozen file: the rows of a cold file, each value sealed under the key of whom it is about.

    batches ─ new people get keys and references ─ seal ─ Parquet ─┐
    references to the vault ◀─────────────────────────────────────┤
    decode it again, keys and references fetched anew, digest equal ┤ only then
    put into its class, the store attests SHA-256 and length ◀──────┘

A frozen object cannot be read back, so its bytes are proven before they are put.
"""

import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core import digest
from core.errors import BlockedError, DamagedError
from core.overlay import Row
from core.rows import from_batch
from core.sealing import REFERENCE_BYTES, SALT_BYTES, Place, Sealed, data_key, people_of, seal, subject_of, unseal
from lakehouse.coldfile import damaged, decoded, fetched
from lakehouse.index import ColdIndex, load_index, read_row_groups
from lakehouse.writer import FROZEN, ColdFile, LocalFile, cut, write_local
from schemas.tables import FROZEN_ROW
from stores.objects import NotFoundError, Objects
from stores.vault import Vault

_METADATA = b"firn.frozen."
_NUMBERS = ("week", "slice", "generation", "shard", "epoch")


class ErasedPersonError(BlockedError):
    """A source still holds values of a person whose key is destroyed: they may not be sealed, nor left out."""


@dataclass
class Sealer:
    """The people of one file: a data key and a random reference for each, made when they first appear."""

    vault: Vault
    place: Place
    keys: dict[int, AESGCM] = field(default_factory=dict)
    references: dict[int, bytes] = field(default_factory=dict)
    rows: int = 0

    def sealed(self, batches: Iterable[pa.RecordBatch], tally: digest.Tally) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = list(tally.through(from_batch(batch)))
            self._meet({person for row in rows for person in people_of(row)})
            yield pa.RecordBatch.from_pylist([self._entry(row) for row in rows], schema=FROZEN_ROW)

    def _meet(self, people: set[int]) -> None:
        new = people - self.keys.keys()
        for person, key in self.vault.make(new).items():
            if key is None:
                raise ErasedPersonError(
                    f"week {self.place.week} still holds values of a person who was erased",
                    "fold the unit with its erasures first; nothing was frozen",
                )
            self.keys[person] = data_key(key, self.place)
            self.references[person] = secrets.token_bytes(REFERENCE_BYTES)

    def _entry(self, row: Row) -> dict[str, Any]:
        sealed = seal(row, self.rows, self.keys)
        self.rows += 1
        reactors = [self.references[one.user_id] for one in row.reactions]
        return {
            "conversation_id": row.conversation_id,
            "message_id": row.message_id,
            "subject": self.references[subject_of(row)],
            "sealed": sealed.sealed,
            "reactions": [
                {"subject": subject, "sealed": value} for subject, value in zip(reactors, sealed.reactions, strict=True)
            ],
        }


def fresh_place(region: str, week: int, slice_: int, generation: int, shard: int, epoch: int) -> Place:
    """With a salt that no other file has."""
    return Place(region, week, slice_, generation, shard, epoch, secrets.token_bytes(SALT_BYTES))


def write_frozen_file(
    batches: Iterable[pa.RecordBatch],
    vault: Vault,
    objects: Objects,
    place: Place,
    key: str,
    row_group_bytes: int,
    storage_class: str,
    scratch: Path | None = None,
) -> ColdFile:
    """`batches` are canonical and in key order. DamagedError when what was sealed does not open to the same rows, or
    when the store does not attest what was put; memory holds a row group and the people of the file."""
    tally, sealer = digest.Tally(), Sealer(vault, place)
    with tempfile.TemporaryFile(dir=scratch) as local:
        sealed = cut(sealer.sealed(batches, tally), row_group_bytes)
        groups = write_local(local, sealed, FROZEN, _described(place))
        vault.note(key, {reference: person for person, reference in sealer.references.items()})
        if digest.of_rows(_opened(vault, key, decoded(key, local, FROZEN_ROW), place)) != tally.digest:
            raise damaged(key, "what was sealed does not open to the rows that went in")
        file = LocalFile(local, groups, tally.digest).put(objects, key, storage_class)
    require_attested(objects, key, file.sha256, file.size_bytes)
    return file


def require_attested(objects: Objects, key: str, sha256: str, size_bytes: int) -> None:
    """DamagedError unless the store itself says that it holds these bytes."""
    told = objects.attest(key)
    if told is None:
        raise NotFoundError(key)
    if not told.attested:
        raise DamagedError(
            f"the store does not attest the SHA-256 of {key}",
            "use a store that keeps checksums of uploads, or leave weeks in cold; nothing was dropped",
        )
    if (told.sha256, told.size_bytes) != (sha256, size_bytes):
        raise damaged(key, "the store holds other bytes than were sent")


def require_opening(vault: Vault, objects: Objects, key: str, people: set[int], told: digest.Digest) -> None:
    """DamagedError unless all that an object is opened with is there still: its index, of the very rows; a reference
    for each of `people`, on all replicas of the vault; and what the vault knows of each of their keys.

    A key that was destroyed since is no damage: that person was erased.
    """
    if load_index(objects, key).digest != told:
        raise damaged(key, "its index is of other rows")
    noted = vault.noted(key)
    if noted != people:
        raise damaged(key, f"the vault has references for {len(noted & people)} of {len(people)} people in it")
    vault.keys(people)


def read_frozen_file(
    objects: Objects, vault: Vault, key: str, expected_sha256: str, scratch: Path | None = None
) -> Iterator[Row]:
    """Every row whose person has a key still; FrozenObjectError while the object is not restored."""
    with fetched(objects, key, expected_sha256, scratch) as local:
        place = _place_of(key, _metadata_of(local))
        local.seek(0)
        yield from _opened(vault, key, decoded(key, local, FROZEN_ROW), place)


def read_frozen_groups(
    objects: Objects, vault: Vault, index: ColdIndex, groups: Sequence[int], conversation_id: bytes
) -> Iterator[Row]:
    """As `read_frozen_file`, of consecutive row groups and one conversation alone."""
    found = read_row_groups(objects, index, groups, FROZEN_ROW)
    first = sum(group.rows for group in index.groups[: groups[0]])
    place = _place_of(index.key, index.metadata.metadata or {})
    for batch in found.to_batches():
        entries = enumerate(batch.to_pylist(), first)
        mine = [(at, entry) for at, entry in entries if entry["conversation_id"] == conversation_id]
        yield from _unsealed(vault, index.key, place, mine)
        first += batch.num_rows


def _opened(vault: Vault, key: str, batches: Iterable[pa.RecordBatch], place: Place) -> Iterator[Row]:
    first = 0
    for batch in batches:
        yield from _unsealed(vault, key, place, list(enumerate(batch.to_pylist(), first)))
        first += batch.num_rows


def _unsealed(vault: Vault, key: str, place: Place, entries: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[Row]:
    """Entries with their numbers in the file. Keys and references are asked for anew each time."""
    keys = _keys_of(vault, key, place, [entry for _, entry in entries])
    for at, entry in entries:
        values = tuple(one["sealed"] for one in entry["reactions"])
        sealed = Sealed(entry["conversation_id"], entry["message_id"], entry["sealed"], values)
        reactors = [keys.get(one["subject"]) for one in entry["reactions"]]
        if row := unseal(sealed, at, keys.get(entry["subject"]), reactors):
            yield row


def _keys_of(vault: Vault, key: str, place: Place, entries: Sequence[Mapping[str, Any]]) -> dict[bytes, AESGCM]:
    """By reference; without those of people whose key was destroyed, or who were forgotten."""
    references = {entry["subject"] for entry in entries}
    references |= {one["subject"] for entry in entries for one in entry["reactions"]}
    people = vault.subjects(key, references)
    keys = vault.keys(person for person in people.values() if person is not None)
    opening = {person: data_key(known, place) for person, known in keys.items() if known is not None}
    return {reference: opening[person] for reference, person in people.items() if person in opening}


def _described(place: Place) -> dict[str, str]:
    """What a reader must know to derive the data keys; nothing of it is secret."""
    told = {name: str(getattr(place, name)) for name in _NUMBERS}
    told |= {"region": place.region, "salt": place.salt.hex()}
    return {f"{_METADATA.decode()}{name}": value for name, value in told.items()}


def _metadata_of(local: Any) -> Mapping[bytes, bytes]:
    return pq.read_metadata(local).metadata or {}


def _place_of(key: str, metadata: Mapping[bytes, bytes]) -> Place:
    told = {name[len(_METADATA) :].decode(): value.decode() for name, value in metadata.items() if name[:5] == b"firn."}
    try:
        numbers = {name: int(told[name]) for name in _NUMBERS}
        return Place(region=told["region"], salt=bytes.fromhex(told["salt"]), **numbers)
    except (KeyError, ValueError) as fault:
        raise damaged(key, "its footer does not say how it was sealed") from fault
