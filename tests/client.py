"""A chat client for tests: sends events and writes down each one that was acknowledged, for the checker to judge by."""

import json
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from core import ids
from core.errors import FirnError
from core.settings import Settings
from core.topics import topic_for
from schemas.events import Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet, encode
from stores import kafka

PATIENCE_SECONDS = 40.0


class Client:
    """`log` grows by one JSON line per acknowledged event."""

    def __init__(self, config: Settings, region: str, log: Path) -> None:
        self.config, self.region, self.log = config, region, log
        self._producer = kafka.open_producer(config.kafka)
        log.touch()

    def send(self, events: Iterable[Event]) -> int:
        """Returns how many were sent; all of them are acknowledged and written down then."""
        sent = 0
        with self.log.open("a") as log:

            def note(event: Event) -> Callable[[FirnError | None], None]:
                def done(fault: FirnError | None) -> None:
                    assert fault is None, fault
                    log.write(json.dumps(written_down(event)) + "\n")

                return done

            for event in events:
                topic = topic_for(self.region, is_group=event.conversation_id[0] % 2 == 0)
                self._producer.produce(topic, event.conversation_id, encode(event), done=note(event))
                sent += 1
            self._producer.flush()
        return sent

    def send_bytes(self, key: bytes, payload: bytes) -> None:
        """What is no event; it is not written down."""
        self._producer.produce(topic_for(self.region, is_group=False), key, payload)
        self._producer.flush()

    def wait_until_consumed(self) -> None:
        def is_consumed() -> bool:
            found = kafka.positions(self.config.kafka, self.region)
            return all(state.committed == state.end for state in found)

        until(is_consumed, f"the consumer of {self.region} does not reach the end of its log")


def until(condition: Callable[[], object], otherwise: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def written_down(event: Event) -> dict[str, Any]:
    """Plain JSON: bytes as hex."""
    line: dict[str, Any] = {"kind": type(event).__name__}
    for name, value in vars(event).items():
        line[name] = value.hex() if isinstance(value, bytes) else value
    if isinstance(event, MessageSent):
        line["server_ms"] = (line.pop("server_ts") - ids.UNIX_EPOCH) // timedelta(milliseconds=1)
    return line


def sent(conversation: int, when: datetime, number: int = 0, body: bytes = b"ciphertext") -> MessageSent:
    """Message `number` of that instant."""
    message_id = ids.imported_id(when, "test", str(conversation), str(number))
    plain = (conversation % 5, 0, body, None, None, b"preview")
    return MessageSent(conversation_uuid(conversation), message_id, *plain, when)


def edited(message: MessageSent, when: datetime, body: bytes | None = b"edited") -> MessageEdited:
    event_id = ids.imported_id(when, "edit", message.message_id.hex(), repr(body))
    return MessageEdited(message.conversation_id, message.message_id, event_id, message.sender_id, body)


def deleted(message: MessageSent, when: datetime) -> MessageDeleted:
    event_id = ids.imported_id(when, "delete", message.message_id.hex(), "")
    return MessageDeleted(message.conversation_id, message.message_id, event_id, message.sender_id)


def reacted(message: MessageSent, when: datetime, user: int, reaction: bytes | None = b"heart") -> ReactionSet:
    event_id = ids.imported_id(when, "react", message.message_id.hex(), f"{user}/{reaction!r}")
    return ReactionSet(message.conversation_id, message.message_id, event_id, user, reaction)


def conversation_uuid(number: int) -> bytes:
    return ids.conversation_uuid("test", str(number))


def amended(messages: list[MessageSent], when: datetime) -> list[Event]:
    """One of each kind, on the first four of `messages` (edited, deleted, reacted to, reaction taken back), and more
    than one edit on the fifth."""
    a, b, c, d, e = messages[:5]
    later = when + timedelta(seconds=1)
    return [
        edited(a, when),
        deleted(b, when),
        reacted(c, when, 7),
        reacted(d, when, 8),
        reacted(d, later, 8, None),
        edited(e, later, b"the later edit"),
        edited(e, when, b"the earlier edit, sent last"),
    ]
