"""Sends the sample's traffic to Kafka, as the gateways would have. Twice is harmless: ids repeat."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from core import ids, topics
from core.errors import RefusedError
from core.settings import Settings
from ops import sample
from schemas import events
from stores import kafka

PROGRESS_SECONDS = 1.0


@dataclass(frozen=True)
class Report:
    """Acknowledged events by (region, kind)."""

    sent: Mapping[tuple[str, str], int]

    @property
    def total(self) -> int:
        return sum(self.sent.values())

    def __str__(self) -> str:
        lines = [f"{region} {kind}: {count:,}" for (region, kind), count in sorted(self.sent.items())]
        return "\n".join((*lines, f"total: {self.total:,}"))


def replay(settings: Settings, start: datetime, end: datetime, say: Callable[[str], None]) -> Report:
    """Traffic of [start, end), keyed by conversation. Returns when Kafka has acknowledged all of it."""
    if end <= start:
        raise RefusedError("the window to replay ends before it starts", "give a start before the end")
    for region in settings.regions:
        kafka.end_offsets(settings.kafka, region)  # names a missing topic before anything is sent
    producer = kafka.open_producer(settings.kafka)
    sent: Counter[tuple[str, str]] = Counter()
    said_at = monotonic()
    for region, event in sample.traffic(start, end, settings.regions):
        topic = topics.topic_for(region, sample.is_group(event.conversation_id))
        producer.produce(topic, event.conversation_id, events.encode(event))
        sent[region, type(event).__name__] += 1
        if monotonic() - said_at >= PROGRESS_SECONDS:
            said_at = monotonic()
            say(f"{sent.total():,} events sent, up to {_day(event)}")
    producer.flush()
    say(f"{sent.total():,} events sent and acknowledged")
    return Report(dict(sent))


def _day(event: events.Event) -> str:
    return f"{ids.instant(event.event_id):%Y-%m-%d %H:%M}"
