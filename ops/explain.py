"""Why one conversation's week is where it is: the step that is next, what keeps it, who holds it, when it is tried.

Pure: `ops.whereabouts` has asked the stores. What a job's own rule forbids is told in that rule's words.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from core import alarms, gate, moves, ring, settings, tiers, weeks
from core.errors import FirnError
from core.ledger import Lease, TableState, fingerprint
from core.moves import State, Unit, born_cold
from core.overrides import outcome
from core.tiers import Tier
from ops.status import due_since, mover
from ops.whereabouts import Facts, Place, awaits_gate, places_of

NOTHING = "nothing keeps it"
_ALARMS = settings.Alarms()
NAMED = 3  # of partitions and of other units, in a sentence


class Step(StrEnum):
    """What comes next for a unit."""

    TABLES = "tables"
    WAIT = "wait"
    SEAL = "seal"
    COPY = "copy"
    VERIFY = "verify"
    SWITCH = "switch"
    SETTLE = "settle"
    JUDGE = "judge"
    DROP = "drop"
    FOLD = "fold"
    REPAIR = "repair"
    NONE = "none"


PHRASES = {
    Step.TABLES: "make its tables",
    Step.WAIT: "come of age",
    Step.SEAL: "seal it",
    Step.COPY: "copy it",
    Step.VERIFY: "verify the copy",
    Step.SWITCH: "switch it to its sink",
    Step.SETTLE: "settle the switch",
    Step.JUDGE: "judge its cold files",
    Step.DROP: "drop its source",
    Step.FOLD: "fold what has gathered",
    Step.REPAIR: "repair it",
}
# The daily DAG that does it, and the command.
_MOVE = ("tier", "./firn move")
RUNNERS = {
    Step.TABLES: ("weeks", "./firn weeks"),
    **dict.fromkeys((Step.WAIT, Step.SEAL, Step.COPY, Step.VERIFY, Step.SWITCH, Step.SETTLE), _MOVE),
    Step.JUDGE: ("tier", "./firn judge"),
    Step.DROP: ("drop", "./firn drop --apply"),
    Step.FOLD: ("fold", "./firn fold"),
}
_NEEDS_STORES = (Step.SEAL, Step.COPY, Step.VERIFY, Step.SWITCH, Step.SETTLE, Step.JUDGE, Step.DROP, Step.FOLD)
_TAKES_LEASE = (Step.SEAL, Step.COPY, Step.VERIFY, Step.SWITCH, Step.SETTLE, Step.DROP, Step.FOLD)


@dataclass(frozen=True)
class NextTry:
    """`when` None: nobody tries it. `command` does it now; empty where none does."""

    when: datetime | None = None
    dag: str = ""
    command: str = ""


@dataclass(frozen=True)
class Next:
    """`kept` is what keeps the step from being done; empty: nothing does. `mend` is the command that takes that away,
    or shows how far it reaches; empty where it goes by itself, or the step's own command does."""

    step: Step
    kept: str = ""
    next_try: NextTry = NextTry()
    mend: str = ""


@dataclass(frozen=True)
class Explanation:
    """`actual` is None for a week that has no table yet. `shard` is None until N is fixed. `holder` is empty while
    nobody holds the unit; leases run in real time. `gate` names the partitions that keep it shut. `copied` and
    `verified` count parts of the present move. `away` tells of a store that does not answer now."""

    region: str
    week: int
    slice: int
    shard: int | None
    shards: int
    token: int
    target: Tier
    actual: Tier | None
    move: str
    state: State | None
    generation: int
    due_since: datetime | None
    step: Step
    kept: str
    blocking: str
    gate: tuple[str, ...]
    holder: str
    held_until: datetime | None
    epoch: int
    next_try: NextTry
    mend: str
    presence: str
    away: str
    places: tuple[Place, ...]
    lane_events: int
    runs: int
    fold: str
    copied: int
    verified: int
    verdict: str


