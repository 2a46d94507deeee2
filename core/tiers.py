"""Which tier a week belongs in, by the age of its last instant."""

from datetime import datetime, timedelta
from enum import StrEnum

from core import settings, weeks


class Tier(StrEnum):
    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    FROZEN = "frozen"

    @property
    def is_cql(self) -> bool:
        return self in (Tier.HOT, Tier.WARM)


def target(week: int, now: datetime, policy: settings.Tiers) -> Tier:
    age = now - weeks.end(week)
    if age < timedelta(days=policy.hot_days):
        return Tier.HOT
    if age < timedelta(days=policy.warm_days):
        return Tier.WARM
    return Tier.COLD if age < timedelta(days=policy.cold_days) else Tier.FROZEN


def leaves_at(week: int, tier: Tier, policy: settings.Tiers) -> datetime | None:
    """When a week that lies in `tier` is due to leave it; None for the last tier."""
    days = {Tier.HOT: policy.hot_days, Tier.WARM: policy.warm_days, Tier.COLD: policy.cold_days}
    return weeks.end(week) + timedelta(days=days[tier]) if tier in days else None
