"""The log: one durable commit per message, read by the consumer, judged by the gate.

Offset commits carry the route number that their writer knew. A group never starts at a place that nobody chose
(`auto.offset.reset` is an error here), so `ensure_topics` commits the first offset of each partition.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from time import monotonic, sleep
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka import Consumer as Client
from confluent_kafka import Producer as Sender
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from core import gate
from core.errors import BlockedError, FirnError
from core.gate import PartitionState
from core.settings import Kafka
from core.topics import (
    RECORD_BYTES_MAX,
    Committed,
    DeadLetter,
    Place,
    Record,
    consumer_group,
    dead_letter_topic,
    letter_of,
    message_topics,
    origin_headers,
    record_bytes_max,
)
from stores.kafka_faults import MAKE_TOPICS, PASSING, START, commit_fault, translated

RETENTION = timedelta(days=7)  # must stay below gc_grace, or an erased person lives on in the log
SAFE_REPLICATION = 3  # from here on two copies must acknowledge, and one node may die
ANSWER_SECONDS = 10.0
DELIVERY_SECONDS = 60.0
SETTLE_SECONDS = 0.05
FIRST_OFFSET = 0
OLDEST: Any = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
NEWEST: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]

Key = TypeVar("Key")
Answer = TypeVar("Answer")
Done = Callable[[FirnError | None], None]


def ensure_topics(kafka: Kafka, region: str, route: int) -> None:
    """Makes what is missing, and commits offset 0 where the region's group has no commit yet.

    Offset 0, not the oldest that is left: where the log lost its beginning unread, gate and consumer must say so.
    """
    admin = _admin(kafka)
    topics = message_topics(region)
    listed = _partitions(kafka, admin)
    missing = [name for name in (*topics, dead_letter_topic(region)) if name not in listed]
    if missing:
        _make(kafka, admin, missing)
    known = _commits_of(kafka, region, _places(kafka, admin, topics))
    if unset := [place for place, committed in known.items() if committed.offset is None]:
        _commit_first(kafka, admin, region, unset, route)


def end_offsets(kafka: Kafka, region: str, topics: Iterable[str] = ()) -> dict[Place, int]:
    """The first offset not yet written, asked for now, of each partition of `topics`, else of the message topics."""
    return _offsets(kafka, admin := _admin(kafka), _places(kafka, admin, topics or message_topics(region)), NEWEST)


def committed(kafka: Kafka, region: str, ends: Mapping[Place, int]) -> list[PartitionState]:
    """What the gate judges: starts and commits of now against `ends`, which must have been read after the seal."""
    admin = _admin(kafka)
    known = _commits_of(kafka, region, ends)
    starts = _offsets(kafka, admin, ends, OLDEST)
    return [
        PartitionState(*place, starts[place], end, known[place].offset, known[place].route)
        for place, end in ends.items()
    ]


def positions(kafka: Kafka, region: str, topics: Iterable[str] = ()) -> list[PartitionState]:
    """As `committed`, against the ends of this instant."""
    return committed(kafka, region, end_offsets(kafka, region, topics))


def _admin(kafka: Kafka) -> AdminClient:
    return AdminClient(configuration(kafka))


def configuration(kafka: Kafka, **more: Any) -> dict[str, Any]:
    if not kafka.bootstrap:
        raise BlockedError("no Kafka is configured and no local stack is up", START)
    # The client logs each refused connection to stderr; what matters comes back as an error anyway.
    return {"bootstrap.servers": kafka.bootstrap, "log_level": 2, "client.id": "firn", **more}


def _make(kafka: Kafka, admin: AdminClient, names: Sequence[str]) -> None:
    """Returns when their partitions answer: a topic just made is not known at once."""
    for name, made in admin.create_topics([_new_topic(kafka, name) for name in names]).items():
        try:
            made.result()
        except KafkaException as fault:
            if fault.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _translated(kafka, fault.args[0], f"make topic {name}") from fault
    deadline = monotonic() + ANSWER_SECONDS
    while not set(names) <= _partitions(kafka, admin).keys():
        if monotonic() > deadline:
            raise BlockedError("Kafka made the topics but does not list them yet", "run the same command again")
        sleep(SETTLE_SECONDS)
    _offsets(kafka, admin, _places(kafka, admin, names), OLDEST)


def _new_topic(kafka: Kafka, name: str) -> NewTopic:
    config = {
        # Under CreateTime, replayed history would be older than the retention and expire at once.
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(RETENTION // timedelta(milliseconds=1)),
        "max.message.bytes": str(record_bytes_max(name)),
    }
    if kafka.replication >= SAFE_REPLICATION:
        config["min.insync.replicas"] = "2"
    return NewTopic(name, kafka.partitions, kafka.replication, config=config)


def _partitions(kafka: Kafka, admin: AdminClient) -> dict[str, list[int]]:
    try:
        listed = admin.list_topics(timeout=ANSWER_SECONDS).topics
    except KafkaException as fault:
        raise _translated(kafka, fault.args[0], "list topics") from fault
    return {name: sorted(topic.partitions) for name, topic in listed.items() if topic.partitions and not topic.error}


def _places(kafka: Kafka, admin: AdminClient, topics: Iterable[str]) -> list[Place]:
    known, wanted = _partitions(kafka, admin), list(topics)
    if missing := [topic for topic in wanted if topic not in known]:
        raise BlockedError(f"Kafka has no topic {', '.join(missing)}", MAKE_TOPICS)
    return [(topic, partition) for topic in wanted for partition in known[topic]]


def _offsets(kafka: Kafka, admin: AdminClient, places: Iterable[Place], which: Any) -> dict[Place, int]:
    wanted = {TopicPartition(*place): which for place in places}
    ask = partial(admin.list_offsets, wanted, request_timeout=ANSWER_SECONDS)
    answers = _answers(kafka, ask, "give the offsets of a topic")
    return {(mark.topic, mark.partition): answer.offset for mark, answer in answers.items()}


def _commits_of(kafka: Kafka, region: str, places: Iterable[Place]) -> dict[Place, Committed]:
    """As a client that never joins: the admin client's crashes while the coordinator comes up (librdkafka 5040)."""
    # Stable offsets only: one that a commit under way may still replace is no answer for the gate.
    options = {"group.id": consumer_group(region), "enable.auto.commit": False, "isolation.level": "read_committed"}
    marks = [TopicPartition(*place) for place in places]
    client = Client(configuration(kafka, **options))
    try:
        ask = partial(client.committed, marks, timeout=ANSWER_SECONDS)
        return _commits(kafka, _asked(kafka, ask, "give the committed offsets"))
    finally:
        client.close()


