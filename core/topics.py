"""The log's words: what its topics and groups are called, and what lies in them."""

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.events import BODY_BYTES_MAX

RECORD_BYTES_MAX = 2 * BODY_BYTES_MAX  # Kafka's default of one megabyte has no room for a full body and its envelope
DEAD_LETTER_BYTES_MAX = 2 * RECORD_BYTES_MAX
_DEAD_LETTERS = "dead-letters."
Place = tuple[str, int]  # topic, partition


@dataclass(frozen=True)
class Record:
    """`timestamp_ms` is when the log took it; a null key or value reads as empty bytes."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes

    @property
    def place(self) -> Place:
        return self.topic, self.partition


@dataclass(frozen=True)
class Committed:
    """Both None where nothing is committed; `route` alone where the commit carries no route number."""

    offset: int | None
    route: int | None


@dataclass(frozen=True)
class DeadLetter:
    """A record that the consumer could not keep, byte for byte, and from where it came."""

    reason: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes


def topic_for(region: str, is_group: bool) -> str:
    return f"messages.{region}.{'group' if is_group else 'direct'}"


def message_topics(region: str) -> tuple[str, str]:
    """Direct first: it goes first when the consumer lags."""
    return topic_for(region, is_group=False), topic_for(region, is_group=True)


def dead_letter_topic(region: str) -> str:
    return f"{_DEAD_LETTERS}{region}"


def record_bytes_max(topic: str) -> int:
    """A dead letter is its record with headers, and must always have room."""
    return DEAD_LETTER_BYTES_MAX if topic.startswith(_DEAD_LETTERS) else RECORD_BYTES_MAX


def consumer_group(region: str) -> str:
    return f"consumer.{region}"


def origin_headers(record: Record, reason: str) -> dict[str, bytes]:
    """What a dead letter says of itself; `letter_of` reads it back."""
    origin = {"topic": record.topic, "partition": str(record.partition), "offset": str(record.offset)}
    return {name: text.encode() for name, text in {"reason": reason, **origin}.items()}


def letter_of(record: Record, headers: Mapping[str, bytes]) -> DeadLetter:
    found = {name: value.decode() for name, value in headers.items()}
    origin = (found.get("topic", ""), int(found.get("partition", -1)), int(found.get("offset", -1)))
    return DeadLetter(found.get("reason", ""), *origin, record.timestamp_ms, record.key, record.value)