def explained(
    facts: Facts,
    conversation_id: bytes,
    now: datetime,
    policy: settings.Tiers,
    clock: datetime,
    limits: settings.Alarms = _ALARMS,
) -> Explanation:
    """`now` is what ages and graces count by, `clock` the real time, by which leases run."""
    unit, token = facts.unit, ring.token(conversation_id)
    cut = unit or born_cold(facts.region, facts.week, facts.slice)
    places = tuple(places_of(facts, token, conversation_id))
    held = facts.lease if facts.lease and not facts.lease.is_free(clock) else None
    shut = shut_gate(facts, held)
    following = _guarded(facts, next_of(facts, places, shut, now, policy))
    following = _held(held, following) if held else _begun_anew(facts, following, now, policy, limits)
    return Explanation(
        *cut.key,
        shard=ring.shard_of(token, facts.slices, cut.shards) if cut.shards else None,
        shards=cut.shards,
        token=token,
        target=tiers.target(facts.week, now, policy),
        actual=cut.tier if unit or _is_older_than_tables(facts) else None,
        move=str(unit.move) if unit else "",
        state=unit.state if unit else None,
        generation=cut.generation,
        due_since=due_since(unit, now, policy) if unit else None,
        step=following.step,
        kept=following.kept,
        blocking=_sentence(following),
        gate=shut,
        holder=held.holder if held else "",
        held_until=held.expires_at if held else None,
        epoch=held.epoch if held else cut.epoch,
        next_try=following.next_try,
        mend=following.mend,
        presence=_presence(facts),
        away=facts.away,
        places=places,
        lane_events=facts.lane_events,
        runs=len(facts.runs),
        fold=_fold(facts),
        copied=len(facts.parts),
        verified=sum(part.verified for part in facts.parts),
        verdict=_verdict(facts),
    )


def shut_gate(facts: Facts, held: Lease | None) -> tuple[str, ...]:
    """A sentence per partition that keeps the unit's gate shut; the holder of a sealed unit that has the region's route
    is past it."""
    unit = facts.unit
    if unit is None or not awaits_gate(unit) or (held and unit.state is State.SEALED and unit.route == facts.route):
        return ()
    if isinstance(facts.positions, FirnError):
        return (facts.positions.what,)
    return gate.blocking(facts.positions, facts.route)


def next_of(facts: Facts, places: Sequence[Place], shut: Sequence[str], now: datetime, policy: settings.Tiers) -> Next:
    """As if nobody held the unit. What is damaged comes before all else: no step goes past it."""
    if facts.unit is None:
        return _unborn(facts, now)
    if damaged := next((place for place in places if place.fault), None):
        return _damaged(facts, damaged, now)
    unit = mover(facts.unit)
    unheard = f"writers have not all obeyed route {facts.route}: {_several(shut)}" if shut else ""
    match unit.state:
        case State.OPEN if unit.move.is_thaw:
            following = _soon(facts, Step.SEAL, now)
        case State.OPEN if unit.move.source.is_cql:
            following = _in_tables(facts, unit, now, policy)
        case State.OPEN:
            following = _in_cold(facts, unit, now, policy)
        case State.SEALED:
            following = _lacking(facts, unit, now) or _soon(facts, Step.COPY, now, unheard)
        case State.COPIED:
            following = _soon(facts, Step.VERIFY, now)
        case State.VERIFIED:
            following = _soon(facts, Step.SWITCH, now)
        case State.SWITCHED if not unit.settled:
            following = _soon(facts, Step.SETTLE, now, unheard)
        case State.SWITCHED:
            following = _before_drop(facts, unit, now, policy)
        case State.DROPPED:
            following = _in_frozen(facts, now)
    return replace(following, mend="./firn stack up") if unheard and following.kept == unheard else following


def _guarded(facts: Facts, following: Next) -> Next:
    """What a step asks before it begins, and nothing else keeps it: the bucket's rules, columns, a thaw's own needs."""
    if facts.away and following.step in _NEEDS_STORES and following.next_try.command:
        return replace(following, kept=facts.away, mend="./firn stack status")
    if following.kept or following.step not in (Step.SEAL, Step.FOLD, Step.DROP):
        return following
    if facts.threat:
        return replace(following, kept=facts.threat, mend=f"./firn phantoms --region {facts.region}")
    if following.step is Step.SEAL and facts.drift:
        return replace(following, kept=facts.drift)
    if following.step is Step.SEAL and facts.waits:
        _, found, command = facts.waits.partition("./firn ")
        return replace(following, kept=facts.waits, mend=found + command)
    return following


