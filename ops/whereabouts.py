"""Where the rows of one conversation's week may lie, by what the stores say: tables, row groups of files, the lane.

`gather` asks the stores, whatever state the unit is in; `places_of` judges what they said, and is pure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from core import lifecycle, moves, ring
from core.errors import BlockedError, DamagedError, FirnError, RefusedError
from core.gate import PartitionState
from core.ledger import FrozenFile, Lease, Part, Pointer, Run, TableState, Verdict, WeekTable, lease_name
from core.moves import COLD_FROZEN, State, Unit, born_cold
from core.tiers import Tier
from jobs import drop
from jobs.freezing import why_not_freeze
from jobs.thawing import why_not_begin
from jobs.verdicts import why_not_judged
from lakehouse.index import ColdIndex, find, load_index
from lakehouse.paths import HOMES, table_root
from lakehouse.publish import files_of, parts_of, require_logged
from lakehouse.restore import Waiting, waiting
from lakehouse.site import Site
from ops.status import mover
from stores import kafka, messages
from stores.cassandra import MissingTableError
from stores.objects import NotFoundError

_TRIES = 5


@dataclass(frozen=True)
class Facts:
    """What the stores say of one unit and of one conversation in it.

    `unit` None: the ledger has none. `weeks`: those that hold anything of the conversation. `tables` are the week's in
    the ledger, `standing` the tables that really are there. `cold` and `frozen` hold the unit's rows now; `index` and
    `waiting`, by key, are of the conversation's files alone. What a job's rule says is None or empty where that rule
    is not asked: `kept` by the planner of freezes, `waits` by a thaw, `threat` by a rule of the bucket, `drift` by
    columns that are not ours, `unjudged` by the quality gate, `others` by units of the same week that hold a drop up;
    `unlogged` is what is wrong with the table log that a drop would leave readers with.
    `positions` are asked for where the unit waits for a gate. `away` tells of a store that does not answer, or of a
    replica that a drop needs; `unseen`: for that reason tables and files were not looked at.
    """

    region: str
    week: int
    slice: int
    slices: int = 1
    tables_ahead_weeks: int = 2
    weeks: tuple[int, ...] = ()
    first_week: int | None = None
    unit: Unit | None = None
    lease: Lease | None = None
    route: int = 0
    tables: tuple[WeekTable, ...] = ()
    standing: frozenset[str] = frozenset()
    parts: tuple[Part, ...] = ()
    cold: tuple[Pointer, ...] = ()
    frozen: tuple[FrozenFile, ...] = ()
    index: Mapping[str, ColdIndex | FirnError] = field(default_factory=dict)
    waiting: Mapping[str, Waiting | FirnError] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    lane_events: int = 0
    is_lane_empty: bool = True
    verdict: Verdict | None = None
    positions: tuple[PartitionState, ...] | FirnError = ()
    kept: str | None = None
    waits: str | None = None
    threat: str | None = None
    drift: str | None = None
    unjudged: str | None = None
    unlogged: FirnError | None = None
    others: tuple[str, ...] = ()
    away: str = ""
    unseen: bool = False

    @property
    def has_gathered(self) -> bool:
        """Whether anything waits to be folded."""
        return bool(self.runs) or not self.is_lane_empty


@dataclass(frozen=True)
class Place:
    """A table or file that may hold rows of the conversation. Of a file: the row groups that may, where their bytes
    lie, and all rows in them; a conversation that is in none has no `groups`. `fault`: why it cannot be read."""

    tier: Tier
    name: str
    size_bytes: int | None = None
    groups: tuple[int, ...] = ()
    offset: int = 0
    length_bytes: int = 0
    rows: int = 0
    generation: int | None = None
    storage_class: str = ""
    restore_state: str = ""
    restore: str = ""
    fault: str = ""
    has_no_pointer: bool = False


def awaits_gate(unit: Unit) -> bool:
    """Whether all writers must have obeyed a routing change before the unit can go on."""
    if unit.state is State.SEALED:
        return moves.seal_reroutes(unit.move)
    return unit.state is State.SWITCHED and not unit.settled and moves.reroutes(unit.move)


def awaits_drop(unit: Unit) -> bool:
    return unit.state is State.SWITCHED and unit.settled


@dataclass(frozen=True)
class Known:
    """What is asked once for all weeks of a conversation: which they are, and what is the region's."""

    weeks: tuple[int, ...]
    first_week: int | None
    route: int
    tables: tuple[WeekTable, ...]


def known_of(site: Site, conversation_weeks: Sequence[int]) -> Known:
    ledger = site.ledger
    return Known(tuple(conversation_weeks), ledger.first_week(), ledger.route(), tuple(ledger.tables()))


