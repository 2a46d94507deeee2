"""The log's words: what its topics and groups are called, and what lies in them."""

from dataclasses import dataclass

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
    return f"dead-letters.{region}"


def consumer_group(region: str) -> str:
    return f"consumer.{region}"
