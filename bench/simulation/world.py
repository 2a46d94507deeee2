"""Everything that one history has: stores, log, clocks, what was said, and the calendar that jobs go by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from bench.simulation.bucket import Lake, SimulatedObjects
from bench.simulation.chance import Chance
from bench.simulation.cluster import Cluster, ordered
from bench.simulation.database import SimulatedDatabase
from bench.simulation.log import Log
from bench.simulation.network import Network, Weather
from bench.simulation.scheduler import Process, Scheduler
from bench.simulation.truth import Key, Kind, Said, Truth
from bench.simulation.watch import Watch
from core import ids, ring, settings, weeks
from schemas.events import Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet, encode
from stores.cassandra import Databases

REGION = "us"
TODAY = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
CONVERSATIONS = 4
_WRAPPING_KEY = settings.Secret("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")


@dataclass(frozen=True)
class Plan:
    """What a history is made from; the same plan gives the same history."""

    seed: int
    control: str = ""
    only: frozenset[str] | None = None
    is_told: bool = False


def configured(slices: int, copy_shards: int, shard_bytes: int) -> settings.Settings:
    layout = settings.Layout(slices, 2, copy_shards, shard_bytes, 800_000, 2)
    clocks = settings.Clocks(ledger_age_seconds=2.0, longest_read_seconds=5.0, lease_seconds=10.0, gate_seconds=25.0)
    return settings.Settings(
        regions=(REGION,),
        layout=layout,
        clocks=clocks,
        objects=settings.Objects(url="file:simulated"),
        frozen=settings.Frozen(text_class="GLACIER_IR"),
        vault=settings.Vault(_WRAPPING_KEY),
        maintenance=settings.Maintenance(checkpoint_commits=0),
    )


@cache
def conversations() -> tuple[bytes, ...]:
    """One in each quarter of the ring."""
    found: dict[int, bytes] = {}
    at = 0
    while len(found) < CONVERSATIONS:
        made = ids.conversation_uuid("simulated", str(at))
        found.setdefault(ring.part_of(ring.token(made), CONVERSATIONS), made)
        at += 1
    return tuple(found[part] for part in sorted(found))


@dataclass
class World:
    plan: Plan
    config: settings.Settings
    weather: Weather
    region: str = REGION
    today: datetime = TODAY
    is_turmoil: bool = True
    has_rotted: bool = False
    broken: str = ""
    story: list[tuple[float, str, str]] = field(default_factory=list)
    truth: Truth = field(default_factory=Truth)
    by_payload: dict[bytes, Said] = field(default_factory=dict)
    runs: dict[str, list[Said]] = field(default_factory=dict)
    names: dict[bytes, str] = field(default_factory=dict)
    drawn: int = 0
    weeks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = Chance(self.plan.seed, self.plan.only)
        self.scheduler = Scheduler(self.chance.stream("director"))
        self.network = Network(self.scheduler, self.weather, self.tell)
        self.watch = Watch(looked=self._looked, rotted=self._rotted)
        self.cluster = Cluster()
        self.log = Log(self.network, REGION, 1, self.unix_ms, self.committed)
        self.objects = SimulatedObjects(self.network, self.wall_clock, self.watch)
        self.lake = Lake(self.objects, self.watch)
        hot, warm = (SimulatedDatabase(self.cluster, self.network, self.watch, name) for name in ("hot", "warm"))
        self.databases: Any = Databases(hot, lambda: warm)  # type: ignore[arg-type, return-value]

    @property
    def slices(self) -> int:
        return self.config.layout.slices

    # time

    def wall_clock(self) -> datetime:
        return TODAY + timedelta(seconds=self.scheduler.now)

    def unix_ms(self) -> int:
        """The log's own: in step with the calendar, so that nobody seems to be ahead of it."""
        return int((self.today + timedelta(days=400)).timestamp() * 1000)

    def process(self, name: str) -> Process:
        skew = self.chance.stream(f"{name}/clock").noise() * 6.0 - 3.0
        return Process(name, skew)

    # what happens

    def tell(self, text: str) -> None:
        """The story ends where a law is broken."""
        if self.plan.is_told and not self.broken:
            self.story.append((self.scheduler.now, self.scheduler.current.name, text))

    def breaks(self, law: str, how: str) -> None:
        """The first time ends the history."""
        if not self.broken:
            self.tell(f"*** {law}: {how}")
            self.broken = f"{law}: {how}"

    def _looked(self, lease: str) -> None:
        process = self.scheduler.current.process
        process.looked_at[lease] = self.scheduler.now
        process.has_just_looked = True

    def _rotted(self) -> None:
        self.has_rotted = True

    def committed(self, place: Any, before: int, after: int) -> None:
        newly = [self.by_payload[record.value] for record in self.log.records[place][before:after]]
        for said in newly:
            self.truth.keep(said)
        for week in sorted({said.week for said in newly}):
            self.watch.kept(week)

    def imported(self, run: str) -> None:
        for said in self.runs[run]:
            self.truth.keep(said)

    def fresh_id(self, week: int, hour: int) -> bytes:
        """Unique in its microsecond; of that week."""
        self.drawn += 1
        at = weeks.start(week) + timedelta(hours=hour)
        return ids.compose((at - ids.UNIX_EPOCH) // timedelta(microseconds=1) + self.drawn, 0, self.drawn % 100)

    def say(self, event: Event, week: int) -> Said:
        """Known from now on as something that was said; it is nowhere yet."""
        value = event.body if isinstance(event, MessageSent | MessageEdited) else getattr(event, "reaction", None)
        place = (event.conversation_id, week, event.message_id)
        said = Said(_KINDS[type(event)], *place, event.event_id, event.user_id, value)
        self.by_payload[encode(event)] = said
        self.truth.say(said)
        letter = {Kind.SENT: "m", Kind.EDITED: "e", Kind.DELETED: "d", Kind.REACTED: "r"}[said.kind]
        self.names[said.event] = f"{letter}{len(self.names) + 1}"
        return said

    # who is who, in words and numbers

    def unit(self, week: int, slice_: int) -> dict[str, Any] | None:
        row = self.cluster.row(f"{REGION}_meta.moves", REGION, week, slice_)
        return {column: value for column, (_, value) in row.cells.items()} if row else None

    def token(self, conversation: bytes) -> int:
        return _token(conversation)

    def slice_of(self, conversation: bytes) -> int:
        return (_token(conversation) + 2**63 - 1) * self.slices >> 64

    def name_of(self, key: Key) -> str:
        return f"{self.names.get(key[1], key[1].hex())} of {self.conversation_name(key[0])}"

    def event_name(self, keys: Mapping[str, Any]) -> str:
        return self.names.get(ordered(keys["event_id"]), "?")

    def name_of_week(self, week: int) -> str:
        return weeks.label(week)

    def conversation_name(self, conversation: bytes) -> str:
        return f"c{conversations().index(conversation) + 1}"


_KINDS: dict[type[Event], Kind] = {
    MessageSent: Kind.SENT,
    MessageEdited: Kind.EDITED,
    MessageDeleted: Kind.DELETED,
    ReactionSet: Kind.REACTED,
}


@cache
def _token(conversation: bytes) -> int:
    return ring.token(conversation)