def gather(site: Site, conversation_id: bytes, week: int, now: datetime, known: Known) -> Facts:
    """Asked anew when the unit went on meanwhile: a table that was dropped in between must not look like one that is
    missing."""
    slice_ = ring.part_of(ring.token(conversation_id), site.config.layout.slices)
    for _ in range(_TRIES):
        facts = _gathered(site, conversation_id, week, slice_, now, known)
        if site.ledger.unit(week, slice_) == facts.unit:
            break
    return facts


def _gathered(site: Site, conversation_id: bytes, week: int, slice_: int, now: datetime, known: Known) -> Facts:
    ledger, layout = site.ledger, site.config.layout
    unit = ledger.unit(week, slice_)
    facts = Facts(
        site.region,
        week,
        slice_,
        layout.slices,
        layout.tables_ahead_weeks,
        known.weeks,
        known.first_week,
        unit,
        ledger.lease(lease_name(unit or born_cold(site.region, week, slice_))),
        known.route,
        tuple(table for table in known.tables if table.week == week),
        runs=tuple(run for run in ledger.runs(week, slice_) if not run.folded),
        lane_events=len(site.lane.read(week, conversation_id)),
        is_lane_empty=site.lane.is_empty(week, ring.cut(slice_, layout.slices)),
        verdict=ledger.verdict(week, slice_),
    )
    return _looked_at(site, facts, unit, conversation_id, now) if unit else facts


def _looked_at(site: Site, facts: Facts, unit: Unit, conversation_id: bytes, now: datetime) -> Facts:
    """The ledger answers, or nothing could be told; what else is away is told, with the step that it keeps."""
    try:
        facts = _with_files(site, facts, unit, conversation_id)
    except BlockedError as fault:
        return replace(facts, away=fault.what, unseen=True)
    try:
        facts = _ruled(site, facts, unit, now)
        _require_ends(site, unit)
        if awaits_drop(unit) and unit.move.sink.is_cql:
            messages.require_all(site.database(unit.move.sink), site.region, unit.move.sink, unit.week, conversation_id)
    except MissingTableError:
        return facts  # it is told as a table that is missing
    except BlockedError as fault:
        return replace(facts, away=fault.what)
    return facts


def _require_ends(site: Site, unit: Unit) -> None:
    """BlockedError while an end of a move under way does not answer."""
    if unit.state not in (State.OPEN, State.DROPPED):
        for tier in (one for one in (unit.move.source, unit.move.sink) if one.is_cql):
            messages.existing_tables(site.database(tier), site.region, tier)


def _with_files(site: Site, facts: Facts, unit: Unit, conversation_id: bytes) -> Facts:
    token, slices = ring.token(conversation_id), facts.slices
    cold, frozen = files_of(site, unit)
    mine = [file for file in frozen if token in file.range(slices)]
    keys = [f"{table_root(unit.slice)}/{one.path}" for one in cold if token in one.range(slices)]
    keys += [file.path for file in mine]
    return replace(
        facts,
        standing=_standing(site, unit),
        parts=() if unit.state in (State.OPEN, State.SEALED, State.DROPPED) else tuple(parts_of(site, unit)),
        cold=tuple(cold),
        frozen=tuple(frozen),
        index={key: _index(site, key) for key in keys},
        waiting={file.path: _waiting(site, file) for file in mine},
    )


def _standing(site: Site, unit: Unit) -> frozenset[str]:
    tiers = [tier for tier in moves.readers(unit) if tier.is_cql]
    return frozenset(
        f"{messages.keyspace(site.region, tier)}.{name}"
        for tier in tiers
        for name in messages.existing_tables(site.database(tier), site.region, tier)
        if name in messages.table_names(unit.week)
    )


def _index(site: Site, key: str) -> ColdIndex | FirnError:
    try:
        return load_index(site.objects, key)
    except (DamagedError, NotFoundError) as fault:
        return fault


def _waiting(site: Site, file: FrozenFile) -> Waiting | FirnError:
    try:
        return waiting(site.objects, [file])
    except DamagedError as fault:
        return fault


def _ruled(site: Site, facts: Facts, unit: Unit, now: datetime) -> Facts:
    """With what the jobs' own rules say, where they are asked next."""
    following = mover(unit)
    facts = _guarded(site, facts, following, now)
    if (following.move, following.state) == (COLD_FROZEN, State.OPEN):
        is_due = moves.is_due(following, now, site.config.tiers)
        return replace(facts, kept=why_not_freeze(site, following)) if is_due else facts
    if awaits_gate(unit):
        return replace(facts, positions=_positions(site))
    if awaits_drop(unit):
        is_judged = unit.move.sink is Tier.COLD or bool(unit.move.source is Tier.COLD and facts.cold)
        unjudged = why_not_judged(site, unit) if is_judged else None
        others = _others(site, unit, now)
        is_next = not (unjudged or others or moves.why_not_drop(unit, now, site.config.tiers))
        return replace(facts, unjudged=unjudged, others=others, unlogged=_unlogged(site, unit) if is_next else None)
    return facts


