"""Events on the wire: whole, the same bytes for ever, and malformed in one way only."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import events
from schemas.events import Event, MalformedEventError, MessageDeleted, MessageEdited, MessageSent, ReactionSet
from tests import strategies

GOLDEN = Path(__file__).parents[2] / "golden" / "events.json"
C, M, E = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
WHEN = datetime(2026, 2, 28, 12, 42, 2, 7000, tzinfo=UTC)
EXAMPLES: dict[str, Event] = {
    "sent": MessageSent(C, M, 7, 1, b"body", "ab12", E, b"preview", WHEN),
    "sent, all optional fields null": MessageSent(C, M, 2**63 - 1, 0, None, None, None, None, WHEN),
    "edited": MessageEdited(C, M, E, 7, b"new"),
    "deleted": MessageDeleted(C, M, E, 7),
    "reaction": ReactionSet(C, M, E, 7, b"r"),
    "reaction taken back": ReactionSet(C, M, E, 7, None),
}


@given(strategies.events)
def test_an_event_comes_back_whole(event: Event) -> None:
    assert events.decode(events.encode(event)) == event


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_bytes_are_those_of_the_golden_file(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert golden.keys() == EXAMPLES.keys()
    assert events.encode(EXAMPLES[name]).hex() == golden[name]
    assert events.decode(bytes.fromhex(golden[name])) == EXAMPLES[name]


def decoded_or_malformed(payload: bytes) -> Event | None:
    try:
        return events.decode(payload)
    except MalformedEventError:
        return None


@given(st.binary(max_size=200))
def test_noise_is_malformed(payload: bytes) -> None:
    assert decoded_or_malformed(payload) is None


@given(st.sampled_from(sorted(EXAMPLES)), st.binary(max_size=120))
def test_noise_after_a_header_is_malformed_or_an_event(name: str, noise: bytes) -> None:
    found = decoded_or_malformed(events.encode(EXAMPLES[name])[:10] + noise)
    assert found is None or decoded_or_malformed(events.encode(found)) == found


@given(strategies.events, st.data())
def test_a_flipped_or_foreign_byte_is_malformed_or_an_event(event: Event, data: st.DataObject) -> None:
    payload = bytearray(events.encode(event))
    for place in data.draw(st.lists(st.integers(0, len(payload) - 1), min_size=1, max_size=4)):
        payload[place] = data.draw(st.integers(0, 255))
    found = decoded_or_malformed(bytes(payload))
    assert found is None or decoded_or_malformed(events.encode(found)) == found


@given(strategies.events, st.data())
def test_a_cut_or_longer_payload_is_malformed(event: Event, data: st.DataObject) -> None:
    payload = events.encode(event)
    assert decoded_or_malformed(payload[: data.draw(st.integers(0, len(payload) - 1))]) is None
    assert decoded_or_malformed(payload + data.draw(st.binary(min_size=1, max_size=5))) is None


def test_a_body_beyond_the_limit_is_malformed() -> None:
    sent = EXAMPLES["sent"]
    assert isinstance(sent, MessageSent)
    full = replace(sent, body=bytes(events.BODY_BYTES_MAX))
    assert events.decode(events.encode(full)) == full
    with pytest.raises(MalformedEventError, match="body"):
        events.decode(events.encode(replace(sent, body=bytes(events.BODY_BYTES_MAX + 1))))


@pytest.mark.parametrize("kind", [-1, 128, 70_000])
def test_a_message_type_that_no_table_holds_is_malformed(kind: int) -> None:
    sent = EXAMPLES["sent"]
    assert isinstance(sent, MessageSent)
    with pytest.raises(MalformedEventError, match="message_type"):
        events.decode(events.encode(replace(sent, message_type=kind)))


def test_a_fault_never_quotes_what_was_sent() -> None:
    payload = events.encode(EXAMPLES["edited"])[:-1]
    with pytest.raises(MalformedEventError) as caught:
        events.decode(payload)
    assert "new" not in str(caught.value)
    assert caught.value.__suppress_context__
