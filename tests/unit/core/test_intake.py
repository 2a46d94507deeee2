"""What the consumer refuses to keep."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import assume, given

from core import ids
from core.intake import CLOCK_SKEW_US, MEDIA_REF_MAX, PREVIEW_BYTES_MAX, REACTION_BYTES_MAX, why_not
from schemas.events import BODY_BYTES_MAX, Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet
from tests import strategies

C = ids.conversation_uuid("test", "1")
NOW_US = 1_780_000_000_000_000
M, E = ids.compose(NOW_US - 5, 0, 0), ids.compose(NOW_US, 0, 0)
SENT = MessageSent(C, M, 1, 0, b"body", None, None, None, ids.instant(M))
EDITED = MessageEdited(C, M, E, 1, b"body")
FIRST_MONDAY_US = 4 * 24 * 3600 * 1_000_000
TOO_BIG = bytes(BODY_BYTES_MAX + 1)
AT_MOST = ids.compose(NOW_US + CLOCK_SKEW_US, 0, 0)
AHEAD = ids.compose(NOW_US + CLOCK_SKEW_US + 1, 0, 0)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (SENT, None),
        (EDITED, None),
        (MessageDeleted(C, M, E, 1), None),
        (ReactionSet(C, M, E, 1, None), None),
        (replace(SENT, body=None), None),
        (replace(SENT, body=bytes(BODY_BYTES_MAX)), None),
        (replace(SENT, body=TOO_BIG), "over the cap"),
        (replace(EDITED, body=TOO_BIG), "over the cap"),
        (replace(SENT, message_id=bytes(16)), "not a time-ordered id"),
        (replace(EDITED, message_id=b""), "not a time-ordered id"),
        (replace(EDITED, event_id=ids.to_timeuuid(E).bytes), "not a time-ordered id"),
        (replace(EDITED, message_id=ids.compose(FIRST_MONDAY_US, 0, 0)), None),
        (replace(EDITED, message_id=ids.compose(FIRST_MONDAY_US - 1, 0, 0)), "before the first week"),
        (replace(SENT, message_id=AT_MOST, server_ts=ids.instant(AT_MOST)), None),
        (replace(SENT, server_ts=ids.instant(M) + timedelta(microseconds=CLOCK_SKEW_US)), None),
        (replace(SENT, server_ts=ids.instant(M) + timedelta(microseconds=CLOCK_SKEW_US + 1)), "a day off its id"),
        (replace(SENT, server_ts=ids.instant(M) - timedelta(microseconds=CLOCK_SKEW_US + 1)), "a day off its id"),
        (replace(SENT, message_id=AHEAD), "ahead of the log"),
        (replace(EDITED, message_id=AHEAD), "ahead of the log"),
        (replace(EDITED, event_id=AHEAD), "ahead of the log"),
        (replace(SENT, reply_to=M), None),
        (replace(SENT, reply_to=bytes(16)), "not a time-ordered id"),
        (replace(EDITED, event_id=M), "the id of its message"),
        (replace(SENT, sender_id=0), None),
        (replace(SENT, sender_id=-1), "a negative number"),
        (replace(EDITED, user_id=-1), "a negative number"),
        (replace(SENT, preview=bytes(PREVIEW_BYTES_MAX)), None),
        (replace(SENT, preview=bytes(PREVIEW_BYTES_MAX + 1)), "over the cap"),
        (replace(SENT, media_ref="m" * (MEDIA_REF_MAX + 1)), "over the cap"),
        (ReactionSet(C, M, E, 1, bytes(REACTION_BYTES_MAX)), None),
        (ReactionSet(C, M, E, 1, bytes(REACTION_BYTES_MAX + 1)), "over the cap"),
        (replace(SENT, conversation_id=ids.conversation_uuid("test", "2")), "another conversation"),
    ],
)
def test_reasons(event: Event, reason: str | None) -> None:
    found = why_not(event, C, NOW_US)
    assert found is None if reason is None else found is not None and reason in found


@given(strategies.events)
def test_what_we_make_is_kept(event: Event) -> None:
    later_us = max(ids.unix_us(event.message_id), ids.unix_us(event.event_id))
    assume(isinstance(event, MessageSent) or event.event_id != event.message_id)
    assert why_not(event, event.conversation_id, later_us) is None


@given(strategies.events)
def test_a_reason_holds_nothing_of_the_event(event: Event) -> None:
    """It is logged, and it lies in the dead-letter topic longer than the event may."""
    reason = why_not(event, b"", 0)
    assert reason is not None
    assert not any(character.isdigit() for character in reason)