def _commit_first(kafka: Kafka, admin: AdminClient, region: str, places: Iterable[Place], route: int) -> None:
    marks = _marks(dict.fromkeys(places, FIRST_OFFSET), gate.metadata(route))
    request = ConsumerGroupTopicPartitions(consumer_group(region), marks)
    ask = partial(admin.alter_consumer_group_offsets, [request], request_timeout=ANSWER_SECONDS)
    (answer,) = _answers(kafka, ask, "commit the first offsets").values()
    _commits(kafka, answer.topic_partitions or ())


def _commits(kafka: Kafka, marks: Iterable[TopicPartition]) -> dict[Place, Committed]:
    found = {}
    for mark in marks:
        if mark.error:
            raise _translated(kafka, mark.error, f"give or take the committed offset of {mark.topic}")
        is_set = mark.offset >= FIRST_OFFSET
        route = gate.route_in(mark.metadata)
        found[mark.topic, mark.partition] = Committed(mark.offset, route) if is_set else Committed(None, None)
    return found


def _marks(offsets: Mapping[Place, int], metadata: str) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset, metadata) for (topic, partition), offset in offsets.items()]


def _answers(kafka: Kafka, ask: Callable[[], Mapping[Key, "Future[Answer]"]], doing: str) -> dict[Key, Answer]:
    return _asked(kafka, lambda: {key: answer.result() for key, answer in ask().items()}, doing)


