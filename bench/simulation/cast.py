"""Who plays: the product's consumer, jobs and reader as processes, and the people who keep them busy.

Every role is a loop over the product's own entry point, just below its command line. A role that is killed is started
again, as a new process, by whoever supervises.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.simulation.chance import Stream
from bench.simulation.reading import walk
from bench.simulation.scenes import WEEKS, Speaker, Stage, bring, open_site
from bench.simulation.scheduler import Actor, Event
from bench.simulation.truth import Kind, Said
from bench.simulation.world import REGION, World, conversations
from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError, RefusedError
from core.overlay import row_of
from core.topics import topic_for
from jobs import drop, fold, maintain, move
from quality import run as quality
from schemas.events import encode
from serving import consumer

Work = Callable[[World, Stream], None]
REGIONS = (REGION,)


def moving(world: World, _: Stream) -> None:
    move.run(None, world.config, world.today, REGIONS, None, world.tell)


def folding(world: World, _: Stream) -> None:
    fold.run(None, world.config, world.today, REGIONS, None, world.tell)


def dropping(world: World, _: Stream) -> None:
    quality.run(world.config, world.today, REGIONS, None, world.tell)
    drop.run(None, world.config, world.today, REGIONS, None, True, world.tell)


def maintaining(world: World, _: Stream) -> None:
    maintain.run(world.config, world.today, REGIONS, True, world.tell)


def consuming(world: World, _: Stream) -> None:
    consumer.serve(world.config, REGION, Event(world.scheduler))  # type: ignore[arg-type]


def speaking(world: World, chance: Stream) -> None:
    """One event into the log; sent again when nobody answers."""
    speaker = Speaker(world, chance)
    said = [one for held in world.truth.said.values() for one in held if one.kind is Kind.SENT]
    weeks = world.weeks
    if not said or chance.noise() < 0.45:
        event: Any = speaker.message(weeks[chance.whole(len(weeks))])
    else:
        event = speaker.change(_recent(said, chance))
    place = (topic_for(REGION, chance.noise() < 0.5), 0)
    repeats = 2 if chance.odd("sent twice", 0.1) is not None else 1
    payload = encode(event)
    one = world.by_payload[payload]
    for _ in range(repeats):
        told = f"{one.kind} {world.name_of(one.key)} ({world.name_of_week(one.week)})"
        world.tell(told if one.kind is Kind.SENT else f"{told} by {world.names[one.event]}")
        world.network.call("produce", lambda: world.log.append(place, event.conversation_id, payload), None)


def _recent(said: Sequence[Said], chance: Stream) -> Said:
    """Any message; those of weeks that move more often than others."""
    moving_ones = [one for one in said if one.week != WEEKS[Stage.YOUNG]]
    chosen = moving_ones if moving_ones and chance.noise() < 0.8 else said
    return chosen[chance.whole(len(chosen))]


def importing(world: World, chance: Stream) -> None:
    """Old history into weeks that lie below Cassandra; where one does not, it would go through Kafka."""
    old = sorted({week for week in world.weeks if week <= WEEKS[Stage.COLD]})
    week = old[chance.whole(len(old))]
    speaker = Speaker(world, chance)
    sent = [speaker.message(week) for _ in range(1 + chance.whole(3))]
    said = [one for message in sent for one in world.truth.said[message.conversation_id, message.message_id]]
    where = open_site(world)
    by_slice: dict[int, list[Any]] = {}
    for message in sent:
        by_slice.setdefault(world.slice_of(message.conversation_id), []).append(row_of(message))
    for slice_, rows in by_slice.items():
        name = f"import{world.drawn}"
        world.tell(f"imports {len(rows)} messages into {world.name_of_week(week)}")
        bring(where, world, (week, slice_), rows, said, name)


def reading(world: World, chance: Stream) -> None:
    """Any conversation; those that have something in the lane more often than others."""
    held = conversations()
    lane = world.cluster.nodes[0][f"{REGION}_hot.lane"].values()
    waiting = sorted({row.keys["conversation_id"].bytes for part in lane for row in part.values() if row.is_live})
    chosen = waiting if waiting and chance.noise() < 0.6 else held
    walk(world, chance, chosen[chance.whole(len(chosen))])


@dataclass(frozen=True)
class Role:
    """`rest`: seconds between two goes, at most. `goes`: how often; 0: as long as the turmoil lasts, or for ever."""

    name: str
    work: Work
    rest: float
    goes: int = 0
    is_endless: bool = False


@dataclass
class Part:
    """A role as one process after another plays it."""

    world: World
    role: Role
    actors: list[Actor] = field(default_factory=list)

    def start(self, after: float = 0.0) -> None:
        name = self.role.name + "'" * len(self.actors)
        stream = self.world.chance.stream(name)
        process = self.world.process(name)
        actor = self.world.scheduler.spawn(name, process, stream, lambda: self._play(stream), after)
        self.actors.append(actor)

    @property
    def actor(self) -> Actor:
        return self.actors[-1]

    @property
    def was_killed(self) -> bool:
        return self.actor.process.dead_at is not None

    def _play(self, chance: Stream) -> None:
        world, role = self.world, self.role
        gone = 0
        while (world.is_turmoil or role.is_endless) and (not role.goes or gone < role.goes):
            world.scheduler.sleep(role.rest * chance.noise())
            if world.is_turmoil or role.is_endless:
                played(world, role.name, lambda: role.work(world, chance))
            gone += 1


def played(world: World, name: str, work: Callable[[], None]) -> FirnError | None:
    """What nobody could help is no fault; damage is one unless something has rotted, and a refusal always is."""
    try:
        work()
    except (BlockedError, OutcomeUnknownError) as fault:
        world.tell(f"ends: {fault.what}")
        return fault
    except DamagedError as fault:
        world.tell(f"ends as damaged: {fault.what}")
        if not world.has_rotted:
            world.breaks("nothing is damaged by itself", f"{name}: {fault.what}")
        return fault
    except RefusedError as fault:
        world.tell(f"ends as refused: {fault.what}")
        # A lost executor wrote under the name that its retry has too. The next go has another name.
        if not fault.what.endswith("already exists"):
            world.breaks("a right request is not refused", f"{name}: {fault.what}")
        return fault
    return None
