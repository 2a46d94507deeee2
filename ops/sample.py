"""A slice of real chat traffic (`ops/data/chat.parquet`): who wrote when and how much, never what.

Conversations, senders, times, body lengths and media repeats are real. Bodies are seeded random bytes, as ciphertext
looks; edits, deletions and reactions are synthetic (`amendments`). The same bits come out on every machine.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from heapq import heappop, heappush
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from blake3 import blake3

from core import ids
from core.errors import RefusedError
from schemas.events import BODY_BYTES_MAX, Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet

SOURCE = "lean-archive"
AMENDED = "lean-archive/amendments"
DATA = Path(__file__).parent / "data" / "chat.parquet"
LAST = datetime(2026, 2, 28, 12, 42, 2, tzinfo=UTC)  # of the last message; a test compares it with the data
SPAN = timedelta(weeks=65)
SHARE = 0.28  # of the conversations
COLUMNS = ("stream", "topic", "sender", "sent_at", "source_id", "body_bytes", "media")
PREVIEW_BYTES = 32
DIRECT_PEOPLE = 2
LATEST_AMENDMENT = timedelta(days=80)
EDITED, EDITED_LATE, DELETED, REACTED, RECONSIDERED = 0.03, 0.003, 0.01, 0.055, 0.25  # shares
_BATCH_ROWS = 8192
_MINUTE, _DAY = 60.0, 86_400.0


@dataclass(frozen=True)
class Row:
    stream: int
    topic: int
    sender: int
    sent_at: datetime
    source_id: int
    body_bytes: int
    media: int | None

    @property
    def conversation(self) -> str:
        return f"{self.stream}/{self.topic}"


@dataclass(frozen=True)
class Conversation:
    """`spoke` maps each sender to the time of their first message here, in that order."""

    first: datetime
    last: datetime
    spoke: Mapping[int, datetime]


def messages(start: datetime, end: datetime) -> Iterator[MessageSent]:
    """In order of message id; `end` is excluded."""
    for _, same_second in groupby(_rows(start, end), key=attrgetter("sent_at")):
        yield from sorted(map(_sent, same_second), key=attrgetter("message_id"))


def archived(start: datetime, end: datetime) -> Iterator[tuple[Row, MessageSent]]:
    """Each message with the row of the archive that it comes from, in the archive's order."""
    for row in _rows(start, end):
        yield row, _sent(row)


def amendments(message: MessageSent) -> Iterator[Event]:
    """Synthetic, seeded by the message: about 3 % are edited within days and 0.3 % weeks later, 1 % deleted, 5 % get
    reactions of others, some of them changed or taken back. Nothing follows a deletion."""
    deletions = list(_deletions(message))
    gone_at = deletions[0].event_id if deletions else b"\xff"
    others: tuple[Event, ...] = (*_edits(message), *_reactions(message))
    yield from (event for event in others if event.event_id < gone_at)
    yield from deletions


def traffic(start: datetime, end: datetime, regions: Sequence[str]) -> Iterator[tuple[str, Event]]:
    """Messages and amendments with the home region of each, in order of event id.

    Windows join: traffic of [a, b) and then of [b, c) is traffic of [a, c). Holds the amendments to come, no more.
    """
    waiting: list[tuple[bytes, bytes, Event]] = []
    for message in messages(start - LATEST_AMENDMENT, end):
        yield from _due(waiting, message.event_id, start, regions)
        for event in (message, *amendments(message)):
            heappush(waiting, (event.event_id, event.conversation_id, event))
    yield from _due(waiting, ids.compose(_unix_us(end), 0, 0), start, regions)


def region_of(conversation_id: bytes, regions: Sequence[str]) -> str:
    """Independent of the order of `regions`; one region more takes its share and moves nothing else."""
    return max(regions, key=lambda region: blake3(conversation_id + region.encode()).digest(8))


def is_group(conversation_id: bytes) -> bool:
    """More than two people speak in it, by the whole sample."""
    return len(_known(conversation_id).spoke) > DIRECT_PEOPLE