def _begun_anew(facts: Facts, following: Next, now: datetime, policy: settings.Tiers, limits: settings.Alarms) -> Next:
    """With the override that begins the move anew, for a unit that is stuck though nothing that shows keeps it."""
    unit = facts.unit
    if following.kept or unit is None or outcome(unit) is None or not alarms.stuck(unit, None, now, policy, limits):
        return following
    slice_ = f" --slice {unit.slice}" if facts.slices > 1 else ""
    place = f"--region {facts.region} --week {weeks.label(facts.week)}{slice_}"
    return replace(following, mend=f"./firn move {place} --from {unit.state} --reason …")


def _unborn(facts: Facts, now: datetime) -> Next:
    if _is_older_than_tables(facts):
        return Next(Step.NONE, "the week is older than any table and nothing of it has come; what comes is born cold")
    made_from = weeks.start(facts.week - facts.tables_ahead_weeks)
    if now < made_from:
        return _later(Step.TABLES, made_from, now, f"tables are made {facts.tables_ahead_weeks} weeks ahead")
    return _soon(facts, Step.TABLES, now)


def _is_older_than_tables(facts: Facts) -> bool:
    return facts.first_week is not None and facts.week < facts.first_week


def _damaged(facts: Facts, place: Place, now: datetime) -> Next:
    """Lost pointers of a unit at rest are found again in the Delta log; nothing else mends itself."""
    assert facts.unit is not None
    if place.tier.is_cql:
        return Next(Step.REPAIR, place.fault, mend="./firn stack logs cassandra")
    if not place.has_no_pointer or moves.why_not_fold(facts.unit):
        return Next(Step.REPAIR, place.fault, mend=f"./firn phantoms --region {facts.region}")
    return Next(Step.REPAIR, place.fault, NextTry(command=_command(facts, "python -m jobs.maintain --apply", now)))


def _in_tables(facts: Facts, unit: Unit, now: datetime, policy: settings.Tiers) -> Next:
    if moves.is_due(unit, now, policy):
        return _lacking(facts, unit, now) or _soon(facts, Step.SEAL, now)
    return _too_young(unit, now, policy)


def _in_cold(facts: Facts, unit: Unit, now: datetime, policy: settings.Tiers) -> Next:
    if facts.has_gathered:
        return _soon(facts, Step.FOLD, now)
    if not unit.shards:
        return Next(Step.NONE, "the week was born cold and nothing of it has come yet; the first fold makes its file")
    if not moves.is_due(unit, now, policy):
        return _too_young(unit, now, policy)
    following = _soon(facts, Step.SEAL, now, facts.kept or "")
    return replace(following, next_try=replace(following.next_try, command="")) if facts.kept else following


def _in_frozen(facts: Facts, now: datetime) -> Next:
    if facts.has_gathered:
        return _soon(facts, Step.FOLD, now)
    return Next(Step.NONE, "frozen is the last tier, and nothing waits to be folded")


def _before_drop(facts: Facts, unit: Unit, now: datetime, policy: settings.Tiers) -> Next:
    """In the order in which the drop asks; one that has begun is not asked again."""
    if any(one.state is TableState.DROPPING and one.tier is unit.move.source for one in facts.tables):
        return _soon(facts, Step.DROP, now)
    if why := moves.why_not_drop(unit, now, policy):
        free_at = (unit.switched_at or now) + timedelta(days=policy.grace_days)
        return _later(Step.DROP, free_at, now, why)
    if facts.unjudged:
        return _soon(facts, Step.JUDGE, now, facts.unjudged.removeprefix(f"{unit.name}: "))
    if facts.unlogged:
        return Next(Step.REPAIR, f"{facts.unlogged.what}: {facts.unlogged.do}")
    return _soon(facts, Step.DROP, now, _several(facts.others))


