"""The lane: what happens to a sealed unit, kept event by event, as it came from Kafka.

Cut into ring slices of its own, independent of shards. An event that a sink has taken in is deleted by its full
key at its own timestamp, so that a later event is never deleted with it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from core import ids, ring
from core.errors import DamagedError
from core.overlay import Row, row_of
from schemas.events import Event, MalformedEventError, MessageSent, decode, encode
from stores.cassandra import Database, Statement

PAGE_ROWS = 1000
_KEY = "region = ? AND week = ? AND ring_slice = ?"


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
            (*self._key(week, event), encode(event), ids.unix_us(event.event_id)),
        )

    def clear(self, week: int, events: Iterable[Event]) -> None:
        """Call it only when readers of the sink that took `events` in have had T and the longest read."""
        query = (
            f"DELETE FROM {self.region}_hot.lane USING TIMESTAMP ? "
            f"WHERE {_KEY} AND conversation_id = ? AND message_id = ? AND event_id = ? AND user_id = ?"
        )
        self.db.write([Statement(query, (ids.unix_us(event.event_id), *self._key(week, event)))] for event in events)

    def scan(self, week: int, tokens: ring.Range) -> Iterator[Event]:
        """Every event of a token range, conversation by conversation."""
        first, last = ring.part_of(tokens.start + 1, self.ring_slices), ring.part_of(tokens.end, self.ring_slices)
        query = f"SELECT event FROM {self.region}_hot.lane WHERE {_KEY}"
        for ring_slice in range(first, last + 1):
            for page in self.db.pages(query, (self.region, week, ring_slice), PAGE_ROWS):
                events = (self._decoded(payload) for (payload,) in page)
                yield from (event for event in events if ring.token(event.conversation_id) in tokens)

    def read(self, week: int, conversation_id: bytes) -> list[Row]:
        """What the lane says of one conversation, as partial rows."""
        query = f"SELECT event FROM {self.region}_hot.lane WHERE {_KEY} AND conversation_id = ?"
        ring_slice = ring.part_of(ring.token(conversation_id), self.ring_slices)
        found = self.db.rows(query, (self.region, week, ring_slice, UUID(bytes=conversation_id)))
        return [row_of(self._decoded(payload)) for (payload,) in found]

    def _key(self, week: int, event: Event) -> tuple[object, ...]:
        ring_slice = ring.part_of(ring.token(event.conversation_id), self.ring_slices)
        message = ids.to_timeuuid(event.message_id)
        return (
            self.region,
            week,
            ring_slice,
            UUID(bytes=event.conversation_id),
            message,
            ids.to_timeuuid(event.event_id),
            _user(event),
        )

    def _decoded(self, payload: bytes) -> Event:
        try:
            return decode(payload)
        except MalformedEventError as fault:
            raise DamagedError(
                f"the lane of {self.region} holds an event that {fault}", "look at it before it is folded"
            ) from fault


def _user(event: Event) -> int:
    return event.sender_id if isinstance(event, MessageSent) else event.user_id