def _asked(kafka: Kafka, ask: Callable[[], Answer], doing: str) -> Answer:
    """Asks again while leaders and coordinators settle."""
    deadline = monotonic() + ANSWER_SECONDS
    while True:
        try:
            return ask()
        except KafkaException as fault:
            if fault.args[0].name() not in PASSING or monotonic() > deadline:
                raise _translated(kafka, fault.args[0], doing) from fault
            sleep(SETTLE_SECONDS)


def _translated(kafka: Kafka, error: KafkaError, doing: str) -> FirnError:
    return translated(kafka.bootstrap, error.name(), doing)


class Producer:
    """Counts what is acknowledged and what failed; a failure that no `done` took is raised by the next call."""

    def __init__(self, kafka: Kafka, sender: Sender) -> None:
        self._kafka = kafka
        self._sender = sender
        self._error: FirnError | None = None
        self.acknowledged = 0
        self.failed = 0

    def produce(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        headers: Mapping[str, bytes] | None = None,
        done: Done | None = None,
    ) -> None:
        """Waits only while the queue is full. `done` gets the outcome of this record from a later call."""
        self.poll(0)
        while True:
            try:
                self._sender.produce(
                    topic, value, key, callback=partial(self._delivered, done), headers=list((headers or {}).items())
                )
                return
            except BufferError:
                self.poll(0.1)
            except KafkaException as fault:
                raise _translated(self._kafka, fault.args[0], f"take a record for {topic}") from fault

    def poll(self, timeout_seconds: float) -> None:
        """Hands out what was decided since."""
        self._sender.poll(timeout_seconds)
        self._raise()

    def flush(self) -> None:
        """Returns only when all that was produced is acknowledged; a failure is raised once everything is decided."""
        while self._sender.flush(1.0):
            continue
        self._raise()

    def _delivered(self, done: Done | None, error: KafkaError | None, message: Message) -> None:
        fault = _translated(self._kafka, error, f"take a record for {message.topic()}") if error else None
        self.failed += fault is not None
        self.acknowledged += fault is None
        if done:
            done(fault)
        else:
            self._error = self._error or fault

    def _raise(self) -> None:
        if self._error:
            error, self._error = self._error, None
            raise error


def open_producer(kafka: Kafka, bytes_max: int = RECORD_BYTES_MAX) -> Producer:
    """Raises BlockedError at once when Kafka does not answer, not only after the delivery time."""
    options = {
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "lz4",
        # The hash that Kafka's own clients use, so that every producer sends a conversation the same way.
        "partitioner": "murmur2_random",
        "message.max.bytes": bytes_max,
        "delivery.timeout.ms": int(DELIVERY_SECONDS * 1000),
        # Topics are made before anyone produces, so one that stays unknown is missing, not late.
        "topic.metadata.propagation.max.ms": 3000,
        "queue.buffering.max.kbytes": 64 * 1024,
    }
    sender = Sender(configuration(kafka, **options))
    try:
        sender.list_topics(timeout=ANSWER_SECONDS)
    except KafkaException as fault:
        raise _translated(kafka, fault.args[0], "answer") from fault
    return Producer(kafka, sender)


def dead_letter(producer: Producer, region: str, record: Record, reason: str) -> None:
    """`reason` names the fault, never the content. Commit past the original only after `producer.flush()`."""
    producer.produce(dead_letter_topic(region), record.key, record.value, origin_headers(record, reason))


