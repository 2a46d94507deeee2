"""The one protocol of all three moves, as a pure state machine.

    open → sealed → copied → verified → switched → dropped
      ▲      ▲ │       │         │
      └──────┤ │       │         │   a freeze that could not be copied
             └─┴───────┴─────────┘   a new epoch, when proof fails

A unit is always in one move: `open` is the rest before it, `dropped` the rest after it, and the `dropped` of one
move is the `open` of the next. What a state means for writers and readers stands here and nowhere else:

- `writers`: in place while open, the lane from the seal on, the sink from the switch on (a cold sink takes no
  single writes: its lane stays, for the fold).
- `readers`: source, then lane, then sink; merged cell by cell, so that reading too much is harmless.

What still happens to a frozen unit is folded into a *supplement*, a file in cold that is frozen in its turn: the unit
goes through `cold → frozen` again, as the next *generation*, while the older ones stay where they are.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from core import weeks
from core.errors import RefusedError
from core.settings import Tiers
from core.tiers import Tier, target


class State(StrEnum):
    OPEN = "open"
    SEALED = "sealed"
    COPIED = "copied"
    VERIFIED = "verified"
    SWITCHED = "switched"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Move:
    source: Tier
    sink: Tier

    def __str__(self) -> str:
        return f"{self.source} → {self.sink}"


HOT_WARM = Move(Tier.HOT, Tier.WARM)
WARM_COLD = Move(Tier.WARM, Tier.COLD)
COLD_FROZEN = Move(Tier.COLD, Tier.FROZEN)
MOVES = (HOT_WARM, WARM_COLD, COLD_FROZEN)

_STEPS = {
    State.OPEN: (State.SEALED,),
    State.SEALED: (State.COPIED, State.SEALED),
    State.COPIED: (State.VERIFIED, State.SEALED),
    State.VERIFIED: (State.SWITCHED, State.SEALED),
    State.SWITCHED: (State.DROPPED,),
    State.DROPPED: (),
}


class Target(StrEnum):
    """Where a single write for a unit goes."""

    HOT = "hot"
    WARM = "warm"
    LANE = "lane"


@dataclass(frozen=True)
class Unit:
    """One row of the ledger.

    `epoch` is the lease under which the row was last changed; `revision` grows with every change and is what each
    change is compared against; `route` is the routing change that announced the present state to writers;
    `shards` is N, fixed at the seal, 0 before; `commits` counts commits to Delta; `settled` says that every writer
    obeys the switch and that a warm sink has taken its lane in; `sealed_at` and `switched_at` are by `now`;
    `generation` counts the frozen files of each shard that were there before the present move.
    """

    region: str
    week: int
    slice: int
    move: Move = HOT_WARM
    state: State = State.OPEN
    epoch: int = 0
    revision: int = 0
    shards: int = 0
    route: int = 0
    commits: int = 0
    settled: bool = False
    sealed_at: datetime | None = None
    switched_at: datetime | None = None
    generation: int = 0

    @property
    def key(self) -> tuple[str, int, int]:
        return self.region, self.week, self.slice

    @property
    def name(self) -> str:
        return f"{self.region}/{weeks.label(self.week)}/{self.slice}"

    @property
    def tier(self) -> Tier:
        """Where the truth of the unit is read. A frozen sink is not read before its source goes; what is frozen once
        stays so, whatever supplements a fold adds."""
        if self.generation or (self.move.sink is Tier.FROZEN and self.state is State.DROPPED):
            return Tier.FROZEN
        has_switched = self.state in (State.SWITCHED, State.DROPPED) and self.move.sink is not Tier.FROZEN
        return self.move.sink if has_switched else self.move.source

    def to(self, state: State, epoch: int) -> Self:
        """The next row, or RefusedError when `state` does not follow or the epoch is older than the row's."""
        gives_up = (self.move, self.state, state) == (COLD_FROZEN, State.SEALED, State.OPEN)
        if state not in _STEPS[self.state] and not gives_up:
            raise RefusedError(
                f"unit {self.name} is {self.state} ({self.move}); {state} does not follow",
                f"look at it with: ./firn status --region {self.region}",
            )
        if epoch < self.epoch:
            raise RefusedError(
                f"unit {self.name} is held under epoch {self.epoch}, not {epoch}",
                "another mover took over; nothing of yours was lost, let it finish",
            )
        return replace(self, state=state, epoch=epoch, revision=self.revision + 1)

    def changed(self, **facts: Any) -> Self:
        """The same state with other facts."""
        return replace(self, revision=self.revision + 1, **facts)

    def next_move(self) -> Self:
        """A dropped unit as the open unit of the move that follows."""
        following = MOVES[MOVES.index(self.move) + 1]
        return replace(
            self,
            move=following,
            state=State.OPEN,
            revision=self.revision + 1,
            shards=self.shards if following.source is Tier.COLD else 0,
            settled=False,
            sealed_at=None,
            switched_at=None,
        )

    def supplemented(self) -> Self:
        """A frozen unit whose lane a fold takes in: open in cold again, as the next generation."""
        if self.move != COLD_FROZEN or self.state is not State.DROPPED:
            raise RefusedError(f"unit {self.name} is not frozen, so it has no supplement", "fold its file instead")
        generation = self.generation + 1
        return replace(
            self,
            state=State.OPEN,
            revision=self.revision + 1,
            settled=False,
            sealed_at=None,
            switched_at=None,
            generation=generation,
        )


