"""Restores as S3 keeps them, for the stores that keep them themselves: pure steps over one object's state."""

import json
from dataclasses import dataclass, replace
from datetime import datetime

from core import archive
from core.archive import Speed
from stores.objects import FrozenObjectError, Restore, RestoreUnderWayError


@dataclass(frozen=True)
class Asked:
    """The last restore that an object was asked for, at the `speed` that brings it."""

    speed: Speed
    days: int
    ready_at: datetime
    expires_at: datetime

    def as_text(self) -> str:
        facts = {"speed": self.speed, "days": self.days}
        return json.dumps(facts | {"ready_at": self.ready_at.isoformat(), "expires_at": self.expires_at.isoformat()})


def from_text(text: str | None) -> Asked | None:
    if text is None:
        return None
    facts = json.loads(text)
    ready_at, expires_at = (datetime.fromisoformat(facts[name]) for name in ("ready_at", "expires_at"))
    return Asked(Speed(facts["speed"]), facts["days"], ready_at, expires_at)


def ask(key: str, storage_class: str, asked: Asked | None, speed: Speed, days: int, now: datetime) -> Asked:
    """The state after the request; RestoreUnderWayError where it changes nothing."""
    delay, from_now = archive.retrieval(storage_class, speed).delay, archive.expires_at(now, days)
    if asked is None or now >= asked.expires_at:
        return Asked(speed, days, now + delay, archive.expires_at(now + delay, days))
    if now >= asked.ready_at:
        return replace(asked, expires_at=max(asked.expires_at, from_now))
    if delay >= archive.retrieval(storage_class, asked.speed).delay:
        raise RestoreUnderWayError(key)
    sooner = min(asked.ready_at, now + delay)
    return replace(asked, speed=speed, ready_at=sooner, expires_at=archive.expires_at(sooner, asked.days))


def seen(asked: Asked | None, now: datetime) -> Restore | None:
    """As a HEAD tells it: nothing of a copy that has expired."""
    if asked is None or now >= asked.expires_at:
        return None
    return Restore(now < asked.ready_at, asked.expires_at, asked.ready_at)


def check_readable(key: str, storage_class: str, asked: Asked | None, now: datetime) -> None:
    copy = seen(asked, now)
    if archive.is_archive(storage_class) and (copy is None or copy.is_ongoing):
        raise FrozenObjectError(key)
