"""A week: whole weeks since Monday 1970-01-05 UTC, an int; people see ISO `2026-W35`."""

import re
from datetime import UTC, date, datetime, timedelta

from core import ids
from core.errors import RefusedError

FIRST_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
WEEK = timedelta(weeks=1)
LAST_WEEK = (datetime(9999, 1, 1, tzinfo=UTC) - FIRST_MONDAY) // WEEK


def of_instant(when: datetime) -> int:
    return (when - FIRST_MONDAY) // WEEK


def of_id(message_id: bytes) -> int:
    """A message's week comes from its id, never from a wall clock."""
    return of_instant(ids.instant(message_id))


def start(week: int) -> datetime:
    return FIRST_MONDAY + week * WEEK


def end(week: int) -> datetime:
    """The first instant that is no longer in the week."""
    return start(week + 1)


def label(week: int) -> str:
    year, number, _ = start(week).isocalendar()
    return f"{year}-W{number:02d}"


def parse(text: str) -> int:
    """`2026-W35`, or the number itself."""
    if re.fullmatch(r"[0-9]{1,6}", text) and int(text) <= LAST_WEEK:
        return int(text)
    match = re.fullmatch(r"([0-9]{4})-W([0-9]{2})", text)
    if match:
        try:
            monday = date.fromisocalendar(int(match[1]), int(match[2]), 1)
            return of_instant(datetime(monday.year, monday.month, monday.day, tzinfo=UTC))
        except ValueError:
            pass
    raise RefusedError(f"{text!r} is not a week", "write it as 2026-W35, or as its number")
