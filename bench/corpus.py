"""Canonical rows of one week in key order, as many as one likes, and the same on every machine.

Who wrote where and when, how much, and with what media is the sample's (`ops/data/chat.parquet`): each of its weeks is
laid into one week as conversations of people of its own, and then again with other ids until there are enough. The
sample knows seconds; what is finer is drawn. Body sizes are scaled to a mean of 170 bytes. Message ids are as gateways
make them: the microsecond, and the clock and node of the gateway that serves the sender that day. Bodies, reactions and
the ids of conversations and people are random. One message in twelve is a reply; edits, deletions and reactions are as
frequent as the sample's synthetic ones.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3
from numpy.typing import NDArray

from core import ids, weeks
from core.rows import ID_BYTES
from schemas.tables import CANONICAL

SAMPLE = Path(__file__).parents[1] / "ops" / "data" / "chat.parquet"
WEEK = 2913
BODY_BYTES = 170
EDITED, DELETED, REPLIED, REACTED = 0.033, 0.01, 1 / 12, 0.055  # shares
REACTION_BYTES = 20
GATEWAYS = 1024
_WEEK_MS, _DAY_MS = 7 * 86_400_000, 86_400_000
_LATEST_US = 3 * 86_400_000_000
_REACTIONS: Any = CANONICAL.field("reactions").type
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Ids = NDArray[np.uint8]
Chance = np.random.Generator


@dataclass(frozen=True)
class _Sent:
    """Conversations and senders are numbered from 0, `at_ms` is of the week, and `media` is -1 where there is none."""

    conversation: Numbers
    sender: Numbers
    at_ms: Numbers
    body_bytes: Numbers
    media: Numbers

    @property
    def gateway(self) -> Numbers:
        """The one that serves the sender that day."""
        return _mixed(self.sender * 7 + self.at_ms // _DAY_MS) % GATEWAYS


def rows(count: int, seed: int = 0) -> pa.Table:
    chance = np.random.default_rng(seed)
    sent = _laid_into_a_week(count, chance)
    gateways = _gateways(chance)
    at_us = sent.at_ms * 1000 + chance.integers(0, 1000, count)
    message_id = _ids(at_us, gateways[sent.gateway])
    is_deleted = chance.random(count) < DELETED
    is_edited = (chance.random(count) < EDITED) & ~is_deleted
    columns = {
        "conversation_id": _binary(_random_ids(int(sent.conversation.max(initial=-1)) + 1, chance)[sent.conversation]),
        "message_id": _binary(message_id),
        "sender_id": pa.array(_mixed(sent.sender)),
        "message_type": pa.array((sent.media >= 0).astype(np.int8)),
        "body": _random_bytes(np.where(is_deleted, 0, sent.body_bytes), chance, ~is_deleted),
        "media_ref": _media(sent.media, ~is_deleted),
        "reply_to": _binary(message_id[_before(sent)], chance.random(count) < REPLIED),
        "edit_id": _binary(_ids(_later(at_us, chance), gateways[sent.gateway]), is_edited),
        "deleted": pa.array(is_deleted),
        "server_ts": pa.array(_unix_us(sent.at_ms * 1000)),
        "reactions": _reactions(sent, at_us, (chance.random(count) < REACTED) & ~is_deleted, gateways, chance),
    }
    table = pa.table({name: columns[name].cast(CANONICAL.field(name).type) for name in CANONICAL.names}, CANONICAL)
    return table.sort_by([("conversation_id", "ascending"), ("message_id", "ascending")]).combine_chunks()


def _laid_into_a_week(count: int, chance: Chance) -> _Sent:
    """A conversation is moved by up to an hour, each copy of it by another."""
    sample = pq.read_table(SAMPLE)
    copies, places = np.divmod(np.arange(count), sample.num_rows)
    stream, topic, sender, size = (_numbers(sample[name]) for name in ("stream", "topic", "sender", "body_bytes"))
    week, at_ms = np.divmod(_numbers(sample["sent_at"].cast(pa.int64())), _WEEK_MS)
    conversation = _numbered(copies, week[places], stream[places], topic[places])
    moved = chance.integers(0, 3_600_000, count)[conversation] + chance.integers(0, 1000, count)
    scaled = np.maximum(1, np.rint(size * (BODY_BYTES / size.mean()))).astype(np.int64)
    return _Sent(
        conversation,
        _numbered(copies, week[places], sender[places]),
        (at_ms[places] + moved) % _WEEK_MS,
        scaled[places],
        _numbers(_firsts(sample["media"]))[places],
    )


def _numbers(column: Any) -> Numbers:
    return np.asarray(column.to_numpy(), dtype=np.int64)


def _numbered(*names: Numbers) -> Numbers:
    """A number for each different name."""
    _, numbers = np.unique(np.stack(names), axis=1, return_inverse=True)
    return numbers.reshape(-1).astype(np.int64)


def _firsts(lists: Any) -> Any:
    """Of each list; -1 where it is empty."""
    is_empty: Any = pc.equal(pc.list_value_length(lists), pa.scalar(0, pa.int32()))
    return pc.list_element(pc.if_else(is_empty, pa.scalar([-1], lists.type), lists), 0)


def _mixed(number: Numbers) -> Numbers:
    """Spread over 63 bits, always the same for one number."""
    spread = (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E37_79B9_7F4A_7C15)
    return ((spread ^ spread >> np.uint64(29)) * np.uint64(0xBF58_476D_1CE4_E5B9) >> np.uint64(1)).astype(np.int64)


def _unix_us(of_week_us: Numbers) -> Numbers:
    return of_week_us + (weeks.start(WEEK) - ids.UNIX_EPOCH) // timedelta(microseconds=1)


def _later(of_week_us: Numbers, chance: Chance) -> Numbers:
    """Within three days, mostly soon."""
    return of_week_us + (chance.random(len(of_week_us)) ** 4 * _LATEST_US).astype(np.int64)


def _gateways(chance: Chance) -> Ids:
    """The second half of the ids of each."""
    drawn = zip(chance.integers(0, 2**14, GATEWAYS), chance.integers(0, 2**48, GATEWAYS), strict=True)
    return np.stack([np.frombuffer(ids.compose(0, int(clock), int(node))[8:], np.uint8) for clock, node in drawn])


def _ids(of_week_us: Numbers, second_half: Ids) -> Ids:
    """What `core.ids.compose` makes."""
    ticks = _unix_us(of_week_us) * 10 + ids.GREGORIAN_TICKS
    first_half = ((ticks >> 12) << 16 | 0x6000 | ticks & 0xFFF).astype(">i8")
    return np.concatenate([first_half.view(np.uint8).reshape(-1, 8), second_half], axis=1)


def _random_ids(count: int, chance: Chance) -> Ids:
    return chance.integers(0, 256, (count, ID_BYTES), dtype=np.uint8)


def _binary(of: Ids, is_there: Flags | None = None) -> Any:
    fixed: Any = pa.Array.from_buffers(pa.binary(ID_BYTES), len(of), [None, pa.py_buffer(of.tobytes())])
    return _only(fixed, is_there)


def _random_bytes(size: Numbers, chance: Chance, is_there: Flags | None = None) -> Any:
    ends = np.concatenate([[0], np.cumsum(size)])
    data = pa.py_buffer(chance.bytes(int(ends[-1])))
    kind, buffers = pa.large_binary(), [None, pa.py_buffer(ends.astype(np.int64).tobytes()), data]
    return _only(pa.Array.from_buffers(kind, len(size), buffers), is_there)


def _only(values: Any, is_there: Flags | None) -> Any:
    return values if is_there is None else pc.if_else(pa.array(is_there), values, pa.scalar(None, values.type))


def _media(number: Numbers, is_there: Flags) -> Any:
    """Named as the sample names media."""
    named: Any = pa.array(
        [blake3(f"media/{one}".encode()).hexdigest() for one in range(int(number.max(initial=0)) + 1)]
    )
    return named.take(pa.array(number, mask=~is_there | (number < 0)))


def _before(sent: _Sent) -> Numbers:
    """The message before each in its conversation; of the first, itself."""
    order = np.lexsort((sent.at_ms, sent.conversation))
    before = np.concatenate([order[:1], order[:-1]])
    found = np.empty(len(order), np.int64)
    found[order] = np.where(sent.conversation[before] == sent.conversation[order], before, order)
    return found


def _reactions(sent: _Sent, at_us: Numbers, is_reacted: Flags, gateways: Ids, chance: Chance) -> Any:
    """One to three, of people of the same crowd."""
    counts = np.where(is_reacted, chance.integers(1, 4, len(is_reacted)), 0)
    of = np.repeat(np.arange(len(counts)), counts)
    user = sent.sender[(of + chance.integers(1, 20, len(of))) % max(1, len(counts))]
    order = np.lexsort((_mixed(user), of))
    keep = np.concatenate([[True], (np.diff(of) != 0) | (np.diff(user[order]) != 0)])[: len(of)]
    of, user = of[keep], user[order][keep]
    values = {
        "user_id": pa.array(_mixed(user)),
        "event_id": _binary(_ids(_later(at_us[of], chance), gateways[_mixed(user) % GATEWAYS])),
        "reaction": _random_bytes(np.full(len(of), REACTION_BYTES), chance),
    }
    fields = list(_REACTIONS.value_type)
    structs = pa.StructArray.from_arrays([values[one.name].cast(one.type) for one in fields], fields=fields)
    ends = np.searchsorted(of, np.arange(len(counts) + 1))
    lists: Any = pa.ListArray
    return lists.from_arrays(pa.array(ends.astype(np.int32)), structs, type=_REACTIONS)
