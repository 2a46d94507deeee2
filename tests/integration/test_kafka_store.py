"""The log on a real Kafka: topics, commits with route numbers, the gate, dead letters, replay."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from core import gate, topics
from core import settings as configuration
from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError, RefusedError
from core.settings import Kafka, Settings
from core.topics import RECORD_BYTES_MAX, Committed, Place, Record
from ops import sample
from ops.replay import Report, replay
from schemas import events
from schemas.events import BODY_BYTES_MAX
from stores import kafka as log

PATIENCE_SECONDS = 30.0
KEYS = [number.to_bytes(16, "big") for number in range(40)]


@pytest.fixture(scope="module")
def kafka() -> Kafka:
    found = configuration.load().kafka
    if not found.bootstrap:
        pytest.skip("no Kafka: start it with `./firn stack up`")
    return found


@pytest.fixture
def region(kafka: Kafka) -> Iterator[str]:
    """A region of its own for each test, because each counts offsets from the start."""
    name = f"t{uuid4().hex[:10]}"
    log.ensure_topics(kafka, name, route=3)
    yield name
    made = [*topics.message_topics(name), topics.dead_letter_topic(name)]
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})  # held by name: a client that is let go answers nothing
    for deleted in admin.delete_topics(made).values():
        deleted.result()


@pytest.fixture
def open_consumer(kafka: Kafka, region: str) -> Iterator[Callable[..., log.Consumer]]:
    opened: list[log.Consumer] = []

    def opener(**callbacks: Callable[..., None]) -> log.Consumer:
        opened.append(log.open_consumer(kafka, region, **callbacks))
        return opened[-1]

    yield opener
    for consumer in opened:
        consumer.close()


def read(consumer: log.Consumer, count: int) -> list[Record]:
    """Exactly `count` records, or the test fails."""
    found: list[Record] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(found) < count and time.monotonic() < deadline:
        found += log.poll(consumer, 500, 0.5)
    assert len(found) == count
    return found


def send(kafka: Kafka, region: str, keys: Sequence[bytes], is_group: bool = False) -> log.Producer:
    producer = log.open_producer(kafka)
    for key in keys:
        producer.produce(topics.topic_for(region, is_group), key, b"value of " + key)
    producer.flush()
    return producer


def nexts(records: Sequence[Record]) -> dict[Place, int]:
    return {record.place: record.offset + 1 for record in records}


def read_until_failure(consumer: log.Consumer) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        log.poll(consumer, 100, 0.5)


def test_new_topics_start_committed_under_the_route(kafka: Kafka, region: str) -> None:
    states = log.positions(kafka, region)
    assert {(state.topic, state.partition) for state in states} == {
        (topic, partition) for topic in topics.message_topics(region) for partition in range(kafka.partitions)
    }
    assert {(state.start, state.end, state.committed, state.route) for state in states} == {(0, 0, 0, 3)}
    assert gate.blocking(states, 3) == ()
    assert len(gate.blocking(states, 4)) == len(states)


def test_topics_keep_the_time_of_the_log(kafka: Kafka, region: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    asked = [ConfigResource("topic", name) for name in (*topics.message_topics(region), f"dead-letters.{region}")]
    for answer in admin.describe_configs(asked).values():
        config = answer.result()
        assert config["message.timestamp.type"].value == "LogAppendTime"
        assert int(config["max.message.bytes"].value) > BODY_BYTES_MAX


def test_making_topics_again_moves_no_commit(
    kafka: Kafka, region: str, open_consumer: Callable[..., log.Consumer]
) -> None:
    send(kafka, region, KEYS)
    consumer = open_consumer()
    log.commit(consumer, nexts(read(consumer, len(KEYS))), gate.metadata(5))
    before = log.positions(kafka, region)
    log.ensure_topics(kafka, region, route=9)  # also while a member is in the group
    assert log.positions(kafka, region) == before


def test_a_conversation_stays_in_order_in_one_partition(
    kafka: Kafka, region: str, open_consumer: Callable[..., log.Consumer]
) -> None:
    producer = log.open_producer(kafka)
    for turn in range(50):
        for key in KEYS:
            producer.produce(topics.topic_for(region, is_group=True), key, bytes([turn]))
    producer.flush()
    assert (producer.acknowledged, producer.failed) == (50 * len(KEYS), 0)
    found = read(open_consumer(), 50 * len(KEYS))
    for key in KEYS:
        mine = [record for record in found if record.key == key]
        assert len({record.place for record in mine}) == 1
        assert [record.value for record in mine] == [bytes([turn]) for turn in range(50)]
    assert len({record.place for record in found}) > 1
    now_ms = time.time() * 1000
    assert all(abs(record.timestamp_ms - now_ms) < 300_000 for record in found)


def test_the_gate_opens_when_all_is_read_under_the_route(
    kafka: Kafka, region: str, open_consumer: Callable[..., log.Consumer]
) -> None:
    send(kafka, region, KEYS)
    ends = log.end_offsets(kafka, region)
    assert sum(ends.values()) == len(KEYS)
    assert any(
        "read up to offset 0 of" in sentence for sentence in gate.blocking(log.committed(kafka, region, ends), 3)
    )
    consumer = open_consumer()
    found = nexts(read(consumer, len(KEYS)))
    log.commit(consumer, found, gate.metadata(3))
    send(kafka, region, KEYS)  # after the seal: not the gate's business
    assert gate.blocking(log.committed(kafka, region, ends), 3) == ()
    assert gate.blocking(log.positions(kafka, region), 3)
    assert len(gate.blocking(log.committed(kafka, region, ends), 4)) == len(ends)
    log.commit(consumer, {place: found.get(place, 0) for place in ends}, gate.metadata(4))
    assert gate.blocking(log.committed(kafka, region, ends), 4) == ()


def test_nothing_is_committed_unless_asked(
    kafka: Kafka, region: str, open_consumer: Callable[..., log.Consumer]
) -> None:
    send(kafka, region, KEYS)
    first = open_consumer()
    read(first, len(KEYS))
    first.close()
    assert {state.committed for state in log.positions(kafka, region)} == {0}
    assert len(read(open_consumer(), len(KEYS))) == len(KEYS)


def test_the_next_owner_is_told_the_route_before_its_first_record(
    kafka: Kafka, region: str, open_consumer: Callable[..., log.Consumer]
) -> None:
    send(kafka, region, KEYS)
    first = open_consumer()
    log.commit(
        first,
        nexts(read(first, len(KEYS)))
        | {place: 0 for place in log.end_offsets(kafka, region) if place[0].endswith("group")},
        gate.metadata(8),
    )
    first.close()
    told: dict[Place, Committed] = {}
    lost: list[Place] = []

    def assigned(known: Mapping[Place, Committed]) -> None:
        told.update(known)

    second = open_consumer(assigned=assigned, revoked=lost.extend)
    send(kafka, region, KEYS)
    found = log.poll(second, 1, PATIENCE_SECONDS)
    assert found
    assert {committed.route for place, committed in told.items() if place in {one.place for one in found}} == {8}
    assert told.keys() == log.end_offsets(kafka, region).keys()
    second.close()
    assert set(lost) == told.keys()


def test_a_lost_beginning_is_an_alarm_for_gate_and_consumer(
    kafka: Kafka, region: str, open_consumer: Callable[..., log.Consumer]
) -> None:
    send(kafka, region, KEYS)
    topic = topics.topic_for(region, is_group=False)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for answer in admin.delete_records([TopicPartition(topic, 0, 2)]).values():
        answer.result()
    (sentence,) = [one for one in gate.blocking(log.positions(kafka, region), 0) if one.startswith(f"{topic}/0:")]
    assert "offsets 0..1 are gone" in sentence
    consumer = open_consumer()
    with pytest.raises(DamagedError, match="not in the log"):
        read_until_failure(consumer)


def test_a_commit_after_the_partitions_went_to_another_is_not_silent(
    kafka: Kafka, region: str, open_consumer: Callable[..., log.Consumer]
) -> None:
    send(kafka, region, KEYS)
    consumer = open_consumer()
    found = nexts(read(consumer, len(KEYS)))
    consumer.client.unsubscribe()
    assert log.poll(consumer, 1, 0.5) == []
    other = open_consumer()
    read(other, len(KEYS))
    with pytest.raises((BlockedError, OutcomeUnknownError)):
        log.commit(consumer, found, gate.metadata(3))
    assert {state.committed for state in log.positions(kafka, region)} == {0}


def test_dead_letters_come_back_byte_for_byte(kafka: Kafka, region: str) -> None:
    producer = log.open_producer(kafka)
    letters = [Record("messages.x.direct", 2, number, 0, key, b"\xff\x00" + key) for number, key in enumerate(KEYS)]
    for record in letters:
        log.dead_letter(producer, region, record, "unknown schema fingerprint")
    producer.flush()
    found = list(log.read_dead_letters(kafka, region, 1000))
    assert {letter.reason for letter in found} == {"unknown schema fingerprint"}
    assert sorted((one.topic, one.partition, one.offset, one.key, one.value) for one in found) == [
        (one.topic, one.partition, one.offset, one.key, one.value) for one in letters
    ]
    assert len(list(log.read_dead_letters(kafka, region, 7))) == 7
    assert len(list(log.read_dead_letters(kafka, region, 1000))) == len(KEYS)


def test_a_region_without_dead_letters_has_none(kafka: Kafka, region: str) -> None:
    assert list(log.read_dead_letters(kafka, region, 10)) == []


def test_a_full_body_fits_and_what_does_not_is_refused(kafka: Kafka, region: str) -> None:
    producer = log.open_producer(kafka)
    topic = topics.topic_for(region, is_group=False)
    producer.produce(topic, KEYS[0], bytes(BODY_BYTES_MAX + 1024))
    producer.flush()
    with pytest.raises(RefusedError, match="MSG_SIZE_TOO_LARGE"):
        producer.produce(topic, KEYS[0], bytes(RECORD_BYTES_MAX + 1))


def test_a_failed_delivery_is_raised_or_handed_to_its_done(kafka: Kafka) -> None:
    producer = log.open_producer(kafka)
    outcomes: list[FirnError | None] = []
    producer.produce("messages.nowhere.direct", KEYS[0], b"", done=outcomes.append)
    producer.flush()
    assert [type(outcome) for outcome in outcomes] == [BlockedError]
    producer.produce("messages.nowhere.group", KEYS[0], b"")
    with pytest.raises(BlockedError, match="no such topic"):
        producer.flush()
    assert (producer.acknowledged, producer.failed) == (0, 2)
    producer.flush()


def test_a_missing_topic_and_a_missing_kafka_say_what_to_do(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BlockedError, match=r"no topic messages\.nowhere\.direct"):
        log.end_offsets(kafka, "nowhere")
    monkeypatch.setattr(log, "ANSWER_SECONDS", 1.0)
    for bootstrap in ("", "127.0.0.1:1"):
        absent = replace(kafka, bootstrap=bootstrap)
        for verb in (log.open_producer, lambda there: log.ensure_topics(there, "us", 0)):
            with pytest.raises(BlockedError, match=r"\./firn stack up"):
                verb(absent)


def test_a_replay_arrives_whole_and_again(
    kafka: Kafka, region: str, open_consumer: Callable[..., log.Consumer]
) -> None:
    settings = replace(Settings(), kafka=kafka, regions=(region,))
    start = sample.LAST - timedelta(days=3)
    expected = {event.event_id: event for _, event in sample.traffic(start, sample.LAST, (region,))}
    said: list[str] = []
    reports: list[Report] = [replay(settings, start, sample.LAST, said.append) for _ in range(2)]
    assert reports[0] == reports[1]
    assert reports[0].total == len(expected) > 100
    assert "acknowledged" in said[-1]
    found = read(open_consumer(), 2 * len(expected))
    decoded = [events.decode(record.value) for record in found]
    assert {event.event_id: event for event in decoded} == expected
    for record, event in zip(found, decoded, strict=True):
        assert record.key == event.conversation_id
        assert record.topic == topics.topic_for(region, sample.is_group(event.conversation_id))