def participants(conversation_id: bytes) -> tuple[int, ...]:
    """In the order in which they first spoke."""
    return tuple(_known(conversation_id).spoke)


def longest_lived() -> bytes:
    """The conversation with the longest time between its first and last message."""
    found = _conversations()
    return max(found, key=lambda key: (found[key].last - found[key].first, key))


def choose(source: pa.Table) -> pa.Table:
    """The slice to ship, of an archive with at least COLUMNS, in the archive's order."""
    window = source.filter(pc.greater(source["sent_at"], pc.max(source["sent_at"]).as_py() - SPAN)).select(COLUMNS)
    lives = window.group_by(["stream", "topic"]).aggregate([("sent_at", "min"), ("sent_at", "max")]).to_pylist()
    longest = max(lives, key=lambda life: (life["sent_at_max"] - life["sent_at_min"], life["stream"], life["topic"]))
    chosen = [life for life in lives if life is longest or _is_chosen(f"{life['stream']}/{life['topic']}")]
    keys = pa.Table.from_pylist(
        [{"stream": life["stream"], "topic": life["topic"]} for life in chosen],
        schema=pa.schema([window.schema.field("stream"), window.schema.field("topic")]),
    )
    kept = window.append_column("row", pa.array(range(window.num_rows), pa.int32()))
    places = kept.select(["stream", "topic", "row"]).join(keys, ["stream", "topic"], join_type="left semi")["row"]
    return window.take(pa.array(sorted(int(place) for place in places.to_numpy()), pa.int32()))


def build(source: Path, target: Path = DATA) -> int:
    """Writes the slice of the archive at `source` and returns its number of messages."""
    table = choose(pq.read_table(source, columns=list(COLUMNS)))
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target, compression="zstd", compression_level=19, row_group_size=table.num_rows)
    return int(table.num_rows)


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["build", source]:
            print(f"{build(Path(source))} messages in {DATA.name}, {DATA.stat().st_size} bytes")
            return 0
    print("usage: python -m ops.sample build SOURCE", file=sys.stderr)
    return RefusedError.exit_code


def _is_chosen(conversation: str) -> bool:
    return int.from_bytes(blake3(conversation.encode()).digest(8), "big") < int(SHARE * 2**64)


def _due(
    waiting: list[tuple[bytes, bytes, Event]], before: bytes, start: datetime, regions: Sequence[str]
) -> Iterator[tuple[str, Event]]:
    while waiting and waiting[0][0] < before:
        event = heappop(waiting)[2]
        if ids.instant(event.event_id) >= start:
            yield region_of(event.conversation_id, regions), event


def _rows(start: datetime, end: datetime) -> Iterator[Row]:
    table = _table()
    sent_at = table["sent_at"]
    bounds = [pa.scalar(when, pa.timestamp("us", "UTC")) for when in (start, end)]
    chosen = table.filter(pc.and_(pc.greater_equal(sent_at, bounds[0]), pc.less(sent_at, bounds[1])))
    for batch in chosen.to_batches(max_chunksize=_BATCH_ROWS):
        columns = [batch.column(name).to_pylist() for name in COLUMNS]
        for stream, topic, sender, when, source_id, size, media in zip(*columns, strict=True):
            yield Row(stream, topic, sender, when.astimezone(UTC), source_id, size, media[0] if media else None)


@cache
def _table() -> pa.Table:
    return pq.read_table(DATA)


@cache
def _conversations() -> Mapping[bytes, Conversation]:
    spoke: dict[str, dict[int, datetime]] = {}
    last: dict[str, datetime] = {}
    for row in _rows(LAST - SPAN - timedelta(days=1), LAST + timedelta(days=1)):
        spoke.setdefault(row.conversation, {}).setdefault(row.sender, row.sent_at)
        last[row.conversation] = row.sent_at
    return {
        ids.conversation_uuid(SOURCE, name): Conversation(min(times.values()), last[name], times)
        for name, times in spoke.items()
    }


