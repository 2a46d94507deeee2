"""One history: a scene, a turmoil, a calm in which everything must come to rest, and the last judgement."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from bench.simulation import cast, stage
from bench.simulation.cast import Part, Role, played
from bench.simulation.chance import Stream
from bench.simulation.cluster import NODES
from bench.simulation.laws import Laws
from bench.simulation.network import Weather
from bench.simulation.reading import walk
from bench.simulation.scenes import CHOICES, Speaker, prepare
from bench.simulation.scheduler import DeadlockError
from bench.simulation.truth import lacking
from bench.simulation.world import REGION, Plan, World, configured, conversations

TURMOIL_SECONDS = 90.0
ROUNDS_MAX = 14
TICK_SECONDS = 1.5
RESTART_SECONDS = 3.0
PATIENCE_SECONDS = 150.0
# Where it may matter most that others go on meanwhile.
_SPOTS = (
    *("read us_hot.lane", "scan us_hot.lane", "write us_hot.lane", "write us_hot.messages", "write us_warm"),
    *("read us_meta.moves", "change us_meta.moves", "read us_meta.pointers", "change us_meta.pointers"),
    *("load ", "commit ", "put ", "get ", "drop ", "scan us_hot.messages", "scan us_warm", "change us_meta.frozen"),
    *("load ", "load ", "commit ", "commit ", "commit "),
    *("read us_meta.routes", "ask for", "fetch", "read us_meta.leases", "read us_meta.runs", "delete "),
)


@dataclass(frozen=True)
class Outcome:
    """`violation` is empty where every law held. `happened`: the odd things, by name."""

    plan: Plan
    violation: str
    steps: int
    seconds: float
    happened: dict[str, str] = field(default_factory=dict)
    story: Sequence[tuple[float, str, str]] = ()


def run(plan: Plan) -> Outcome:
    """The seams must be installed."""
    world = _world(plan)
    laws = Laws(world)
    stage.enter(world)
    try:
        _played_out(world, laws)
    except DeadlockError:
        world.breaks("nobody waits for ever", "everybody does")
    finally:
        world.scheduler.close()
        stage.leave()
    scheduler = world.scheduler
    return Outcome(plan, world.broken, scheduler.steps, scheduler.now, dict(world.chance.happened), tuple(world.story))


def _world(plan: Plan) -> World:
    chance = World(plan, configured(1, 1, 400), Weather()).chance.stream("scene")
    slices = 2 if chance.noise() < 0.25 else 1
    config = configured(slices, 1 + chance.whole(2), (150, 400, 100_000)[chance.whole(3)])
    return World(plan, config, _weather(chance))


def _weather(chance: Stream) -> Weather:
    """Each kind of fault in some histories only, so that none hides another."""

    def rate(share: float, most: float) -> float:
        is_on, how_often = chance.noise() < share, chance.noise()
        return most * how_often if is_on else 0.0

    return Weather(
        pause=rate(0.7, 0.012),
        kill=rate(0.5, 0.006),
        lost_request=rate(0.4, 0.03),
        lost_reply=rate(0.5, 0.03),
        failed_read=rate(0.3, 0.02),
        straggler=rate(0.3, 0.03),
        missed_replica=rate(0.3, 0.2),
        half_batch=rate(0.3, 0.03),
        lost_executor=rate(0.3, 0.15),
        rot=rate(0.15, 0.15),
        spots=tuple(_SPOTS[chance.whole(len(_SPOTS))] for _ in range(2)),
        spot=rate(0.7, 0.25),
        late_commit=rate(0.35, 0.5),  # there are far fewer commits than other writes
    )


def _played_out(world: World, laws: Laws) -> None:
    chance = world.scheduler.director.chance
    world.chance.is_calm = True
    prepare(world, CHOICES[chance.whole(len(CHOICES))], Speaker(world, chance))
    world.chance.is_calm = False
    parts = [Part(world, role) for role in _roles(chance)]
    for part in parts:
        part.start(2.0 * chance.noise())
    _turmoil(world, parts, chance)
    world.is_turmoil = False
    world.chance.is_calm = True
    world.tell("--- the faults stop ---")
    _wind_down(world, parts)
    if not world.broken:
        _come_to_rest(world)
    if not world.broken:
        _last_judgement(world, laws)


def _roles(chance: Stream) -> list[Role]:
    roles = [
        Role("consumer.1", cast.consuming, 1.0, is_endless=True),
        Role("mover.1", cast.moving, 12.0),
        Role("folder.1", cast.folding, 15.0),
        Role("dropper.1", cast.dropping, 12.0),
        Role("person", cast.speaking, 10.0),
        *(Role(f"reader.{number}", cast.reading, 6.0) for number in range(1, 3)),
    ]
    some = (
        (0.6, Role("consumer.2", cast.consuming, 1.0, is_endless=True)),
        (0.6, Role("mover.2", cast.moving, 12.0)),
        (0.3, Role("folder.2", cast.folding, 15.0)),
        (0.3, Role("dropper.2", cast.dropping, 12.0)),
        (0.3, Role("importer", cast.importing, 25.0, goes=2)),
        (0.3, Role("maintainer", cast.maintaining, 30.0)),
        (0.4, Role("person.2", cast.speaking, 10.0)),
    )
    return roles + [role for share, role in some if chance.noise() < share]


def _turmoil(world: World, parts: Sequence[Part], chance: Stream) -> None:
    until = world.scheduler.now + TURMOIL_SECONDS * (0.5 + 0.5 * chance.noise())
    node_down_at = until * chance.noise() if chance.noise() < 0.3 else None
    operator = world.chance.stream("operator")
    rewind_at = until * operator.noise() if operator.noise() < 0.25 else None
    while world.scheduler.now < until and not world.broken:
        world.scheduler.sleep(TICK_SECONDS)
        if rewind_at is not None and world.scheduler.now > rewind_at:
            rewind_at = None
            place = sorted(world.log.records)[operator.whole(len(world.log.records))]
            world.log.rewind(place, operator.whole(world.log.committed_offset(place) + 1))
        if chance.noise() < 0.12:
            world.today += timedelta(days=(1, 2, 2, 24)[chance.whole(4)])
            world.tell(f"=== it is {world.today:%Y-%m-%d} now ===")
        if node_down_at is not None and world.scheduler.now > node_down_at:
            world.cluster.down = None if world.cluster.down is not None else chance.whole(3)
            world.tell(f"=== replica {world.cluster.down} is down ===")
            node_down_at = world.scheduler.now + 30.0 if world.cluster.down is not None else None
        _supervise(world, parts)


def _supervise(world: World, parts: Sequence[Part]) -> None:
    for part in parts:
        _require_sane(world, part)
        if part.was_killed or (part.actor.is_done and not part.role.goes):
            part.start(RESTART_SECONDS)


def _require_sane(world: World, part: Part) -> None:
    if fault := part.actor.error:
        world.breaks("nobody fails in a way nobody knows", f"{part.actor.name}: {type(fault).__name__}: {fault}")


def _wind_down(world: World, parts: Sequence[Part]) -> None:
    """Those under way end; those who stood still go on, and find that the world has changed."""
    world.cluster.down = None
    consumers = [part for part in parts if part.role.work is cast.consuming]
    for part in consumers:
        if part.was_killed or part.actor.is_done:
            part.start()
    until = world.scheduler.now + PATIENCE_SECONDS
    for part in parts:
        for actor in part.actors if part not in consumers else ():
            while not actor.is_done and actor.process.dead_at is None and world.scheduler.now < until:
                world.scheduler.join(actor, 5.0)
        _require_sane(world, part)
    while _unread(world) and world.scheduler.now < until:
        world.scheduler.sleep(TICK_SECONDS)


def _unread(world: World) -> list[Any]:
    return [place for place, held in world.log.records.items() if world.log.committed_offset(place) < len(held)]


def _come_to_rest(world: World) -> None:
    """Judge, drop, move, fold, day by day, until a day changes nothing."""
    faults: list[Any] = []
    for _ in range(ROUNDS_MAX):
        world.today += timedelta(days=2)
        world.tell(f"=== it is {world.today:%Y-%m-%d} now ===")
        world.scheduler.sleep(4.0)
        before = _standing(world)
        jobs = (cast.dropping, cast.moving, cast.folding)
        chance = world.scheduler.director.chance
        faults = [played(world, job.__name__, partial(job, world, chance)) for job in jobs]
        if world.broken:
            return
        if before == _standing(world) and not any(faults):
            return
    why = next((fault.what for fault in faults if fault), "something changes every day")
    world.breaks("everything comes to rest", why)


def _standing(world: World) -> Any:
    """What a day might change."""
    units = [(row.keys["week"], row.keys["slice"], row.value("state"), row.value("sink"), row.value("generation"))
             for row in world.cluster.rows(f"{REGION}_meta.moves")]  # fmt: skip
    runs = [row.value("folded") for row in world.cluster.rows(f"{REGION}_meta.runs")]
    lane = [row.is_live for held in world.cluster.nodes[0][f"{REGION}_hot.lane"].values() for row in held.values()]
    ends = [world.log.committed_offset(place) - len(held) for place, held in world.log.records.items()]
    return units, runs, lane, ends


def _last_judgement(world: World, laws: Laws) -> None:
    """All that was said is there, nothing else is, and readers see just that."""
    unread = _unread(world)
    unfolded = [row.keys["name"] for row in world.cluster.rows(f"{REGION}_meta.runs") if not row.value("folded")]
    if unread or unfolded or world.log.letters:
        world.breaks("everything is taken in", f"{unread or unfolded or world.log.letters} is not")
        return
    for week, wanted in world.truth.possible.items():
        for key, what in lacking(wanted, laws.found(week, NODES)):
            world.breaks("nothing invented", f"{what} of {world.names.get(key[1], key[1].hex())}")
            return
        laws.readable(week)
    for conversation in conversations():
        _read_whole(world, conversation)


def _read_whole(world: World, conversation: bytes) -> None:
    shown = walk(world, world.scheduler.director.chance, conversation, is_calm=True)
    must = world.truth.snapshot(conversation)
    wanted = {key[1] for key, known in must.items() if known.is_sent and not known.is_deleted}
    if shown.keys() != wanted and not world.broken:
        name = world.conversation_name(conversation)
        world.breaks("readers see all, and nothing else", f"{len(shown)} of {len(wanted)} messages of {name}")