def _too_young(unit: Unit, now: datetime, policy: settings.Tiers) -> Next:
    source = unit.move.source
    leaves_at = tiers.leaves_at(unit.week, source, policy) or now
    if unit.hold_until and unit.hold_until > max(leaves_at, now):
        kept = f"it was thawed and is held in {source} until {unit.hold_until:%Y-%m-%dT%H:%MZ}"
        return _later(Step.WAIT, unit.hold_until, now, kept)
    return _later(Step.WAIT, leaves_at, now, f"it leaves {source} for {unit.move.sink} on {leaves_at:%Y-%m-%dT%H:%MZ}")


def _lacking(facts: Facts, unit: Unit, now: datetime) -> Next | None:
    """Nothing is sealed, or copied, while a table it needs was never made."""
    made = {table.tier for table in facts.tables}
    lacking = [tier for tier in (unit.move.source, unit.move.sink) if tier.is_cql and tier not in made]
    return _soon(facts, Step.TABLES, now, f"the week has no {lacking[0]} tables yet") if lacking else None


def _held(lease: Lease, following: Next) -> Next:
    """Whoever holds the unit is at the step, or died less than a lease ago. What waits for its time waits anyway."""
    is_gate = following.step in (Step.COPY, Step.SETTLE)
    if following.step not in _TAKES_LEASE or (following.kept and not is_gate):
        return following
    held = f"{lease.holder} holds the unit and is at it"
    kept = f"{held}, while {following.kept}" if following.kept else held
    return replace(following, kept=kept, next_try=replace(following.next_try, when=lease.expires_at))


def _soon(facts: Facts, step: Step, now: datetime, kept: str = "") -> Next:
    """At the next run of its DAG, or by hand now."""
    dag, words = RUNNERS[step]
    command = _command(facts, words, now) + ("" if step is Step.TABLES else f" --week {weeks.label(facts.week)}")
    return Next(step, kept, NextTry(midnight_after(now), dag, command))


def _command(facts: Facts, words: str, now: datetime) -> str:
    return f"{words} --now {now:%Y-%m-%dT%H:%M:%SZ} --region {facts.region}"


def _later(step: Step, at: datetime, now: datetime, kept: str) -> Next:
    """At the first run of its DAG for which it is time."""
    return Next(step, kept, NextTry(midnight_after(max(now, at - timedelta(microseconds=1))), RUNNERS[step][0]))


def midnight_after(now: datetime) -> datetime:
    """When a daily DAG runs next; its `now` is that midnight."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC)


def _sentence(following: Next) -> str:
    if following.step is Step.NONE:
        return f"nothing is next: {following.kept}"
    return f"next is to {PHRASES[following.step]}: {following.kept or NOTHING}"


def _several(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return "; ".join(reasons[:NAMED]) + more


def _presence(facts: Facts) -> str:
    if facts.week in facts.weeks:
        return ""
    if facts.weeks:
        return "the conversation has nothing in this week"
    return "nothing of this conversation is known here: it never wrote, or was erased"


def _fold(facts: Facts) -> str:
    """What becomes of what has gathered in the lane and in runs; empty where nothing has."""
    if not facts.has_gathered:
        return ""
    unit = facts.unit
    if unit and unit.move.sink is Tier.WARM and unit.state is not State.DROPPED:
        return f"{unit.move.sink} takes it in when the switch is settled"
    return (unit and moves.why_not_fold(unit)) or "the next fold takes it in"


def _verdict(facts: Facts) -> str:
    """Of no interest but to a drop."""
    if facts.verdict is None or facts.unit is None or facts.unit.state is not State.SWITCHED:
        return ""
    if facts.verdict.files != fingerprint(facts.cold):
        return "of other files than those that are there now"
    when = f"{facts.verdict.judged_at:%Y-%m-%dT%H:%MZ}"
    return f"passed at {when}" if facts.verdict.passed else f"failed at {when}: {', '.join(facts.verdict.failed)}"


def as_data(found: Explanation) -> dict[str, Any]:
    """The token as text: it has more digits than a double."""
    return {**asdict(found), "week": weeks.label(found.week), "token": str(found.token)}
