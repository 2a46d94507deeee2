"""What an import makes of a good row: its ids, the canonical row, and the events that say the same.

The same row of the same source gives the same bits on every machine, in any order and any split into files.
"""

import json
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3
from numpy.typing import NDArray

from core import ids, ring
from core.imports import FIRST_US, MARK, NEVER_EDITED, WEEK_US
from core.mapped import ID_BYTES, MAPPED
from core.overlay import Reaction, Row, canonical, merge
from schemas.events import Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet

HASH_BYTES = 16
# `key` is the hash that the message id is made of; `content` that of all the row says. Only good rows.
MARKED = MAPPED.append(pa.field("key", pa.binary(HASH_BYTES))).append(pa.field("content", pa.binary(HASH_BYTES)))
_HEAD = np.dtype(
    [(name, "<i8") for name in ("sender_id", "sent_us", "edited_us", "body_bytes", "name", "body", "media")]
    + [("deleted", "u1")]
)
_Hashes = Sequence[bytes]


def marked(mapped: pa.RecordBatch, source: str) -> pa.RecordBatch:
    """Good rows with their conversation's id, and with what tells them apart from others."""
    contents = _contents(mapped)
    names, owns = _values(mapped, "name"), _values(mapped, "own")
    keys = [
        _hash(source, name, own or _numbered(content, 0))
        for name, own, content in zip(names, owns, contents, strict=True)
    ]
    columns = {name: mapped[name] for name in MAPPED.names} | {
        "conversation_id": _conversation_ids(mapped, source),
        "key": pa.array(keys, pa.binary(HASH_BYTES)),
        "content": pa.array(contents, pa.binary(HASH_BYTES)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in MARKED.names], schema=MARKED)


def marks_of(rows: pa.RecordBatch, slices: int) -> NDArray[np.void]:
    """Of MARKED rows, in their order."""
    marks = np.empty(rows.num_rows, MARK)
    for name, column in (("key", "key"), ("content", "content")):
        words = np.frombuffer(_fixed(rows[column]), "<u8").reshape(-1, 2)
        marks[f"{name}0"], marks[f"{name}1"] = words[:, 0], words[:, 1]
    marks["media"] = [_short_hash(media) for media in rows["media"].to_pylist()]
    marks["person"], marks["sent_us"], marks["line"] = rows["sender_id"], rows["sent_us"], rows["line"]
    marks["edited_us"] = _filled(rows["edited_us"], NEVER_EDITED)
    marks["week"] = (np.asarray(rows["sent_us"]) - FIRST_US) // WEEK_US
    marks["slice"] = ring.parts_of(tokens_of(rows), slices)
    marks["has_id"] = rows["own"].is_valid()
    return marks


def tokens_of(rows: pa.RecordBatch | pa.Table) -> NDArray[np.int64]:
    return ring.tokens(np.frombuffer(_fixed(rows["conversation_id"]), np.uint8).reshape(-1, ID_BYTES))


def rows_of(rows: pa.RecordBatch, occurrences: NDArray[np.int32], source: str) -> Iterator[Row]:
    """Canonical rows of MARKED ones, in their order; `occurrences` number those without an id that are equal."""
    columns = [rows[name].to_pylist() for name in MARKED.names]
    for values, occurrence in zip(zip(*columns, strict=True), occurrences.tolist(), strict=True):
        yield _row(dict(zip(MARKED.names, values, strict=True)), occurrence, source)


def events_of(row: Row) -> Iterator[Event]:
    """What a client would have sent: merged, these are the row again."""
    key = (row.conversation_id, row.message_id)
    sender_id, kind, server_ts = row.sender_id, row.message_type, row.server_ts
    if sender_id is None or kind is None or server_ts is None:
        raise ValueError("a row without its message is none of an import")
    body = None if row.edit_id else row.body
    yield MessageSent(*key, sender_id, kind, body, row.media_ref, row.reply_to, None, server_ts)
    if row.edit_id:
        yield MessageEdited(*key, row.edit_id, sender_id, row.body)
    for reaction in row.reactions:
        yield ReactionSet(*key, reaction.event_id, reaction.user_id, reaction.reaction)
    if row.deleted:
        event_id = ids.imported_id(ids.instant(row.message_id), "", row.message_id.hex(), "delete")
        yield MessageDeleted(*key, event_id, sender_id)


def as_json(row: Mapping[str, Any]) -> bytes:
    """A MARKED row as a line of NDJSON with our columns, that could be imported again."""
    edited_us, reactions = row["edited_us"], row["reactions"] or ()
    found = {
        "conversation": row["name"].decode(),
        "sender": row["sender_id"],
        "sent_at": _iso(row["sent_us"]),
        "body": _text(row["body"]),
        "body_bytes": row["body_bytes"],
        "id": row["own"] and row["own"].decode(),
        "media": row["media"] and row["media"].decode(),
        "edited_at": None if edited_us is None else _iso(edited_us),
        "deleted": row["deleted"] or None,
        "reactions": [_reaction_json(one) for one in reactions] or None,
    }
    return json.dumps({name: value for name, value in found.items() if value is not None}, ensure_ascii=False).encode()


