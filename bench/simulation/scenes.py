"""How a history begins: which weeks there are, in which tier each lies, and what was said in them so far.

Made by the product's own verbs, in a calm that ends before the history begins.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from bench.simulation.chance import Stream
from bench.simulation.truth import Said
from bench.simulation.world import REGION, TODAY, World, conversations
from core import ids, weeks
from core.digest import of_rows
from core.ledger import Part, TableState, WeekTable
from core.moves import HOT_WARM, WARM_COLD, State, Unit
from core.overlay import Row, merge_all, row_of
from core.tiers import Tier
from jobs import drop, fold, move
from jobs.imports import landing
from lakehouse.site import Site, site
from quality import run as quality
from schemas.events import Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet
from stores import conversations as known
from stores import messages

CURRENT = weeks.of_instant(TODAY)
GENERATION = 1


class Stage(StrEnum):
    """Where a week lies when the curtain rises; all but `YOUNG` are due for the next tier."""

    YOUNG = "young"
    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    FROZEN = "frozen"
    UNBORN = "unborn"


WEEKS = {
    Stage.YOUNG: CURRENT,
    Stage.HOT: CURRENT - 2,
    Stage.WARM: CURRENT - 7,
    Stage.COLD: CURRENT - 60,
    Stage.FROZEN: CURRENT - 70,
    Stage.UNBORN: CURRENT - 80,
}
CHOICES = (
    (Stage.HOT,),
    (Stage.WARM,),
    (Stage.COLD,),
    (Stage.FROZEN,),
    (Stage.UNBORN,),
    (Stage.HOT, Stage.WARM),
    (Stage.HOT, Stage.COLD),
    (Stage.WARM, Stage.UNBORN),
)


@dataclass(frozen=True)
class Speaker:
    """Makes events; what is said is known to the truth from then on."""

    world: World
    chance: Stream
    people: int = 4

    def message(self, week: int) -> MessageSent:
        message_id = self.world.fresh_id(week, self.chance.whole(160))
        at = ids.instant(message_id)
        sent = MessageSent(
            self._conversation(),
            message_id,
            sender_id=1 + self.chance.whole(self.people),
            message_type=0,
            body=f"said {self.world.drawn}".encode(),
            media_ref=None,
            reply_to=None,
            preview=None,
            server_ts=at.replace(microsecond=at.microsecond // 1000 * 1000),
        )
        self.world.say(sent, week)
        return sent

    def change(self, said: Said) -> Event:
        """An edit, a deletion or a reaction."""
        event_id = self.world.fresh_id(CURRENT, self.chance.whole(160))
        user = 1 + self.chance.whole(self.people)
        place = (said.conversation, said.message, event_id)
        draw = self.chance.noise()
        value = f"changed {self.world.drawn}".encode()
        event: Event
        if draw < 0.45:
            event = MessageEdited(*place, user, value)
        elif draw < 0.6:
            event = MessageDeleted(*place, user)
        else:
            event = ReactionSet(*place, user, value if draw < 0.85 else None)
        self.world.say(event, said.week)
        return event

    def _conversation(self) -> bytes:
        known_ones = conversations()
        return known_ones[self.chance.whole(len(known_ones))]


def open_site(world: World) -> Site:
    return site(world.config, REGION, world.databases)


def prepare(world: World, stages: Iterable[Stage], speaker: Speaker) -> None:
    where = open_site(world)
    world.cluster.create(f"{REGION}_hot.lane")
    world.cluster.create(f"{REGION}_hot.conversation_weeks")
    where.ledger.begin(CURRENT - 7)
    played = (Stage.YOUNG, *stages)
    world.weeks = [WEEKS[stage] for stage in (*played, *played, Stage.UNBORN)]
    for stage in played:
        rows = _rows_said(world, WEEKS[stage], speaker) if stage is not Stage.UNBORN else []
        _LIE[stage](where, world, WEEKS[stage], rows)
        for said in (said for row in rows for said in world.truth.said[row.key]):
            world.truth.keep(said)
    where.ledger.next_route()


def _rows_said(world: World, week: int, speaker: Speaker) -> list[Row]:
    """Some messages, some of them changed."""
    sent = [speaker.message(week) for _ in range(3 + speaker.chance.whole(5))]
    said = [world.truth.said[message.conversation_id, message.message_id][0] for message in sent]
    changes = [speaker.change(said[speaker.chance.whole(len(said))]) for _ in range(speaker.chance.whole(4))]
    where = open_site(world)
    where.db.hot.write([known.present(REGION, message.conversation_id, week)] for message in sent)
    return list(merge_all(map(row_of, [*sent, *changes])).values())


def _tables(where: Site, week: int, tier: Tier, state: TableState) -> None:
    if state is TableState.LIVE:
        messages.create_tables(where.database(tier), REGION, tier, week, GENERATION)
    where.ledger.put_table(None, WeekTable(REGION, week, tier, GENERATION, state))


def _write(where: Site, week: int, tier: Tier, rows: list[Row]) -> None:
    ordered = sorted(rows, key=lambda row: row.key)
    where.database(tier).write(messages.batches(REGION, tier, week, ordered))


def _in_hot(where: Site, _: World, week: int, rows: list[Row]) -> None:
    for tier in (Tier.HOT, Tier.WARM):
        _tables(where, week, tier, TableState.LIVE)
    for slice_ in range(where.config.layout.slices):
        where.ledger.create(Unit(REGION, week, slice_))
    _write(where, week, Tier.HOT, rows)


def _in_warm(where: Site, _: World, week: int, rows: list[Row]) -> None:
    """As `jobs.move` and `jobs.drop` leave it."""
    _tables(where, week, Tier.HOT, TableState.DROPPED)
    _tables(where, week, Tier.WARM, TableState.LIVE)
    for slice_ in range(where.config.layout.slices):
        unit = Unit(REGION, week, slice_, HOT_WARM, State.DROPPED, epoch=1, revision=9, shards=1, settled=True)
        where.ledger.create(unit)
        size = 60 * len(rows)
        where.ledger.put_part(Part(REGION, week, slice_, Tier.HOT, 0, 1, of_rows(rows), size_bytes=size, verified=True))
    assert WARM_COLD.source is Tier.WARM
    _write(where, week, Tier.WARM, rows)


def _in_cold(where: Site, world: World, week: int, rows: list[Row]) -> None:
    _import(where, world, week, rows)
    fold.run(None, world.config, world.today, (REGION,), [week], world.tell)


def _in_frozen(where: Site, world: World, week: int, rows: list[Row]) -> None:
    _in_cold(where, world, week, rows)
    move.run(None, world.config, world.today, (REGION,), [week], world.tell)
    quality.run(world.config, world.today, (REGION,), [week], world.tell)
    later = world.today + timedelta(days=2)
    drop.run(None, world.config, later, (REGION,), [week], True, world.tell)


def _nowhere(_: Site, __: World, ___: int, ____: list[Row]) -> None:
    """Born when something first happens in it."""


def _import(where: Site, world: World, week: int, rows: list[Row]) -> None:
    """Of rows that are said already; edits and deletions come along, as no import has them, to fill the files."""
    slices: dict[int, list[Row]] = {}
    for row in rows:
        slices.setdefault(world.slice_of(row.conversation_id), []).append(row)
    for slice_, held in slices.items():
        said = [one for row in held for one in world.truth.said[row.key]]
        bring(where, world, (week, slice_), held, said, "before")


def bring(
    where: Site, world: World, unit: tuple[int, int], rows: Iterable[Row], said: Sequence[Said], name: str
) -> None:
    """One run of imported rows, by the import's own way of landing. `said`: all that the rows were made of."""
    load = landing.load_of(unit, "0", rows)
    sinks = landing.Sinks(
        name, name, where.ledger, where.objects, where.db.hot.write, _no_events, where.config.layout.row_group_bytes
    )
    stem = landing._stem(sinks, load)
    keys = {row.key for row in load.rows}
    world.runs[stem + name] = [one for one in said if one.key in keys]
    landing.as_runs(sinks, [load])


def _no_events(_: Iterable[Event]) -> None:
    raise AssertionError("these weeks take runs")


_LIE: dict[Stage, Callable[[Site, World, int, list[Row]], None]] = {
    Stage.YOUNG: _in_hot,
    Stage.HOT: _in_hot,
    Stage.WARM: _in_warm,
    Stage.COLD: _in_cold,
    Stage.FROZEN: _in_frozen,
    Stage.UNBORN: _nowhere,
}
