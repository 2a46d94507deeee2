"""Every state that a week can be in has its next step, what keeps it, and when it is tried: over plain values."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids, moves, ring, tiers, weeks
from core.digest import Digest
from core.errors import BlockedError, DamagedError
from core.gate import PartitionState
from core.ledger import FrozenFile, Lease, Part, Pointer, Run, TableState, Verdict, WeekTable, fingerprint
from core.moves import COLD_FROZEN, COLD_WARM, FROZEN_COLD, WARM_COLD, WARM_HOT, State, Unit, born_cold
from core.settings import Alarms, Tiers
from core.tiers import Tier
from lakehouse.index import HIGHEST, LOWEST, ColdIndex, RowGroup
from lakehouse.restore import RestoreState, Waiting
from ops import explain
from ops.explain import NOTHING, Explanation, Step, explained, midnight_after
from ops.whereabouts import Facts
from tests import strategies

WEEK = weeks.parse("2026-W08")
END = weeks.end(WEEK)
POLICY = Tiers()
CONVERSATION = ids.conversation_uuid("test", "1")
TOKEN = ring.token(CONVERSATION)
DIGEST = Digest(0, 0)
OPEN = Unit("us", WEEK, 0)
WARM = replace(OPEN, state=State.DROPPED, shards=2)
COLD = replace(WARM, move=WARM_COLD)
FROZEN = replace(WARM, move=COLD_FROZEN)
TABLES = tuple(WeekTable("us", WEEK, tier, 1, TableState.LIVE) for tier in (Tier.HOT, Tier.WARM))
AT_REST = Waiting(RestoreState.NOT_ASKED)
RUN = Run(WEEK, 0, "r", "runs/r.parquet", DIGEST, 9, "")
READ = PartitionState("messages.us.direct", 0, 0, 10, 10, 7)
BEHIND = PartitionState("messages.us.direct", 1, 0, 10, 4, 7)
DEAF = PartitionState("messages.us.group", 0, 0, 10, 10, 6)
HELD = Lease("unit/us", "5eed", 4, END + timedelta(minutes=1))


def days(number: float) -> datetime:
    return END + timedelta(days=number)


def facts(unit: Unit | None, week: int = WEEK, **more: Any) -> Facts:
    """A unit to which nothing is wrong: tables stand, each shard has its files, the gate is open."""
    names = frozenset(f"us_{tier}.messages_w{week}" for tier in (Tier.HOT, Tier.WARM))
    plain = Facts("us", week, 0, weeks=(week,), first_week=week - 100, unit=unit, tables=TABLES, standing=names)
    if unit:
        cold, frozen = tuple(pointers(unit)), tuple(frozen_files(unit))
        keys = [f"lake/messages/s000/{one.path}" for one in cold] + [one.path for one in frozen]
        waiting = {one.path: AT_REST for one in frozen}
        files: dict[str, Any] = {
            "cold": cold,
            "frozen": frozen,
            "index": {key: index(key) for key in keys},
            "waiting": waiting,
        }
        plain = replace(plain, **files, positions=(READ,), route=7)
    return replace(plain, **more)


def pointers(unit: Unit) -> list[Pointer]:
    is_read = Tier.COLD in moves.readers(unit)
    shards = range(unit.shards if is_read else 0)
    return [
        Pointer(unit.week, 0, unit.shards, shard, f"{shard}.parquet", 3, DIGEST, 900, f"{shard}") for shard in shards
    ]


def frozen_files(unit: Unit) -> list[FrozenFile]:
    places = [(at, shard) for at in moves.frozen_generations(unit) for shard in range(unit.shards)]
    return [
        FrozenFile(
            unit.week, 0, at, shard, 1, unit.shards, f"frozen/{at}-{shard}.parquet", DIGEST, 800, "", "GLACIER", END
        )
        for at, shard in places
    ]


def index(key: str) -> ColdIndex:
    """The conversation lies in the second and third row group, with neighbours."""
    edges = [b"\x00" * 16 + LOWEST, CONVERSATION + LOWEST, CONVERSATION + b"\x50" * 16, b"\xff" * 16 + HIGHEST]
    first, last = (edges[0], edges[1], edges[2]), (b"\x01" * 16 + HIGHEST, edges[2], edges[3])
    groups = tuple(RowGroup(first[at], last[at], 4 + 100 * at, 100, 10 + at) for at in range(3))
    return ColdIndex(key, 900, "", DIGEST, groups, b"")


def told(found: Facts, now: datetime, clock: datetime = END) -> Explanation:
    return explained(found, CONVERSATION, now, POLICY, clock)


def verdict(found: Facts, *failed: str) -> Verdict:
    return Verdict(WEEK, 0, fingerprint(found.cold), "suite", not failed, failed, END)


def settled(unit: Unit, at: float) -> Unit:
    return replace(unit, state=State.SWITCHED, settled=True, switched_at=days(at))


SUPPLEMENT = replace(FROZEN, state=State.OPEN, generation=1)
SEALED, COPIED, VERIFIED = (replace(OPEN, state=one, shards=2) for one in (State.SEALED, State.COPIED, State.VERIFIED))
TO_COLD = replace(SEALED, move=WARM_COLD)
TO_FROZEN = replace(SEALED, move=COLD_FROZEN)
GATHERED: dict[str, Any] = {"is_lane_empty": False, "lane_events": 3}
DEAR = "freezing 1 object costs more than it saves, so it stays in cold"
UNJUDGED = "us/2026-W08/0: its cold files break: file is whole; nothing of it is dropped"
OTHER = "us/2026-W08/1 is sealed, not switched"

H, W, C, F = Tier.HOT, Tier.WARM, Tier.COLD, Tier.FROZEN
# What is known, on which day after the week's end, the step, what keeps it, the tiers (by age, and where it is), and
# the DAG whose next run tries it, or that of a certain day.
CASES: dict[str, tuple[Facts, float, Step, str, Tier, Tier | None, str | tuple[str, float]]] = {
    "hot, too young": (facts(OPEN), 1, Step.WAIT, "it leaves hot for warm on 2026-03-02", H, H, ("tier", 7)),
    "hot, of age": (facts(OPEN), 7.5, Step.SEAL, "", W, H, "tier"),
    "hot, no warm tables": (facts(OPEN, tables=TABLES[:1]), 7, Step.TABLES, "no warm tables", W, H, "weeks"),
    "hot, far behind": (facts(OPEN), 400, Step.SEAL, "", F, H, "tier"),
    "hot → warm, sealed": (facts(SEALED), 7, Step.COPY, "", W, H, "tier"),
    "hot → warm, copied": (facts(COPIED), 7, Step.VERIFY, "", W, H, "tier"),
    "hot → warm, verified": (facts(VERIFIED), 7, Step.SWITCH, "", W, H, "tier"),
    "hot → warm, switched": (facts(replace(SEALED, state=State.SWITCHED)), 7, Step.SETTLE, "", W, W, "tier"),
    "hot → warm, in grace": (
        facts(settled(SEALED, 7)), 7.5, Step.DROP, "is in grace until 2026-03-03", W, W, ("drop", 8)),
    "hot → warm, free": (facts(settled(SEALED, 7)), 8, Step.DROP, "", W, W, "drop"),
    "hot → warm, others": (facts(settled(SEALED, 7), others=(OTHER,)), 8, Step.DROP, OTHER, W, W, "drop"),
    "warm, too young": (facts(WARM), 8, Step.WAIT, "it leaves warm for cold on 2026-03-25", W, W, ("tier", 30)),
    "warm, of age": (facts(WARM), 30, Step.SEAL, "", C, W, "tier"),
    "warm → cold, open": (facts(replace(TO_COLD, state=State.OPEN)), 30, Step.SEAL, "", C, W, "tier"),
    "warm → cold, sealed": (facts(TO_COLD), 30, Step.COPY, "", C, W, "tier"),
    "warm → cold, copied": (facts(replace(COPIED, move=WARM_COLD)), 30, Step.VERIFY, "", C, W, "tier"),
    "warm → cold, verified": (facts(replace(VERIFIED, move=WARM_COLD)), 30, Step.SWITCH, "", C, W, "tier"),
    "warm → cold, switched": (facts(replace(TO_COLD, state=State.SWITCHED)), 30, Step.SETTLE, "", C, C, "tier"),
    "warm → cold, in grace": (
        facts(settled(TO_COLD, 30), unjudged=UNJUDGED), 30, Step.DROP, "grace", C, C, ("drop", 31)),
    "warm → cold, not passed": (
        facts(settled(TO_COLD, 30), unjudged=UNJUDGED), 31, Step.JUDGE,
        "its cold files break: file is whole", C, C, "tier"),
    "warm → cold, free": (facts(settled(TO_COLD, 30)), 31, Step.DROP, "", C, C, "drop"),
    "cold, too young": (facts(COLD), 32, Step.WAIT, "it leaves cold for frozen", C, C, ("tier", 365)),
    "cold, with a lane": (facts(COLD, **GATHERED), 32, Step.FOLD, "", C, C, "fold"),
    "cold, with runs": (facts(COLD, runs=(RUN,)), 400, Step.FOLD, "", F, C, "fold"),
    "cold, of age": (facts(COLD), 365, Step.SEAL, "", F, C, "tier"),
    "cold, too dear to freeze": (facts(COLD, kept=DEAR), 365, Step.SEAL, DEAR, F, C, "tier"),
    "born cold, nothing yet": (facts(born_cold("us", WEEK, 0)), 99, Step.NONE, "born cold", C, C, ""),
    "born cold, a first run": (facts(born_cold("us", WEEK, 0), runs=(RUN,)), 99, Step.FOLD, "", C, C, "fold"),
    "cold → frozen, open": (facts(replace(TO_FROZEN, state=State.OPEN)), 365, Step.SEAL, "", F, C, "tier"),
    "cold → frozen, sealed": (facts(TO_FROZEN, positions=()), 365, Step.COPY, "", F, C, "tier"),
    "cold → frozen, copied": (facts(replace(COPIED, move=COLD_FROZEN)), 365, Step.VERIFY, "", F, C, "tier"),
    "cold → frozen, verified": (facts(replace(VERIFIED, move=COLD_FROZEN)), 365, Step.SWITCH, "", F, C, "tier"),
    "cold → frozen, switched": (facts(replace(TO_FROZEN, state=State.SWITCHED)), 365, Step.SETTLE, "", F, C, "tier"),
    "cold → frozen, in grace": (
        facts(settled(TO_FROZEN, 365), **GATHERED), 365, Step.DROP, "grace", F, C, ("drop", 366)),
    "frozen": (facts(FROZEN), 367, Step.NONE, "frozen is the last tier", F, F, ""),
    "frozen, with a lane": (facts(FROZEN, **GATHERED), 367, Step.FOLD, "", F, F, "fold"),
    "a supplement": (facts(SUPPLEMENT), 367, Step.SEAL, "", F, F, "tier"),
    "a supplement, too dear": (facts(SUPPLEMENT, kept=DEAR), 367, Step.SEAL, DEAR, F, F, "tier"),
    "no unit, older than tables": (facts(None, first_week=WEEK + 1), 40, Step.NONE, "older than any table", C, C, ""),
    "no unit, tables are late": (facts(None), -3, Step.TABLES, "", H, None, "weeks"),
    "no unit, to come": (facts(None), -42, Step.TABLES, "2 weeks ahead", H, None, ("weeks", -21)),
    "no region yet": (facts(None, first_week=None), -3, Step.TABLES, "", H, None, "weeks"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_state_has_its_next_step(case: str) -> None:
    known, day, step, kept, target, actual, tried = CASES[case]
    found = told(known, now := days(day))
    assert (found.step, found.target, found.actual) == (step, target, actual)
    assert kept in found.kept
    assert bool(found.kept) == bool(kept)
    dag, when = (tried[0], days(tried[1])) if isinstance(tried, tuple) else (tried, midnight_after(now))
    assert (found.next_try.dag, found.next_try.when) == (dag, when if dag else None)
    assert bool(found.next_try.command) == (isinstance(tried, str) and tried != "" and kept != DEAR)
    assert found.presence == ""


def test_all_moves_in_all_states_are_in_the_table() -> None:
    seen = {(known.unit.move, known.unit.state) for known, *_ in CASES.values() if known.unit}
    assert seen == {(move, state) for move in moves.MOVES for state in State}
    assert {step for _, _, step, *_ in CASES.values()} == set(Step) - {Step.REPAIR}


@given(
    strategies.units,
    st.floats(-20, 500).map(lambda number: timedelta(days=number)),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
)
def test_any_unit_is_explained(
    unit: Unit, age: timedelta, is_held: bool, is_whole: bool, has_gathered: bool, events: int
) -> None:
    now = weeks.end(unit.week) + age
    known = facts(unit, unit.week, lease=HELD if is_held else None, is_lane_empty=not has_gathered, lane_events=events)
    known = known if is_whole else replace(known, standing=frozenset[str](), cold=())
    found = told(known, now)
    assert found.blocking.startswith("nothing is next: " if found.step is Step.NONE else "next is to ")
    assert found.kept or found.blocking.endswith(NOTHING)
    assert found.target is tiers.target(unit.week, now, POLICY)
    assert found.actual is unit.tier
    if found.step in (Step.NONE, Step.REPAIR):
        assert found.next_try.when is None
    else:
        assert found.next_try.when
        assert found.next_try.when in (HELD.expires_at, midnight_after(now)) or found.next_try.when > now
        assert found.next_try.dag
    assert found.holder == ("5eed" if is_held else "")
    assert [place.tier for place in found.places if not place.fault] or unit.shards == 0 or not is_whole
    assert explain.as_data(found)["week"] == weeks.label(unit.week)


def test_daily_runs_are_at_midnight_and_never_now() -> None:
    assert midnight_after(datetime(2026, 3, 2, 12, tzinfo=UTC)) == datetime(2026, 3, 3, tzinfo=UTC)
    assert midnight_after(datetime(2026, 3, 2, tzinfo=UTC)) == datetime(2026, 3, 3, tzinfo=UTC)


def test_a_holder_is_at_the_step_until_its_lease_has_run_out() -> None:
    found = told(facts(SEALED, lease=HELD), days(7))
    assert (found.holder, found.epoch, found.held_until) == ("5eed", 4, HELD.expires_at)
    assert found.blocking == "next is to copy it: 5eed holds the unit and is at it"
    assert found.next_try.when == HELD.expires_at
    assert found.next_try.command == "./firn move --now 2026-03-02T00:00:00Z --region us --week 2026-W08"
    free = told(facts(SEALED, lease=HELD), days(7), clock=HELD.expires_at)
    assert (free.holder, free.kept, free.next_try.when) == ("", "", days(8))


@pytest.mark.parametrize("case", ["hot, too young", "hot → warm, in grace", "warm → cold, not passed", "frozen"])
def test_what_waits_for_its_time_waits_for_no_lease(case: str) -> None:
    known, day, *_ = CASES[case]
    free, held = told(known, days(day)), told(replace(known, lease=HELD), days(day))
    assert (held.kept, held.next_try) == (free.kept, free.next_try)
    assert held.holder


@pytest.mark.parametrize("state", [State.SEALED, State.SWITCHED])
def test_a_shut_gate_names_its_partitions(state: State) -> None:
    unit = replace(SEALED, state=state, route=6)
    found = told(facts(unit, positions=(READ, BEHIND, DEAF)), days(7))
    assert found.gate == (
        "messages.us.direct/1: read up to offset 4 of 10",
        "messages.us.group/0: its last commit was made under route 6, 7 is needed",
    )
    assert found.kept == "writers have not all obeyed route 7: " + "; ".join(found.gate)
    held = told(facts(unit, positions=(READ, BEHIND), lease=HELD), days(7))
    assert held.kept.startswith("5eed holds the unit and is at it, while writers have not all obeyed route 7: ")
    many = told(facts(unit, positions=(BEHIND,) * 9), days(7))
    assert len(many.gate) == 9
    assert many.kept.endswith("; and 6 more")


def test_the_holder_of_a_sealed_unit_that_has_the_route_is_past_the_gate() -> None:
    found = told(facts(replace(SEALED, route=7), positions=(BEHIND,), lease=HELD), days(7))
    assert (found.gate, found.kept) == ((), "5eed holds the unit and is at it")


def test_a_gate_that_nobody_can_look_at_says_so() -> None:
    found = told(facts(SEALED, positions=BlockedError("Kafka does not answer", "start it")), days(7))
    assert found.kept.endswith("Kafka does not answer")


def test_a_gate_is_nothing_to_a_move_that_reroutes_nobody() -> None:
    assert told(facts(TO_FROZEN, positions=(BEHIND,)), days(365)).gate == ()


def test_a_drop_that_has_begun_asks_nothing_more() -> None:
    dropping = (replace(TABLES[0], state=TableState.DROPPING), TABLES[1])
    known = facts(settled(SEALED, 7), tables=dropping, standing=frozenset({f"us_warm.messages_w{WEEK}"}))
    found = told(known, days(7))
    assert (found.step, found.kept) == (Step.DROP, "")
    assert [place.name for place in found.places] == [f"us_warm.messages_w{WEEK}"]


@pytest.mark.parametrize("unit", [OPEN, SEALED, WARM, settled(SEALED, 7)])
def test_a_table_that_should_stand_and_does_not_is_damage(unit: Unit) -> None:
    found = told(facts(unit, standing=frozenset()), days(8))
    assert found.step is Step.REPAIR
    assert "is missing: restore it" in found.blocking


@pytest.mark.parametrize("unit", [COLD, TO_FROZEN, settled(TO_COLD, 30), replace(COLD, shards=1)])
def test_a_missing_pointer_comes_before_all_else(unit: Unit) -> None:
    found = told(facts(unit, cold=()), days(400))
    assert found.step is Step.REPAIR
    assert "no pointer leads to a file of us/2026-W08/0" in found.blocking
    assert found.next_try.when is None
    assert ("jobs.maintain --apply" in found.next_try.command) == (moves.why_not_fold(unit) is None)
    assert [place.fault for place in found.places if place.tier is Tier.COLD] == [found.kept]


def test_a_pointer_of_another_shard_is_no_pointer() -> None:
    whole = facts(COLD)
    mine = ring.shard_of(TOKEN, 1, 2)
    other = tuple(one for one in whole.cold if one.shard != mine)
    assert told(replace(whole, cold=other), days(32)).step is Step.REPAIR
    supplement = told(replace(facts(SUPPLEMENT), cold=other), days(400))
    assert [place.tier for place in supplement.places] == [Tier.FROZEN]


def test_damaged_files_say_what_is_wrong_with_them() -> None:
    torn = DamagedError("the index is damaged", "rebuild it")
    whole = facts(COLD)
    found = told(replace(whole, index=dict.fromkeys(whole.index, torn)), days(32))
    assert (found.step, found.kept) == (Step.REPAIR, "the index is damaged: rebuild it")
    frozen = facts(FROZEN)
    gone = told(replace(frozen, waiting=dict.fromkeys(frozen.waiting, torn)), days(400))
    assert (gone.step, gone.places[0].fault) == (Step.REPAIR, "the index is damaged: rebuild it")


def test_a_damaged_log_is_told_before_the_drop_that_would_meet_it() -> None:
    torn = DamagedError("line 2 of its log is no JSON", "bring its _delta_log back from a copy of the bucket")
    grace = told(replace(facts(settled(TO_COLD, 30)), unlogged=torn), days(30.5))
    assert grace.step is Step.DROP
    found = told(replace(facts(settled(TO_COLD, 30)), unlogged=torn), days(32))
    assert (found.step, found.kept) == (Step.REPAIR, f"{torn.what}: {torn.do}")
    assert not found.next_try.command


AWAY = "no Cassandra of datacenter warm answers at 127.0.0.9:9042"


def test_a_store_that_is_away_keeps_the_step_that_needs_it() -> None:
    """And is no damage, though none of its tables is seen to stand."""
    found = told(facts(SEALED, standing=frozenset(), away=AWAY, unseen=True), days(8))
    assert (found.step, found.kept, found.places) == (Step.COPY, AWAY, ())
    assert found.next_try.command.startswith("./firn move")
    assert found.mend == "./firn stack status"
    dropping = told(facts(settled(SEALED, 7), away="only 2 of the 3 replicas that ALL needs answer"), days(9))
    assert (dropping.step, dropping.kept) == (Step.DROP, "only 2 of the 3 replicas that ALL needs answer")
    assert dropping.next_try.command.startswith("./firn drop --apply")


def test_what_waits_for_its_time_does_not_wait_for_a_store() -> None:
    grace = told(facts(settled(SEALED, 7), away=AWAY), days(7.5))
    assert "in grace" in grace.kept
    assert grace.away == AWAY


def test_rows_lie_in_the_row_groups_that_may_hold_them() -> None:
    (place,) = told(facts(COLD), days(32)).places
    assert place.name.startswith("lake/messages/s000/")
    assert (place.groups, place.offset, place.length_bytes, place.rows) == ((1, 2), 104, 200, 23)
    other = ids.conversation_uuid("test", "2")
    known = facts(replace(COLD, shards=1))
    narrow = {
        key: replace(one, groups=one.groups[:1]) if isinstance(one, ColdIndex) else one
        for key, one in known.index.items()
    }
    (empty,) = explained(replace(known, index=narrow), other, days(32), POLICY, END).places
    assert (empty.groups, empty.length_bytes, empty.rows) == ((), 0, 0)


@pytest.mark.parametrize(
    ("waiting", "sentence"),
    [
        (AT_REST, "frozen, and nobody has asked for it: ./firn restore brings it back"),
        (Waiting(RestoreState.UNDER_WAY, days(400)), "frozen, and on its way back, there by 2027-03-30T00:00Z"),
        (Waiting(RestoreState.RESTORED, None, days(407)), "readable until 2027-04-06T00:00Z"),
    ],
)
def test_a_frozen_object_says_how_far_its_restore_is(waiting: Waiting, sentence: str) -> None:
    frozen = facts(FROZEN)
    (place,) = told(replace(frozen, waiting=dict.fromkeys(frozen.waiting, waiting)), days(400)).places
    assert (place.restore, place.restore_state) == (sentence, waiting.state)
    assert (place.storage_class, place.generation, place.size_bytes) == ("GLACIER", 0, 800)


def test_a_supplement_is_looked_for_before_what_is_frozen() -> None:
    found = told(facts(replace(SUPPLEMENT, generation=2)), days(400))
    assert [(place.tier, place.generation) for place in found.places] == [(C, None), (F, 0), (F, 1)]
    assert found.generation == 2


@pytest.mark.parametrize(
    ("unit", "what"),
    [
        (SEALED, "warm takes it in when the switch is settled"),
        (TO_COLD, "us/2026-W08/0 does not lie in cold yet"),
        (settled(TO_COLD, 30), "it is folded when that move has dropped its source"),
        (TO_FROZEN, "it is folded when that move has dropped its source"),
        (COLD, "the next fold takes it in"),
        (FROZEN, "the next fold takes it in"),
    ],
)
def test_what_has_gathered_says_what_becomes_of_it(unit: Unit, what: str) -> None:
    found = told(facts(unit, **GATHERED), days(400))
    assert what in found.fold
    assert found.lane_events == 3
    assert told(facts(unit), days(400)).fold == ""


def test_a_verdict_is_told_to_who_waits_for_a_drop() -> None:
    known = facts(settled(TO_COLD, 30))
    passed, failed = verdict(known), verdict(known, "file is whole")
    assert told(replace(known, verdict=passed), days(32)).verdict == "passed at 2026-02-23T00:00Z"
    assert told(replace(known, verdict=failed), days(32)).verdict == "failed at 2026-02-23T00:00Z: file is whole"
    stale = replace(passed, files="others")
    assert told(replace(known, verdict=stale), days(32)).verdict == "of other files than those that are there now"
    assert told(replace(facts(COLD), verdict=stale), days(32)).verdict == ""


def test_parts_say_how_far_the_copy_is() -> None:
    parts = tuple(Part("us", WEEK, 0, H, shard, 1, DIGEST, verified=shard == 0) for shard in range(2))
    found = told(facts(COPIED, parts=parts), days(7))
    assert (found.copied, found.verified) == (2, 1)


def test_a_conversation_that_is_not_there_is_told_beside_its_unit() -> None:
    elsewhere = told(facts(COLD, weeks=(WEEK + 1,)), days(32))
    assert elsewhere.presence == "the conversation has nothing in this week"
    assert elsewhere.step is Step.WAIT
    erased = told(facts(COLD, weeks=()), days(32))
    assert erased.presence == "nothing of this conversation is known here: it never wrote, or was erased"


def test_the_shard_is_the_one_that_holds_the_token() -> None:
    found = told(facts(replace(COLD, shards=4)), days(32))
    assert (found.shard, found.shards, found.token) == (ring.shard_of(TOKEN, 1, 4), 4, TOKEN)
    assert told(facts(OPEN), days(1)).shard is None


def test_every_dag_that_is_named_is_there() -> None:
    dags = Path(explain.__file__).parents[1] / "dags"
    assert {dag for dag, _ in explain.RUNNERS.values()} <= {path.stem for path in dags.glob("*.py")}


# Thaws, and what mends a fault


THAWS = {
    WARM_HOT: replace(OPEN, move=WARM_HOT),
    COLD_WARM: replace(OPEN, move=COLD_WARM, shards=2),
    FROZEN_COLD: replace(OPEN, move=FROZEN_COLD, shards=2, generation=1),
}
STEPS = {
    State.OPEN: Step.SEAL,
    State.SEALED: Step.COPY,
    State.COPIED: Step.VERIFY,
    State.VERIFIED: Step.SWITCH,
    State.SWITCHED: Step.SETTLE,
}


@pytest.mark.parametrize("move", moves.THAWS, ids=str)
@pytest.mark.parametrize("state", STEPS)
def test_a_thaw_has_its_next_step(move: moves.Move, state: State) -> None:
    unit = replace(THAWS[move], state=state, shards=2)
    unit = replace(unit, generation=0) if state is State.SWITCHED else unit
    found = told(facts(unit), days(400))
    assert (found.step, found.kept, found.mend) == (STEPS[state], "", "")
    assert found.actual is (move.sink if state is State.SWITCHED else move.source)
    assert found.next_try.command.startswith("./firn move --now")


def test_a_thaw_that_waits_says_for_what_and_which_command_brings_it() -> None:
    why = "us/2026-W08/0 is frozen and not restored: ./firn restore 2026-W08 --region us"
    found = told(facts(THAWS[FROZEN_COLD], waits=why), days(400))
    assert (found.step, found.kept) == (Step.SEAL, why)
    assert found.mend == "./firn restore 2026-W08 --region us"


def test_what_was_thawed_is_held() -> None:
    held = replace(COLD, hold_until=days(380))
    found = told(facts(held), days(370))
    assert (found.step, found.next_try.when) == (Step.WAIT, days(380))
    assert found.kept == "it was thawed and is held in cold until 2027-03-10T00:00Z"
    assert told(facts(held), days(380)).step is Step.SEAL
    young = told(facts(held), days(32))
    assert "held in cold" in young.kept, "the hold is the later of the two"
    assert "leaves cold" in told(facts(replace(COLD, hold_until=days(40))), days(32)).kept


THREAT = "lifecycle rule r expires what lies below lake/"
DRIFT = "table us_hot.messages_w2928 has a column extra that is not declared"


@pytest.mark.parametrize(
    ("unit", "day", "step"),
    [(COLD, 365, Step.SEAL), (replace(WARM), 30, Step.SEAL), (settled(TO_COLD, 30), 31, Step.DROP)],
)
def test_a_rule_of_the_bucket_keeps_what_would_trust_it(unit: Unit, day: float, step: Step) -> None:
    found = told(facts(unit, threat=THREAT), days(day))
    assert (found.step, found.kept, found.mend) == (step, THREAT, "./firn phantoms --region us")
    assert told(facts(unit, threat=THREAT), days(1) if unit is COLD else days(day)).kept


def test_other_columns_keep_a_unit_from_its_seal_alone() -> None:
    found = told(facts(OPEN, drift=DRIFT), days(7))
    assert (found.step, found.kept) == (Step.SEAL, DRIFT)
    assert told(facts(COPIED, drift=DRIFT), days(7)).kept == ""


def test_a_shut_gate_is_mended_by_a_consumer() -> None:
    assert told(facts(SEALED, positions=(BEHIND,)), days(7)).mend == "./firn stack up"
    assert told(facts(SEALED), days(7)).mend == ""


@pytest.mark.parametrize(
    ("known", "mend"),
    [
        (facts(OPEN, standing=frozenset()), "./firn stack logs cassandra"),
        (facts(TO_FROZEN, cold=()), "./firn phantoms --region us"),
    ],
)
def test_damage_names_a_command_that_shows_it(known: Facts, mend: str) -> None:
    found = told(known, days(8))
    assert (found.step, found.mend) == (Step.REPAIR, mend)


@pytest.mark.parametrize("state", [State.SEALED, State.COPIED, State.VERIFIED])
def test_what_is_stuck_may_be_begun_anew(state: State) -> None:
    unit = replace(SEALED, state=state, sealed_at=days(7))
    known = facts(unit)
    at = {hours: explained(known, CONVERSATION, days(7 + hours / 24), POLICY, END, Alarms(24)) for hours in (24, 25)}
    assert at[24].mend == ""
    assert at[25].mend == f"./firn move --region us --week 2026-W08 --from {state} --reason …"
    held = explained(replace(known, lease=HELD), CONVERSATION, days(9), POLICY, END, Alarms(24))
    assert held.mend == "", "a process is at it"
    sliced = explained(replace(known, slices=4), CONVERSATION, days(9), POLICY, END, Alarms(24))
    assert "--slice 0 " in sliced.mend