@dataclass(frozen=True)
class Consumer:
    """A member of the region's group; only `commit` moves its place. After any error of `poll`, close it."""

    kafka: Kafka
    client: Client

    def close(self) -> None:
        """Leaves the group, so that its partitions are handed on at once."""
        self.client.close()


def open_consumer(
    kafka: Kafka,
    region: str,
    assigned: Callable[[Mapping[Place, Committed]], None] | None = None,
    revoked: Callable[[Sequence[Place]], None] | None = None,
) -> Consumer:
    """`assigned` is called within `poll`, before the first record of its partitions, with what their last owner
    committed: a route newer than one's own means "reload first". `revoked` also tells of partitions lost."""
    options = {
        "group.id": consumer_group(region),
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "session.timeout.ms": 10_000,
        "queued.max.messages.kbytes": 32 * 1024,
    }
    client = Client(configuration(kafka, **options))

    def on_assign(_: Client, marks: list[TopicPartition]) -> None:
        try:
            known = _commits(kafka, client.committed(marks, timeout=ANSWER_SECONDS))
        except KafkaException as fault:
            raise _translated(kafka, fault.args[0], "give the committed offsets") from fault
        if assigned:
            assigned(known)

    def on_revoke(_: Client, marks: list[TopicPartition]) -> None:
        if revoked:
            revoked([(mark.topic, mark.partition) for mark in marks])

    client.subscribe(list(message_topics(region)), on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)
    return Consumer(kafka, client)


def poll(consumer: Consumer, limit: int, timeout_seconds: float) -> list[Record]:
    """Waits for the first record only, then takes what is there already, up to `limit`."""
    return [_record(consumer.kafka, message) for message in _some(consumer.client, limit, timeout_seconds)]


def commit(consumer: Consumer, offsets: Mapping[Place, int], metadata: str) -> None:
    """`offsets` are the next to read; the same offset with other metadata is a commit too. Returns when stored."""
    try:
        stored = consumer.client.commit(offsets=_marks(offsets, metadata), asynchronous=False)
    except KafkaException as fault:
        raise commit_fault(consumer.kafka.bootstrap, fault.args[0].name()) from fault
    for mark in stored:
        if mark.error:
            raise commit_fault(consumer.kafka.bootstrap, mark.error.name())


def read_dead_letters(kafka: Kafka, region: str, limit: int) -> Iterator[DeadLetter]:
    """From the oldest that is left to the end of now; in no group, so looking changes nothing."""
    ends = end_offsets(kafka, region, [dead_letter_topic(region)])
    starts = _offsets(kafka, _admin(kafka), ends, OLDEST)
    left = {place: end for place, end in ends.items() if end > starts[place]}
    client = Client(configuration(kafka, **{"group.id": f"look.{region}", "enable.auto.commit": False}))
    try:
        client.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in left])
        while left and limit > 0:
            messages = _some(client, min(limit, 1000), ANSWER_SECONDS)
            if not messages:
                raise BlockedError("Kafka stopped answering amid the dead letters", START)
            for message in messages:
                record = _record(kafka, message)
                end = left.get(record.place, FIRST_OFFSET)
                if record.offset < end:
                    headers = {str(pair[0]): _bytes(pair[1]) for pair in message.headers() or ()}
                    yield letter_of(record, headers)
                    limit -= 1
                if record.offset + 1 >= end:
                    left.pop(record.place, None)
    finally:
        client.close()


def _some(client: Client, limit: int, timeout_seconds: float) -> list[Message]:
    first = client.poll(timeout_seconds)
    if first is None:
        return []
    return [first, *(client.consume(limit - 1, 0) if limit > 1 else ())]


def _record(kafka: Kafka, message: Message) -> Record:
    if error := message.error():
        raise _translated(kafka, error, f"read {message.topic() or 'the log'}")
    place = (str(message.topic()), int(message.partition() or 0), int(message.offset() or 0))
    return Record(*place, message.timestamp()[1], _bytes(message.key()), _bytes(message.value()))


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""
