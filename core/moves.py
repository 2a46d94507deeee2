"""The one protocol of all three moves, as a pure state machine.

    open → sealed → copied → verified → switched → dropped
             ▲ │       │         │
             └─┴───────┴─────────┘   a new epoch, when proof fails

A unit is always in one move: `open` is the rest before it, `dropped` the rest after it, and the `dropped` of one
move is the `open` of the next. What a state means for writers and readers stands here and nowhere else:

- `writers`: in place while open, the lane from the seal on, the sink from the switch on (a cold sink takes no
  single writes: its lane stays, for the fold).
- `readers`: source, then lane, then sink; merged cell by cell, so that reading too much is harmless.
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
    obeys the switch and that a warm sink has taken its lane in; `sealed_at` and `switched_at` are by `now`.
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

    @property
    def key(self) -> tuple[str, int, int]:
        return self.region, self.week, self.slice

    @property
    def name(self) -> str:
        return f"{self.region}/{weeks.label(self.week)}/{self.slice}"

    @property
    def tier(self) -> Tier:
        """Where the truth of the unit lies."""
        return self.move.sink if self.state in (State.SWITCHED, State.DROPPED) else self.move.source

    def to(self, state: State, epoch: int) -> Self:
        """The next row, or RefusedError when `state` does not follow or the epoch is older than the row's."""
        if state not in _STEPS[self.state]:
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
    a reader must never depend on that. It stops when the drop begins.
    """
    match unit.state:
        case State.OPEN | State.SEALED | State.COPIED | State.VERIFIED:
            return (unit.move.source,)
        case State.SWITCHED:
            return (unit.move.source, unit.move.sink)
        case State.DROPPED:
            return (unit.move.sink,)


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
