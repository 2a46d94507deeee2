"""From a batch of events to durable writes: each to the place the routes name, all of a conversation together.

Nothing here is conditional and every cell has a derived time, so writing a batch twice, or half of it, is harmless.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from core import weeks
from core.errors import BlockedError
from core.moves import Target, born_cold
from core.overlay import merge_all, row_of
from core.routing import Routes
from core.tiers import Tier
from lakehouse.site import Site
from schemas.events import Event, MessageSent
from stores import conversations, messages
from stores.cassandra import Statement, bounded

_SEEN_MAX = 200_000


class UnknownWeekError(BlockedError):
    """The ledger has no table for a week yet."""


@dataclass
class Seen:
    """Remembers what was written lately, so that it is not written with every message."""

    _keys: "OrderedDict[Hashable, None]" = field(default_factory=OrderedDict)

    def new(self, keys: Iterable[Hashable]) -> list[Hashable]:
        return [key for key in dict.fromkeys(keys) if key not in self._keys]

    def add(self, keys: Iterable[Hashable]) -> None:
        for key in keys:
            self._keys[key] = None
        while len(self._keys) > _SEEN_MAX:
            self._keys.popitem(last=False)


@dataclass
class Intake:
    """Writes events of one region. `seen` is only a shortcut: forgetting it costs writes, never rows."""

    site: Site
    weeks_seen: Seen = field(default_factory=Seen)
    members_seen: Seen = field(default_factory=Seen)
    births_seen: Seen = field(default_factory=Seen)

    def write(self, events: Sequence[Event], routes: Routes) -> None:
        """Durable when it returns. MissingTableError and UnknownWeekError: reload the routes and call it again."""
        placed = _placed(events, routes)
        self._bear(placed, routes)
        self._announce_weeks(events)
        for (target, week), group in placed.items():
            if target is Target.LANE:
                self.site.db.hot.write(self._lane_batches(week, group))
            else:
                tier = Tier(target)
                rows = sorted(merge_all(map(row_of, group)).values(), key=lambda row: row.key)
                self.site.database(tier).write(messages.batches(self.site.region, tier, week, rows))
        self._note(event for event in events if isinstance(event, MessageSent))

    def _bear(self, placed: "dict[tuple[Target, int], list[Event]]", routes: Routes) -> None:
        """A week older than any table gets its unit when something first happens in it."""
        units = {
            (week, routes.slice_of(event.conversation_id))
            for (target, week), group in placed.items()
            if target is Target.LANE
            for event in group
            if routes.unit(event.conversation_id, event.message_id) is None
        }
        new = self.births_seen.new(units)
        for week, slice_ in units.intersection(new):
            self.site.ledger.create(born_cold(self.site.region, week, slice_))
        self.births_seen.add(new)

    def _announce_weeks(self, events: Iterable[Event]) -> None:
        """Before the first message of that week, so that a reader never skips it."""
        keys = {(event.conversation_id, weeks.of_id(event.message_id)) for event in events}
        new = self.weeks_seen.new(keys)
        self.site.db.hot.write([conversations.present(self.site.region, *key)] for key in keys.intersection(new))
        self.weeks_seen.add(new)

    def _lane_batches(self, week: int, events: Iterable[Event]) -> Iterator[list[Statement]]:
        ordered = sorted(events, key=lambda event: event.conversation_id)
        for _, group in groupby(ordered, key=lambda event: event.conversation_id):
            yield from bounded(self.site.lane.write(week, event) for event in group)

    def _note(self, sent: Iterable[MessageSent]) -> None:
        """Heads and members; the newest message of a conversation speaks for the batch."""
        newest: dict[bytes, MessageSent] = {}
        joined: dict[Hashable, MessageSent] = {}
        for message in sent:
            known = newest.get(message.conversation_id)
            newest[message.conversation_id] = (
                message if known is None or message.message_id > known.message_id else known
            )
            joined.setdefault((message.conversation_id, message.sender_id), message)
        new = self.members_seen.new(joined)
        members = [statement for key in new for statement in conversations.joined(self.site.region, joined[key])]
        heads = [conversations.head(self.site.region, message) for message in newest.values()]
        self.site.db.hot.write([statement] for statement in (*heads, *members))
        self.members_seen.add(new)


def _placed(events: Iterable[Event], routes: Routes) -> dict[tuple[Target, int], list[Event]]:
    placed: dict[tuple[Target, int], list[Event]] = {}
    for event in events:
        target = routes.target(event.conversation_id, event.message_id)
        week = weeks.of_id(event.message_id)
        if target is None:
            raise UnknownWeekError(
                f"the ledger has no table for {weeks.label(week)} yet", "run: python -m jobs.weeks --now …"
            )
        placed.setdefault((target, week), []).append(event)
    return placed