def born_cold(region: str, week: int, slice_: int) -> Unit:
    """A week that never had a table: its writes go to the lane from the start."""
    return Unit(region, week, slice_, move=COLD_FROZEN)


def writers(unit: Unit) -> Target:
    match unit.state:
        case State.OPEN | State.SWITCHED | State.DROPPED:
            return Target(unit.tier) if unit.tier.is_cql else Target.LANE
        case _:
            return Target.LANE


def readers(unit: Unit) -> tuple[Tier, ...]:
    """Tiers to read, in order; the lane is read after the first of them, always.

    A switched unit's source is still read: a writer that has not yet heard of the switch puts nothing there, but
    a reader must never depend on that. It stops when the drop begins. A frozen sink is left alone until then: the
    source says all that it says, and at once.
    """
    older = (Tier.FROZEN,) if unit.generation else ()
    match unit.state:
        case State.OPEN | State.SEALED | State.COPIED | State.VERIFIED:
            return (unit.move.source, *older)
        case State.SWITCHED if unit.move.sink is Tier.FROZEN:
            return (unit.move.source, *older)
        case State.SWITCHED:
            return (unit.move.source, unit.move.sink)
        case State.DROPPED:
            return (unit.move.sink,)


def frozen_generations(unit: Unit) -> range:
    """Generations whose frozen files hold what no other tier does."""
    is_frozen = unit.move.sink is Tier.FROZEN and unit.state is State.DROPPED
    return range(unit.generation + is_frozen)


def reroutes(move: Move) -> bool:
    """Whether its steps change where writers go, and so must pass the gate: a cold unit's use the lane always."""
    return move.source.is_cql


def why_not_fold(unit: Unit) -> str | None:
    """The sentence that forbids rewriting the unit's cold files now; None at rest in cold or frozen.

    While a move is under way its parts are proven against the very files that a fold would replace.
    """
    if unit.state is State.OPEN and unit.move.source is Tier.COLD:
        return None
    if unit.state is State.DROPPED and not unit.move.sink.is_cql:
        return None
    if unit.move == HOT_WARM or unit.state is State.OPEN or (unit.move == WARM_COLD and unit.tier is Tier.WARM):
        return f"{unit.name} does not lie in cold yet"
    return f"{unit.name} is {unit.state} ({unit.move}): it is folded when that move has dropped its source"


def is_due(unit: Unit, now: datetime, policy: Tiers) -> bool:
    """Whether the unit is under way, or rests and is old enough for the next tier."""
    if unit.state in (State.SEALED, State.COPIED, State.VERIFIED):
        return True
    if unit.state is State.SWITCHED:
        return not unit.settled
    if unit.state is State.DROPPED:
        return unit.move.sink is not Tier.FROZEN and is_due(unit.next_move(), now, policy)
    order = list(Tier)
    return order.index(target(unit.week, now, policy)) > order.index(unit.move.source)


def shards_for(size_bytes: int, shard_bytes: int) -> int:
    """N: the power of two that keeps files near `shard_bytes`."""
    shards = 1
    while size_bytes > shards * shard_bytes:
        shards *= 2
    return shards


def why_not_drop(unit: Unit, now: datetime, policy: Tiers) -> str | None:
    """The sentence that forbids dropping the unit's source now; None when it may go."""
    if unit.state is State.DROPPED:
        return None
    if unit.state is not State.SWITCHED:
        return f"{unit.name} is {unit.state}, not switched"
    if not unit.settled or unit.switched_at is None:
        return f"{unit.name} is switched but its writers have not all obeyed yet"
    free_at = unit.switched_at + timedelta(days=policy.grace_days)
    return None if now >= free_at else f"{unit.name} is in grace until {free_at:%Y-%m-%dT%H:%MZ}"
