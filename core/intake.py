"""What the consumer refuses to keep: an event that decodes but cannot be true."""

from datetime import datetime, timedelta

from core import ids
from schemas.events import BODY_BYTES_MAX, Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet

PREVIEW_BYTES_MAX = 4096
MEDIA_REF_MAX = 256
REACTION_BYTES_MAX = 1024
CLOCK_SKEW_US = 24 * 3600 * 1_000_000
_FIRST_WEEK_US = 4 * CLOCK_SKEW_US  # Monday 1970-01-05


def why_not(event: Event, key: bytes, appended_us: int) -> str | None:
    """The reason for the dead-letter topic; None when the event is good. `appended_us` is when the log took it."""
    named = [event.message_id, event.event_id]
    if isinstance(event, MessageSent) and event.reply_to is not None:
        named.append(event.reply_to)
    if not all(map(ids.is_ordered_id, named)):
        return "an id is not a time-ordered id of ours"
    if key != event.conversation_id:
        return "its key is another conversation"
    if event.user_id < 0:
        return "its user has a negative number"
    if not isinstance(event, MessageSent) and event.event_id == event.message_id:
        return "it has the id of its message, so the two could not be told apart"
    return _untimely(event, appended_us) or _over_a_cap(event)


def _untimely(event: Event, appended_us: int) -> str | None:
    message_us = ids.unix_us(event.message_id)
    if message_us < _FIRST_WEEK_US:
        return "its message is from before the first week"
    if max(ids.unix_us(event.event_id), message_us) > appended_us + CLOCK_SKEW_US:
        return "it is more than a day ahead of the log"
    if isinstance(event, MessageSent) and abs(_unix_us(event.server_ts) - message_us) > CLOCK_SKEW_US:
        return "its server_ts is more than a day off its id"
    return None


def _unix_us(when: datetime) -> int:
    return (when - ids.UNIX_EPOCH) // timedelta(microseconds=1)


def _over_a_cap(event: Event) -> str | None:
    match event:
        case MessageSent():
            if len(event.preview or b"") > PREVIEW_BYTES_MAX or len(event.media_ref or "") > MEDIA_REF_MAX:
                return "its preview or its media reference is over the cap"
            return "its body is over the cap" if len(event.body or b"") > BODY_BYTES_MAX else None
        case MessageEdited():
            return "its body is over the cap" if len(event.body or b"") > BODY_BYTES_MAX else None
        case ReactionSet():
            return "its reaction is over the cap" if len(event.reaction or b"") > REACTION_BYTES_MAX else None
        case MessageDeleted():
            return None
