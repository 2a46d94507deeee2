"""Weeks: Monday to Monday in UTC, an int for us and an ISO week for people."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids, weeks
from core.errors import RefusedError
from tests.strategies import ids_at, instants, week_numbers


@given(instants)
def test_an_instant_lies_in_its_week(when: datetime) -> None:
    week = weeks.of_instant(when)
    assert weeks.start(week) <= when < weeks.end(week)
    assert weeks.of_instant(when.astimezone(timezone(timedelta(hours=14)))) == week


@given(week_numbers)
def test_weeks_join_and_begin_on_monday(week: int) -> None:
    assert weeks.end(week) == weeks.start(week + 1)
    assert weeks.start(week).weekday() == 0
    assert weeks.of_instant(weeks.start(week)) == week
    assert weeks.of_instant(weeks.end(week) - timedelta(microseconds=1)) == week


@given(week_numbers)
def test_what_people_read_comes_back(week: int) -> None:
    assert weeks.parse(weeks.label(week)) == week
    assert weeks.parse(str(week)) == week


@given(ids_at(instants))
def test_an_id_has_the_week_of_its_instant(message_id: bytes) -> None:
    assert weeks.of_id(message_id) == weeks.of_instant(ids.instant(message_id))


@pytest.mark.parametrize(
    ("day", "label"),
    [
        (date(1970, 1, 5), "1970-W02"),
        (date(2020, 12, 31), "2020-W53"),
        (date(2021, 1, 3), "2020-W53"),
        (date(2024, 12, 30), "2025-W01"),
        (date(2026, 8, 24), "2026-W35"),
    ],
)
def test_labels_are_iso_weeks(day: date, label: str) -> None:
    assert weeks.label(weeks.of_instant(datetime(day.year, day.month, day.day, tzinfo=UTC))) == label


@given(st.text(max_size=12) | st.from_regex(r"\d{4}-W\d{2}") | st.from_regex(r"\d{1,30}", fullmatch=True))
def test_text_is_a_week_or_is_refused(text: str) -> None:
    try:
        week = weeks.parse(text)
    except RefusedError:
        return
    assert weeks.parse(weeks.label(week)) == week


@pytest.mark.parametrize("text", ["", "2026-W54", "2025-W53", "0000-W01", "2026-35", "²", "2026-W35 ", "-1", "9" * 30])
def test_what_is_no_week_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="is not a week"):
        weeks.parse(text)
