"""Opens frozen objects by the letter of docs/architecture.md ("A frozen object, exactly"), without any code of ours."""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Fields = list[bytes | None]


@dataclass(frozen=True)
class Opener:
    """`configured_key` is `vault.wrapping_key`; `people` maps a reference to (user, wrapped key), with None for a key
    that was destroyed."""

    configured_key: bytes
    people: Mapping[bytes, tuple[int, bytes | None]]

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """Each row that opens, in the names of a cold file; `server_us` for its time."""
        with pq.ParquetFile(path) as file:
            told = {key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()}
            entries = file.read().to_pylist()
        keys = {reference: self.data_key(reference, told) for reference in self.people}
        opened = [self.row(number, entry, keys) for number, entry in enumerate(entries)]
        return [row for row in opened if row]

    def data_key(self, reference: bytes, told: Mapping[str, str]) -> AESGCM | None:
        user, wrapped = self.people[reference]
        if wrapped is None:
            return None
        region = f"firn/wrapping/1/{told['firn.frozen.region']}".encode()
        wrapping = HKDF(algorithm=SHA256(), length=32, salt=None, info=region).derive(self.configured_key)
        person = AESGCM(wrapping).decrypt(wrapped[:12], wrapped[12:], b"firn/person/1" + struct.pack(">q", user))
        names = ("region", "week", "slice", "generation", "shard", "epoch")
        info = "/".join(["firn/frozen/1", *(told[f"firn.frozen.{name}"] for name in names)]).encode()
        salt = bytes.fromhex(told["firn.frozen.salt"])
        return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(person))

    def row(self, number: int, entry: dict[str, Any], keys: Mapping[bytes, AESGCM | None]) -> dict[str, Any] | None:
        own = keys[entry["subject"]]
        if own is None:
            return None
        bound = b"\x01" + entry["conversation_id"] + entry["message_id"]
        sender, kind, body, media, reply_to, edit_id, deleted, server_us = fields(
            own.decrypt(struct.pack(">III", number, 0, 0), entry["sealed"], bound)
        )
        return {
            "conversation_id": entry["conversation_id"],
            "message_id": entry["message_id"],
            "sender_id": integer(sender),
            "message_type": integer(kind),
            "body": body,
            "media_ref": media.decode() if media is not None else None,
            "reply_to": reply_to,
            "edit_id": edit_id,
            "deleted": deleted == b"\x01",
            "server_us": integer(server_us),
            "reactions": [
                reaction(key.decrypt(struct.pack(">III", number, 1, item), one["sealed"], bound))
                for item, one in enumerate(entry["reactions"])
                if (key := keys[one["subject"]])
            ],
        }


def reaction(payload: bytes) -> dict[str, Any]:
    user, event, value = fields(payload)
    return {"user_id": integer(user), "event_id": event, "reaction": value}


def fields(payload: bytes) -> Fields:
    assert payload[:1] == b"\x01", "a payload of another version"
    found: Fields = []
    rest = payload[1:]
    while rest:
        if rest[0] == 0:
            found.append(None)
            rest = rest[1:]
        else:
            (length,) = struct.unpack("<I", rest[1:5])
            found.append(rest[5 : 5 + length])
            rest = rest[5 + length :]
    return found


def integer(value: bytes | None) -> int | None:
    return None if value is None else int(struct.unpack("<q", value)[0])


def key_in(text: str) -> bytes:
    return base64.b64decode(text)