def _unlogged(site: Site, unit: Unit) -> FirnError | None:
    """Asked when nothing else keeps the drop: all of a table's log is read for it."""
    try:
        require_logged(site, unit)
    except (DamagedError, RefusedError) as fault:  # refused: there is no table at all
        return fault
    return None


def _guarded(site: Site, facts: Facts, unit: Unit, now: datetime) -> Facts:
    """What a seal, a fold or a drop asks before it begins."""
    if unit.state is State.OPEN and not moves.is_due(unit, now, site.config.tiers) and not facts.has_gathered:
        return facts
    rules = [] if unit.move.sink.is_cql else lifecycle.threats(site.objects.lifecycle(), HOMES)
    facts = replace(facts, threat=lifecycle.sentence(rules[0]) if rules else None)
    if unit.state is not State.OPEN:
        return facts
    live = {table.tier for table in facts.tables if table.state is TableState.LIVE}
    ends = [tier for tier in (unit.move.source, unit.move.sink) if tier.is_cql and tier in live]
    drift = [how for tier in ends for how in messages.drift(site.database(tier), site.region, tier, unit.week)]
    return replace(facts, drift=drift[0] if drift else None, waits=why_not_begin(site, unit, now))


def _positions(site: Site) -> tuple[PartitionState, ...] | FirnError:
    try:
        return tuple(kafka.positions(site.config.kafka, site.region))
    except BlockedError as fault:
        return fault


def _others(site: Site, unit: Unit, now: datetime) -> tuple[str, ...]:
    """A week's tables go whole, so its other slices must be free to go, too."""
    found = [week for week in drop.candidates(site, [unit.week]) if week.table.tier is unit.move.source]
    reasons = [why for week in found for why in drop.why_not(site, week, now)]
    return tuple(why for why in reasons if not why.startswith((f"{unit.name} ", f"{unit.name}:")))


def places_of(facts: Facts, token: int, conversation_id: bytes) -> Iterator[Place]:
    """In the order in which a reader looks there; the lane comes after the first."""
    if facts.unit is None or facts.unseen:
        return
    for tier in moves.readers(facts.unit):
        match tier:
            case Tier.COLD:
                yield from _cold_place(facts, facts.unit, token, conversation_id)
            case Tier.FROZEN:
                mine = [file for file in facts.frozen if token in file.range(facts.slices)]
                yield from (_frozen_place(facts, file, conversation_id) for file in mine)
            case _:
                yield from _table_place(facts, facts.unit, tier)


def _table_place(facts: Facts, unit: Unit, tier: Tier) -> Iterator[Place]:
    name = f"{messages.keyspace(facts.region, tier)}.{messages.table_names(facts.week)[0]}"
    if name in facts.standing:
        yield Place(tier, name)
    elif unit.state is not State.SWITCHED or tier is not unit.move.source:
        yield Place(tier, name, fault=f"table {name} is missing: restore it from a backup or from Kafka")


def _cold_place(facts: Facts, unit: Unit, token: int, conversation_id: bytes) -> Iterator[Place]:
    """Of a frozen unit only some shards have a supplement; any other unit has a file in each, once it has N."""
    pointer = next((one for one in facts.cold if token in one.range(facts.slices)), None)
    if pointer:
        key = f"{table_root(unit.slice)}/{pointer.path}"
        yield _indexed(facts, Place(Tier.COLD, key, pointer.size_bytes), conversation_id)
    elif unit.shards and not unit.generation:
        fault = f"no pointer leads to a file of {unit.name}: fold and maintain bring pointers up to the Delta log"
        yield Place(Tier.COLD, table_root(unit.slice), fault=fault, has_no_pointer=True)


def _frozen_place(facts: Facts, file: FrozenFile, conversation_id: bytes) -> Place:
    place = Place(Tier.FROZEN, file.path, file.size_bytes, generation=file.generation, storage_class=file.storage_class)
    found = facts.waiting[file.path]
    if isinstance(found, FirnError):
        return replace(place, fault=f"{found.what}: {found.do}")
    return _indexed(facts, replace(place, restore_state=found.state, restore=found.sentence), conversation_id)


def _indexed(facts: Facts, place: Place, conversation_id: bytes) -> Place:
    index = facts.index[place.name]
    if isinstance(index, FirnError):
        return replace(place, fault=f"{index.what}: {index.do}")
    numbers = tuple(find(index, conversation_id))
    held = [index.groups[number] for number in numbers]
    if not held:
        return place
    length = held[-1].offset + held[-1].length - held[0].offset
    return replace(
        place, groups=numbers, offset=held[0].offset, length_bytes=length, rows=sum(group.rows for group in held)
    )
