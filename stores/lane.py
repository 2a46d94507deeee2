"""The lane: what happens to a sealed unit, kept event by event, as it came from Kafka.

Cut into ring slices of its own, independent of shards. An event that a sink has taken in is deleted by its full
key at its own timestamp, so that a later event is never deleted with it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from core import ids, ring
from core.errors import DamagedError
from core.overlay import Row, row_of
from core.steps import irreversible
from schemas.events import Event, MalformedEventError, decode, encode
from stores.cassandra import Database, Statement

PAGE_ROWS = 1000
_KEY = "region = ? AND week = ? AND ring_slice = ?"


class LaneKey(NamedTuple):
    """What names one event of a unit's lane."""

    conversation_id: bytes
    message_id: bytes
    event_id: bytes
    user_id: int


def key_of(event: Event) -> LaneKey:
    return LaneKey(event.conversation_id, event.message_id, event.event_id, event.user_id)


@dataclass(frozen=True)
class Lane:
    """One region's lane, cut into `ring_slices` parts."""

    db: Database
    region: str
    ring_slices: int

    def write(self, week: int, event: Event) -> Statement:
        """`week` is the unit's: that of the message, not of the event."""
        return Statement(
            f"INSERT INTO {self.region}_hot.lane "
            "(region, week, ring_slice, conversation_id, message_id, event_id, user_id, event) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
            (*self._place(week, key_of(event)), encode(event), ids.unix_us(event.event_id)),
        )

    @irreversible("lane: cleared")
    def clear(self, week: int, keys: Iterable[LaneKey]) -> None:
        """Call it only when readers of the sink that took these events in have had T and the longest read."""
        query = (
            f"DELETE FROM {self.region}_hot.lane USING TIMESTAMP ? "
            f"WHERE {_KEY} AND conversation_id = ? AND message_id = ? AND event_id = ? AND user_id = ?"
        )
        self.db.write([Statement(query, (ids.unix_us(key.event_id), *self._place(week, key)))] for key in keys)

    def is_empty(self, week: int, tokens: ring.Range) -> bool:
        """By ring slices, so that it may also look at what lies just outside of `tokens`."""
        query = f"SELECT event_id FROM {self.region}_hot.lane WHERE {_KEY} LIMIT 1"
        asked = [(self.region, week, ring_slice) for ring_slice in self._ring_slices(tokens)]
        return not any(self.db.each(query, asked))

    def scan(self, week: int, tokens: ring.Range) -> Iterator[Event]:
        """Every event of a token range, conversation by conversation."""
        query = f"SELECT event FROM {self.region}_hot.lane WHERE {_KEY}"
        for ring_slice in self._ring_slices(tokens):
            for page in self.db.pages(query, (self.region, week, ring_slice), PAGE_ROWS):
                events = (self._decoded(payload) for (payload,) in page)
                yield from (event for event in events if ring.token(event.conversation_id) in tokens)

    def read(self, week: int, conversation_id: bytes) -> list[Row]:
        """What the lane says of one conversation, as partial rows."""
        query = f"SELECT event FROM {self.region}_hot.lane WHERE {_KEY} AND conversation_id = ?"
        ring_slice = ring.part_of(ring.token(conversation_id), self.ring_slices)
        found = self.db.rows(query, (self.region, week, ring_slice, UUID(bytes=conversation_id)))
        return [row_of(self._decoded(payload)) for (payload,) in found]

    def _ring_slices(self, tokens: ring.Range) -> range:
        first, last = ring.part_of(tokens.start + 1, self.ring_slices), ring.part_of(tokens.end, self.ring_slices)
        return range(first, last + 1)

    def _place(self, week: int, key: LaneKey) -> tuple[object, ...]:
        ring_slice = ring.part_of(ring.token(key.conversation_id), self.ring_slices)
        conversation, message = UUID(bytes=key.conversation_id), ids.to_timeuuid(key.message_id)
        return (self.region, week, ring_slice, conversation, message, ids.to_timeuuid(key.event_id), key.user_id)

    def _decoded(self, payload: bytes) -> Event:
        try:
            return decode(payload)
        except MalformedEventError as fault:
            raise DamagedError(
                f"the lane of {self.region} holds an event that {fault}", "look at it before it is folded"
            ) from fault
