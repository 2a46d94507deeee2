"""When a unit is stuck: under way for longer than `alarms.stuck_hours`, or past its grace for so long, not dropped."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from core import settings
from core.moves import State, Unit


@dataclass(frozen=True)
class Stuck:
    """`since` is when the unit began to wait for what does not come."""

    unit: Unit
    since: datetime


def waits_since(unit: Unit, asked_at: datetime | None, policy: settings.Tiers) -> datetime | None:
    """From when on the unit should have gone on; None at rest. `asked_at`: when a thaw that is not sealed yet was
    asked for, which the unit itself does not say."""
    match unit.state:
        case State.OPEN:
            return asked_at if unit.move.is_thaw else None
        case State.SEALED | State.COPIED | State.VERIFIED:
            return unit.sealed_at
        case State.SWITCHED if unit.switched_at:
            return unit.switched_at + timedelta(days=policy.grace_days if unit.settled else 0)
        case _:
            return None


def stuck(
    unit: Unit, asked_at: datetime | None, now: datetime, policy: settings.Tiers, alarms: settings.Alarms
) -> Stuck | None:
    since = waits_since(unit, asked_at, policy)
    is_long = since is not None and now - since > timedelta(hours=alarms.stuck_hours)
    return Stuck(unit, since) if since is not None and is_long else None
