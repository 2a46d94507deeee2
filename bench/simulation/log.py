"""Kafka as far as it matters here: partitions, one consumer group with its commits, and who owns what when.

It has the names of `stores.kafka` that jobs and the consumer call. A member that stands still for longer than the
session is expelled: its partitions go to others, and what it commits later is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.simulation.network import Network, silent, unknown
from bench.simulation.scheduler import Process
from core import gate
from core.errors import BlockedError
from core.gate import PartitionState
from core.topics import Committed, Place, Record, message_topics

SESSION_SECONDS = 4.0
IDLE_SECONDS = 1.4
BATCH_RECORDS = 3
_LOST, _SILENT = unknown("Kafka"), silent("Kafka")


@dataclass(eq=False)
class Member:
    """One joining of one client; `owned`: the next offset to fetch, by partition."""

    process: Process
    assigned: Callable[[Mapping[Place, Committed]], None]
    revoked: Callable[[Sequence[Place]], None]
    owned: dict[Place, int] = field(default_factory=dict)
    is_expelled: bool = False
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class Producer:
    """Dead letters only; what people say comes in by `Log.append`."""

    letters: list[tuple[Record, str]]

    def flush(self) -> None:
        """Every letter is taken at once."""


@dataclass
class Log:
    network: Network
    region: str
    partitions: int
    clock: Callable[[], int]
    stored: Callable[[Place, int, int], None]
    records: dict[Place, list[Record]] = field(default_factory=dict)
    commits: dict[Place, tuple[int, str]] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    wanted: dict[Place, Member] = field(default_factory=dict)
    letters: list[tuple[Record, str]] = field(default_factory=list)
    turned: int = 0

    def __post_init__(self) -> None:
        for topic in message_topics(self.region):
            for partition in range(self.partitions):
                self.records[topic, partition] = []
                self.commits[topic, partition] = (0, gate.metadata(0))

    def append(self, place: Place, key: bytes, value: bytes) -> Record:
        record = Record(*place, len(self.records[place]), self.clock(), key, value)
        self.records[place].append(record)
        return record

    def committed_offset(self, place: Place) -> int:
        return self.commits[place][0]

    # what jobs ask

    def end_offsets(self, *_: Any) -> dict[Place, int]:
        return self.network.call(
            "ask for the ends of the log", lambda: {place: len(held) for place, held in self.records.items()}, _SILENT
        )

    def committed(self, _: Any, __: str, ends: Mapping[Place, int]) -> list[PartitionState]:
        def ask() -> list[PartitionState]:
            return [
                PartitionState(*place, 0, end, self.commits[place][0], gate.route_in(self.commits[place][1]))
                for place, end in ends.items()
            ]

        return self.network.call("ask for what is committed", ask, _SILENT)

    # what the consumer asks

    def open_producer(self, *_: Any) -> Producer:
        return Producer(self.letters)

    def dead_letter(self, producer: Producer, _: str, record: Record, reason: str) -> None:
        producer.letters.append((record, reason))

    def open_consumer(self, _: Any, __: str, assigned: Any, revoked: Any) -> Member:
        member = Member(self.network.scheduler.current.process, assigned, revoked)
        self.members.append(member)
        self.rebalance()
        return member

    def poll(self, member: Member, limit: int, _: float) -> list[Record]:
        self._look_after()
        self._rejoin(member)
        self._hand_over(member)
        records = self.network.call("fetch", lambda: self._fetch(member, limit), None)
        if not records:
            self.network.scheduler.sleep(IDLE_SECONDS)
        return records

    def commit(self, member: Member, offsets: Mapping[Place, int], metadata: str) -> None:
        def store() -> None:
            self._look_after()
            if member.is_expelled or any(self.wanted.get(place) is not member for place in offsets):
                raise BlockedError("another consumer owns the partitions now", "close this consumer and open one anew")
            for place, offset in offsets.items():
                self.stored(place, self.commits[place][0], offset)
                self.commits[place] = (offset, metadata)
            self.network.tell(f"commits {_short(offsets)}, route {gate.route_in(metadata)}")

        self.network.call("commit offsets", store, _LOST)

    # the coordinator

    def rebalance(self) -> None:
        """Whoever loses a partition gives it back at its next poll; then, and not before, it is another's."""
        present = [member for member in self.members if not member.is_expelled]
        self.turned += 1
        for at, place in enumerate(sorted(self.records)):
            if present:
                self.wanted[place] = present[(at + self.turned) % len(present)]

    def rewind(self, place: Place, offset: int) -> None:
        """By an operator, who sends every member away first; what Kafka's own tools commit has no metadata."""
        self.network.tell(f"=== {_short({place: offset})}: everything from here on is read again ===")
        self.commits[place] = (min(offset, self.commits[place][0]), "")
        for member in self.members:
            member.is_expelled = True
        self.members.clear()

    def _look_after(self) -> None:
        gone = [member for member in self.members if not member.is_expelled and self._is_gone(member)]
        for member in gone:
            member.is_expelled = True
            self.network.tell(f"({member.process.name} is expelled from its group)")
        if gone:
            self.members = [member for member in self.members if not member.is_expelled]
            self.rebalance()

    def _is_gone(self, member: Member) -> bool:
        now, process = self.network.scheduler.now, member.process
        if member.closed:
            return True
        if process.dead_at is not None:
            return now >= process.dead_at + SESSION_SECONDS
        since, until = process.paused
        return until - since > SESSION_SECONDS and since + SESSION_SECONDS <= now

    def _rejoin(self, member: Member) -> None:
        if not member.is_expelled:
            return
        if member.owned:
            lost = list(member.owned)
            member.owned.clear()
            member.revoked(lost)
        member.is_expelled = False
        self.members.append(member)
        member.process.paused = (0.0, 0.0)
        self.rebalance()

    def _hand_over(self, member: Member) -> None:
        if lost := [place for place in member.owned if self.wanted[place] is not member]:
            for place in lost:
                del member.owned[place]
            member.revoked(lost)
        owned = {place for other in self.members for place in other.owned}
        gained = [place for place, owner in self.wanted.items() if owner is member and place not in owned]
        if gained:
            self._assign(member, gained)

    def _assign(self, member: Member, gained: Sequence[Place]) -> None:
        known = {}
        for place in gained:
            offset, metadata = self.commits[place]
            member.owned[place] = offset
            known[place] = Committed(offset, gate.route_in(metadata))
        self.network.tell(f"owns {_short(member.owned)}")
        member.assigned(known)

    def _fetch(self, member: Member, limit: int) -> list[Record]:
        room = min(limit, 1 + self.network.scheduler.current.chance.whole(BATCH_RECORDS))
        found: list[Record] = []
        for place in sorted(member.owned):
            start = member.owned[place]
            taken = self.records[place][start : start + room - len(found)]
            found += taken
            member.owned[place] = start + len(taken)
        return found


def _short(offsets: Mapping[Place, int]) -> str:
    return ", ".join(
        f"{topic.rpartition('.')[2]}/{partition}@{offset}" for (topic, partition), offset in offsets.items()
    )