def _row(values: Mapping[str, Any], occurrence: int, source: str) -> Row:
    name, sent_us, media = values["name"], values["sent_us"], values["media"]
    own = values["own"] or _numbered(values["content"], occurrence)
    key = values["key"] if not occurrence else _hash(source, name, own)
    message_id = _composed(sent_us, key)
    edited_us = values["edited_us"]
    edit_id = None if edited_us is None else _composed(edited_us, _hash(source, name, own + b"/edit"))
    row = Row(
        values["conversation_id"],
        message_id,
        sender_id=values["sender_id"],
        message_type=0 if media is None else 1,
        body=_body(values, edit_id or message_id),
        media_ref=media and media.decode(),
        edit_id=edit_id,
        deleted=values["deleted"],
        server_ts=_whole_milliseconds(sent_us),
    )
    if not values["reactions"] or row.deleted:
        return canonical(row)
    return _reacted(row, values["reactions"], sent_us, lambda what: _hash(source, name, own + what))


def _body(values: Mapping[str, Any], seed: bytes) -> bytes | None:
    """Where only its size is known, noise of that size: ciphertext looks like that."""
    size = values["body_bytes"]
    if values["deleted"] or size is None:
        return values["body"]  # type: ignore[no-any-return]
    return blake3(seed).digest(size) if size else b""


def _reacted(row: Row, reactions: Sequence[Mapping[str, Any]], sent_us: int, hashed: Callable[[bytes], bytes]) -> Row:
    """Merged as events are, so that of several reactions of one person the latest stands."""
    for one in reactions:
        user, reaction, at_us = one["user_id"], one["reaction"], one["at_us"]
        what = b"/reaction/%d/" % user + (b"-" if reaction is None else b"+" + reaction)
        event_id = _composed(sent_us if at_us is None else at_us, hashed(what))
        row = merge(row, Row(*row.key, reactions=(Reaction(user, event_id, reaction),)))
    return row


def _contents(mapped: pa.RecordBatch) -> _Hashes:
    """Of all that a row says but its line and its id; lengths come first, so that no two rows are spelled alike."""
    names, bodies, media = (_values(mapped, name) for name in ("name", "body", "media"))
    heads = np.empty(mapped.num_rows, _HEAD)
    for column in ("sender_id", "sent_us"):
        heads[column] = mapped[column]
    for column in ("edited_us", "body_bytes"):
        heads[column] = _filled(mapped[column], NEVER_EDITED)
    for column in ("name", "body", "media"):
        heads[column] = _filled(pc.binary_length(cast(pa.BinaryArray, mapped[column])), -1)
    heads["deleted"] = mapped["deleted"]
    head, size = heads.tobytes(), _HEAD.itemsize
    return [
        blake3(b"".join((head[size * row : size * (row + 1)], name, body or b"", one or b"", reacted))).digest(
            HASH_BYTES
        )
        for row, (name, body, one, reacted) in enumerate(
            zip(names, bodies, media, _spelled_reactions(mapped), strict=True)
        )
    ]


def _spelled_reactions(mapped: pa.RecordBatch) -> list[bytes]:
    """In an order of their own."""
    found = [b""] * mapped.num_rows
    counts = _filled(pc.list_value_length(mapped["reactions"]), 0)
    for row in np.flatnonzero(counts):
        found[row] = b"".join(sorted(map(_spelled_reaction, mapped["reactions"][int(row)].as_py())))
    return found


def _spelled_reaction(one: Mapping[str, Any]) -> bytes:
    reaction, at_us = one["reaction"], one["at_us"]
    length = -1 if reaction is None else len(reaction)
    return struct.pack("<qqq", one["user_id"], NEVER_EDITED if at_us is None else at_us, length) + (reaction or b"")


def _conversation_ids(mapped: pa.RecordBatch, source: str) -> Any:
    """The source's own where it gave one, else derived from its name for it; each name is hashed once."""
    names = mapped["name"].dictionary_encode()
    made = [ids.conversation_uuid(source, name.decode()) for name in cast(list[bytes], names.dictionary.to_pylist())]
    derived = pa.array(made, pa.binary(ID_BYTES)).take(names.indices)
    return pc.coalesce(mapped["conversation_id"], derived)


def _hash(source: str, name: bytes, own: bytes) -> bytes:
    """Its first eight bytes are those that `ids.imported_id` takes."""
    return blake3(b"\x1f".join((source.encode(), name, own))).digest(HASH_BYTES)


def _composed(unix_us: int, hashed: bytes) -> bytes:
    bits = int.from_bytes(hashed[:8], "big")
    return ids.compose(unix_us, bits >> 48, bits)


def _numbered(content: bytes, occurrence: int) -> bytes:
    return b"%s/%d" % (content.hex().encode(), occurrence)


def _short_hash(media: bytes | None) -> int:
    return 0 if media is None else int.from_bytes(blake3(media).digest(8), "little")


def _values(rows: pa.RecordBatch, name: str) -> list[Any]:
    return rows[name].to_pylist()


def _filled(values: Any, null: int) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(values, null), dtype=np.int64)


def _fixed(values: Any) -> bytes:
    """The bytes of a column of one width without nulls."""
    width, buffer = values.type.byte_width, values.buffers()[1]
    start = values.offset * width
    return buffer[start : start + len(values) * width].to_pybytes() if buffer else b""


def _whole_milliseconds(unix_us: int) -> datetime:
    """CQL and events end there, and a row must be the same whichever way it comes."""
    return ids.UNIX_EPOCH + timedelta(milliseconds=unix_us // 1000)


def _iso(unix_us: int) -> str:
    return (ids.UNIX_EPOCH + timedelta(microseconds=unix_us)).isoformat()


def _text(value: bytes | None) -> Any:
    try:
        return value if value is None else value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value or b"").decode()}


def _reaction_json(one: Mapping[str, Any]) -> dict[str, Any]:
    found = {"user": one["user_id"], "reaction": _text(one["reaction"])}
    return found if one["at_us"] is None else found | {"at": _iso(one["at_us"])}