def _known(conversation_id: bytes) -> Conversation:
    found = _conversations().get(conversation_id)
    if found is None:
        raise RefusedError("that conversation is not in the sample", "ask for one that `messages` yields")
    return found


def _sent(row: Row) -> MessageSent:
    return MessageSent(
        conversation_id=ids.conversation_uuid(SOURCE, row.conversation),
        message_id=ids.imported_id(row.sent_at, SOURCE, row.conversation, str(row.source_id)),
        sender_id=row.sender,
        message_type=0 if row.media is None else 1,
        body=_noise(f"body/{row.source_id}".encode(), min(row.body_bytes, BODY_BYTES_MAX)),
        media_ref=None if row.media is None else blake3(f"media/{row.media}".encode()).hexdigest(),
        reply_to=None,
        preview=_noise(f"preview/{row.source_id}".encode(), PREVIEW_BYTES),
        server_ts=row.sent_at,
    )


def _noise(seed: bytes, size: int) -> bytes:
    return blake3(seed).digest(size) if size else b""


def _chance(message: MessageSent, what: str) -> float:
    """Uniform in [0, 1), always the same for one message and one question."""
    return int.from_bytes(blake3(message.message_id + what.encode()).digest(8), "big") / 2**64


def _later(message: MessageSent, what: str, shortest: float, longest: float) -> tuple[datetime, bytes]:
    """Seconds; most come soon. Multiplied out: powers and logarithms differ between machines in the last bit."""
    chance = _chance(message, what + "/delay")
    seconds = shortest + (longest - shortest) * (chance * chance) * (chance * chance)
    when = message.server_ts + timedelta(milliseconds=round(seconds * 1000))
    return when, ids.imported_id(when, AMENDED, message.message_id.hex(), what)


def _deletions(message: MessageSent) -> Iterator[MessageDeleted]:
    if _chance(message, "delete") < DELETED:
        _, event_id = _later(message, "delete", _MINUTE, 3 * _DAY)
        yield MessageDeleted(message.conversation_id, message.message_id, event_id, message.sender_id)


def _edits(message: MessageSent) -> Iterator[MessageEdited]:
    """The late ones come when the message's week is warm (from day 14) or cold (from day 37) already."""
    for what, share, shortest, longest in (
        ("edit", EDITED, _MINUTE, 3 * _DAY),
        ("late edit", EDITED_LATE, 15 * _DAY, 75 * _DAY),
    ):
        if _chance(message, what) < share:
            _, event_id = _later(message, what, shortest, longest)
            size = 1 + round(len(message.body or b"") * (0.7 + 0.6 * _chance(message, what + "/size")))
            body = _noise(message.message_id + what.encode(), min(size, BODY_BYTES_MAX))
            yield MessageEdited(message.conversation_id, message.message_id, event_id, message.sender_id, body)


def _reactions(message: MessageSent) -> Iterator[ReactionSet]:
    """One to three other people who have spoken there by then; each reaction may be changed or taken back."""
    if _chance(message, "react") >= REACTED:
        return
    spoke = _known(message.conversation_id).spoke
    for turn in range(1 + int(_chance(message, "react/people") * 3)):
        when, event_id = _later(message, f"react/{turn}", 5.0, 2 * _DAY)
        people = [user for user, since in spoke.items() if since < when and user != message.sender_id]
        if people:
            user = people[int(_chance(message, f"react/{turn}/who") * len(people))]
            yield from _reaction(message, f"react/{turn}", user, event_id)


def _reaction(message: MessageSent, what: str, user: int, event_id: bytes) -> Iterator[ReactionSet]:
    ids_of = (message.conversation_id, message.message_id)
    yield ReactionSet(*ids_of, event_id, user, _noise(event_id, 20))
    then = _chance(message, what + "/then")
    if then < RECONSIDERED:
        _, second = _later(message, what + "/then", 2 * _DAY, 4 * _DAY)
        yield ReactionSet(*ids_of, second, user, _noise(second, 20) if then < RECONSIDERED / 2 else None)


def _unix_us(when: datetime) -> int:
    return (when - ids.UNIX_EPOCH) // timedelta(microseconds=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
