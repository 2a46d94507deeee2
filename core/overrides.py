"""What an operator may do to a stuck unit by hand: take it back to a state from which the mover proves all of it again.

    copied, verified ─▶ sealed   what was copied counts for nothing any more; the next move copies anew
    sealed           ─▶ open     writers go back to the source, readers look there and into the lane
    open, sealed, of a thaw ─▶ at rest in its source; the thaw is given up

Never forward, and never back over a switch: behind it writes lie in the sink alone, so only a thaw brings those back.
From `sealed` on nothing of the source has gone, and whatever the lane holds is read after the source in every state,
so taking a unit back loses sight of no write (`tests/unit/core/test_overrides.py` walks all ways).
"""

import re
from dataclasses import replace

from core.errors import RefusedError
from core.moves import State, Unit, seal_reroutes

REASON_CHARACTERS = 200
ACTOR_CHARACTERS = 64
# An audit line is kept for good and shown to many: what looks like a person's mark does not get in.
_PERSONAL = re.compile(r"@|\d{9}|[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}")


def outcome(unit: Unit) -> State | None:
    """The state that an override takes the unit back to; None where none is allowed."""
    match unit.state:
        case State.COPIED | State.VERIFIED:
            return State.SEALED
        case State.SEALED:
            return State.OPEN
        case State.OPEN if unit.move.is_thaw:
            return State.OPEN
        case _:
            return None


def overridden(unit: Unit, found_in: State, epoch: int, has_supplement: bool) -> Unit:
    """The unit taken back under the epoch of the lease that is held for it. `found_in` is the state that the operator
    saw: RefusedError when it is another by now, or one that nothing leads back from.

    `has_supplement` is asked for a thaw of a frozen unit: whether cold holds files of it.
    """
    if unit.state is not found_in:
        raise RefusedError(
            f"{unit.name} is {unit.state} ({unit.move}), not {found_in}: it went on since you looked",
            "look again (./firn status), then decide",
        )
    back = outcome(unit)
    if back is None:
        raise _refused(unit)
    if back is State.SEALED:
        return unit.to(State.SEALED, epoch)
    if unit.move.is_thaw:
        return replace(unit.kept_where_it_is(has_supplement), epoch=epoch)
    # N stays: files of an attempt that was killed after its commit are cut by it, and the next one must replace them.
    return unit.changed(state=State.OPEN, epoch=epoch, sealed_at=None)


def reroutes_back(unit: Unit) -> bool:
    """Whether writers must be told of the override: they go from the lane back to a table."""
    return unit.state is State.SEALED and seal_reroutes(unit.move)


def checked_reason(text: str) -> str:
    """RefusedError for one that says nothing, is no single line, is long, or looks as if it named a person."""
    reason = text.strip()
    if not reason or len(reason) > REASON_CHARACTERS or not reason.isprintable():
        raise RefusedError(
            f"a reason is one line of 1 to {REASON_CHARACTERS} characters", "say in a few words why, e.g. a ticket"
        )
    if _PERSONAL.search(reason):
        raise RefusedError(
            "the reason holds what may be an address, a long number or an id of a person or conversation",
            "say it without: the audit is kept for good and shown to many",
        )
    return reason


def checked_actor(text: str) -> str:
    """RefusedError for one that says nothing, is no single line or is long."""
    actor = text.strip()
    if not actor or len(actor) > ACTOR_CHARACTERS or not actor.isprintable():
        raise RefusedError(f"who does it is one line of 1 to {ACTOR_CHARACTERS} characters", "name it: --by NAME")
    return actor


def _refused(unit: Unit) -> RefusedError:
    what = f"{unit.name} is {unit.state} ({unit.move}): no override leads back from there"
    if unit.state is State.OPEN:
        return RefusedError(what, "nothing has begun; there is nothing to take back")
    return RefusedError(
        what, "its sink holds writes that its source does not: let it be dropped, then bring it back with ./firn thaw"
    )
