"""Canonical batches into a week's tables: what `stores.messages.statements` says of rows, without a Python object for a
value.

Each column becomes the bytes that go over the wire. A kernel writes the statements row after row as a BATCH request has
them, and tells where to cut them into batches of one conversation each.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.columns import Bytes, Field, Fields, field, fixed, numbers, steps, together, validity
from core.compiled import kernel, memcpy
from core.ids import GREGORIAN_TICKS
from core.rows import ID_BYTES
from core.tiers import Tier
from schemas.tables import CANONICAL
from stores.cassandra import BATCH_BYTES, BATCH_STATEMENTS, Database, translated
from stores.messages import inserts, keyspace
from stores.requests import EncodedBatch

ROWS, SLICE_BYTES = 4096, 16 * 1024 * 1024  # encoded at once, which stays in memory until the last of it was sent
IN_FLIGHT = 64
_LENGTH_BYTES = 4
_TICKS_OF_US = 10
_PREPARED = 1
_NULL, _UNSET = -1, -2

# What each statement binds, by its place among the columns that `_columns` makes.
_OF_MESSAGE = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
_OF_AUTHOR = (0, 1, 10, 11)
_OF_EDIT = (0, 1, 12, 13)
_OF_REACTION = (0, 1, 2, 3, 4)  # of its own columns


class Heads(NamedTuple):
    """What stands before the values of each of `Inserts`."""

    message: bytes
    author: bytes
    edit: bytes
    reaction: bytes


class Encoded(NamedTuple):
    """Statements one after the other; batch `i` is of `sizes[i]` of them, from `ends[i]` to `ends[i + 1]`, of the
    conversation of row `rows[i]`."""

    statements: Bytes
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]
    rows: NDArray[np.int64]


def write(db: Database, region: str, tier: Tier, week: int, batches: Iterable[pa.RecordBatch]) -> None:
    """As `Database.write` of `messages.batches`, but that batches are cut by their encoded bytes; rows of one
    conversation should come together."""
    into = inserts(region, tier, week)
    with translated():
        heads = Heads(*(head(db.prepared(query).query_id, query.count("?")) for query in into))
    db.send(_batches(keyspace(region, tier), heads, batches), IN_FLIGHT)


def head(query_id: bytes, values: int) -> bytes:
    """What stands before the values of a prepared statement in a BATCH: CQL protocol v4 and v5, section 4.1.7."""
    return bytes((_PREPARED,)) + len(query_id).to_bytes(2, "big") + query_id + values.to_bytes(2, "big")


def _batches(space: str, heads: Heads, batches: Iterable[pa.RecordBatch]) -> Iterator[EncodedBatch]:
    for batch in batches:
        step = min(ROWS, max(1, batch.num_rows * SLICE_BYTES // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, step):
            part = batch.slice(start, step)
            yield from _cut(space, part.column("conversation_id"), encode(part, heads))


def _cut(space: str, conversations: Any, found: Encoded) -> Iterator[EncodedBatch]:
    whole, ends = found.statements.data, found.ends.tolist()
    for at, (count, row) in enumerate(zip(found.sizes.tolist(), found.rows.tolist(), strict=True)):
        yield EncodedBatch(space, conversations[row].as_py(), count, whole[ends[at] : ends[at + 1]])


def encode(batch: pa.RecordBatch, heads: Heads) -> Encoded:
    """ArrowInvalid for an id that is not 16 bytes."""
    batch = batch if batch.schema.equals(CANONICAL) else batch.cast(CANONICAL)
    keys, columns, applies = _columns(batch)
    reactions: Any = batch.column("reactions")
    counts = pc.list_value_length(reactions).fill_null(0).to_numpy(zero_copy_only=False)
    reacted = _reactions(reactions, keys, np.repeat(np.arange(len(counts)), counts))
    counted = np.append(0, np.cumsum(counts))
    most = sum(int(mask.sum()) for mask in applies) + int(counted[-1])
    widest = max(map(len, heads)) + _LENGTH_BYTES * len(_OF_MESSAGE)
    # Of a message, its author and its edit at most two are written of one row, and each binds a column once.
    out = np.empty(most * widest + 2 * columns.size_bytes + reacted.size_bytes, np.uint8)
    ends, sizes, rows = (np.empty(most + 1, np.int64) for _ in range(3))
    made = _join(
        tuple(fixed(np.frombuffer(one, np.uint8)) for one in heads), *columns, applies,
        counted.astype(np.int64), *reacted, (BATCH_STATEMENTS, BATCH_BYTES), out, ends, sizes, rows,
    )  # fmt: skip
    return Encoded(out, ends[: made + 1], sizes[:made], rows[:made])


def _columns(batch: pa.RecordBatch) -> tuple[tuple[Field, Field], Fields, tuple[Bytes, ...]]:
    """The key alone; all that a message's statements bind; and for which rows there is a message, an author, an
    edit."""
    of: dict[str, Any] = dict(zip(batch.schema.names, batch.columns, strict=True))
    is_message, is_edited = of["message_type"].is_valid(), of["edit_id"].is_valid()
    message, edit = _words(of["message_id"]), _words(of["edit_id"])
    written_us = _unix_us(message)
    key = field(of["conversation_id"].cast(pa.binary(ID_BYTES)).cast(pa.binary())), _timeuuids(message)
    found = (
        *key,
        _signed(pc.if_else(is_message, of["sender_id"], None)),
        _signed(of["message_type"], 1),
        field(pc.if_else(is_edited, None, of["body"])),
        field(of["media_ref"]),
        _timeuuids(_words(of["reply_to"]))._replace(valid=validity(of["reply_to"])),
        field(pc.if_else(of["deleted"], True, None)),
        _signed(_milliseconds(of["server_ts"])),
        _big_endian(written_us),
        _signed(of["sender_id"]),
        _big_endian(written_us - 1),
        _events(edit, of["body"])._replace(valid=validity(of["edit_id"])),
        _big_endian(_unix_us(edit)),
    )
    is_author = pc.and_(of["sender_id"].is_valid(), pc.invert(is_message))
    masks = pc.or_(is_message, of["deleted"]), is_author, pc.and_not(is_edited, of["deleted"])
    return key, together(found), tuple(fixed(mask.to_numpy(zero_copy_only=False).view(np.uint8)) for mask in masks)


def _reactions(reactions: Any, keys: tuple[Field, Field], parents: NDArray[np.int64]) -> Fields:
    """What the statements of reactions bind, one after the other, with the keys of the rows that they are of."""
    user, event_id, reaction = reactions.flatten().flatten()
    event = _words(event_id)
    conversation, message = (Field(_repeated(key, parents), steps(len(parents), ID_BYTES), _all()) for key in keys)
    cell = _events(event, reaction)._replace(valid=validity(event_id))
    return together((conversation, message, _signed(user), cell, _big_endian(_unix_us(event))))


def _repeated(key: Field, parents: NDArray[np.int64]) -> Bytes:
    ids = key.data[key.ends[0] : key.ends[-1]].reshape(-1, ID_BYTES)
    return fixed(ids[parents].ravel())


def _words(ids: Any) -> NDArray[np.uint64]:
    """(ids, 2) in our byte order; zeros where one is null."""
    whole: Any = ids.fill_null(bytes(ID_BYTES)).cast(pa.binary(ID_BYTES))
    if not len(whole):
        return np.empty((0, 2), np.uint64)
    return np.frombuffer(whole.buffers()[1], ">u8", 2 * len(whole), whole.offset * ID_BYTES).reshape(-1, 2).astype("u8")


def _ticks(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    high = words[:, 0]
    ticks: NDArray[np.uint64] = (high >> np.uint64(16)) << np.uint64(12) | high & np.uint64(0xFFF)
    return ticks


def _unix_us(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """`core.ids.unix_us`."""
    since: NDArray[np.int64] = (_ticks(words).view(np.int64) - GREGORIAN_TICKS) // _TICKS_OF_US
    return since


def _timeuuid_bytes(words: NDArray[np.uint64]) -> Bytes:
    """`core.ids.to_timeuuid`, 16 bytes each."""
    ticks = _ticks(words)
    low, middle = ticks & np.uint64(0xFFFF_FFFF), ticks >> np.uint64(32) & np.uint64(0xFFFF)
    head = low << np.uint64(32) | middle << np.uint64(16) | np.uint64(0x1000) | ticks >> np.uint64(48)
    return np.stack([head, words[:, 1]], axis=1).astype(">u8").view(np.uint8).ravel()


def _timeuuids(words: NDArray[np.uint64]) -> Field:
    return Field(fixed(_timeuuid_bytes(words)), steps(len(words), ID_BYTES), _all())


def _signed(column: Any, width: int = 8) -> Field:
    return _big_endian(numbers(column), width)._replace(valid=validity(column))


def _big_endian(values: NDArray[np.int64], width: int = 8) -> Field:
    return Field(fixed(values.astype(f">i{width}").view(np.uint8)), steps(len(values), width), _all())


def _all() -> Bytes:
    """None of them is null."""
    return fixed(np.empty(0, np.uint8))


def _milliseconds(instants: Any) -> Any:
    """As the driver rounds them: towards 1970."""
    return pc.divide(instants.cast(pa.int64()), 1000)


def _events(event_ids: NDArray[np.uint64], values: Any) -> Field:
    """Cells of `tuple<timeuuid, blob>`."""
    lengths = pc.binary_length(values).fill_null(_NULL).to_numpy(zero_copy_only=False)
    before = np.empty((len(values), 2 * _LENGTH_BYTES + ID_BYTES), np.uint8)
    before[:, :_LENGTH_BYTES] = (0, 0, 0, ID_BYTES)
    before[:, _LENGTH_BYTES:-_LENGTH_BYTES] = _timeuuid_bytes(event_ids).reshape(-1, ID_BYTES)
    before[:, -_LENGTH_BYTES:] = lengths.astype(">i4").view(np.uint8).reshape(-1, _LENGTH_BYTES)
    buffers = [None, pa.py_buffer(before.tobytes())]
    heads = pa.FixedSizeBinaryArray.from_buffers(pa.binary(before.shape[1]), len(before), buffers)
    cells = pc.binary_join_element_wise(heads.cast(pa.binary()), values.fill_null(b""), b"")
    return field(cells)


@kernel
def _join(
    heads: Any, data: Any, ends: Any, valid: Any, applies: Any, offsets: Any, r_data: Any, r_ends: Any, r_valid: Any,
    most: Any, out: Any, batch_ends: Any, counts: Any, rows: Any,
) -> Any:  # fmt: skip
    """How many batches there are."""
    at, made, count = 0, 0, 0
    batch_ends[0] = 0
    for row in range(len(applies[0])):
        if row and _differ(data[0], ends[0], row):
            made, count = _close(at, made, count, batch_ends, counts)
        for kind in range(3 + offsets[row + 1] - offsets[row]):
            if kind < 3 and not applies[kind][row]:
                continue
            start = at
            if kind == 0:
                at = _put(heads[0], data, ends, valid, _OF_MESSAGE, row, out, at)
            elif kind == 1:
                at = _put(heads[1], data, ends, valid, _OF_AUTHOR, row, out, at)
            elif kind == 2:
                at = _put(heads[2], data, ends, valid, _OF_EDIT, row, out, at)
            else:
                one = offsets[row] + kind - 3
                at = _put(heads[3], r_data, r_ends, r_valid, _OF_REACTION, one, out, at)
            if count == most[0] or at - batch_ends[made] > most[1]:
                made, count = _close(start, made, count, batch_ends, counts)
            rows[made] = row
            count += 1
    return _close(at, made, count, batch_ends, counts)[0]


@kernel
def _close(at: int, made: int, count: int, batch_ends: Any, counts: Any) -> Any:
    """The batch that was begun ends here, unless it is empty."""
    if count:
        counts[made] = count
        made += 1
        batch_ends[made] = at
    return made, 0


@kernel
def _differ(data: Any, ends: Any, row: int) -> Any:
    """Whether the row is of another conversation than the one before it."""
    same = True
    for byte in range(ends[row + 1] - ends[row]):
        same &= data[ends[row] + byte] == data[ends[row - 1] + byte]
    return not same


@kernel
def _put(head: Any, data: Any, ends: Any, valid: Any, columns: Any, row: int, out: Any, at: Any) -> Any:
    """A statement and the values that it binds; where the next begins."""
    memcpy(np.uintp(out.ctypes.data + at), np.uintp(head.ctypes.data), np.uintp(len(head)))
    at += len(head)
    for column in columns:
        values, places, present = data[column], ends[column], valid[column]
        is_set = len(present) == 0 or present[row] != 0
        start = places[row]
        length = np.int64(places[row + 1] - start) if is_set else np.int64(_UNSET)
        for byte in range(4):
            out[at + byte] = length >> (24 - 8 * byte) & 0xFF
        at += 4
        if is_set:
            memcpy(np.uintp(out.ctypes.data + at), np.uintp(values.ctypes.data + start), np.uintp(length))
            at += length
    return at
