"""Every error name that we sort is one that the client can say."""

import pytest
from confluent_kafka import KafkaError

from core.errors import BlockedError, DamagedError, OutcomeUnknownError, RefusedError
from stores import kafka_faults as faults


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (faults.UNREACHABLE, BlockedError),
        (faults.UNDECIDED, OutcomeUnknownError),
        (faults.MISSING, BlockedError),
        (faults.GAP, DamagedError),
        (faults.HANDED_OVER, BlockedError),
        (faults.REFUSED, RefusedError),
        (frozenset({"_FATAL"}), BlockedError),
    ],
)
def test_names_are_the_clients_and_get_their_kind(names: frozenset[str], kind: type[Exception]) -> None:
    for name in names:
        assert KafkaError(getattr(KafkaError, name)).name() == name
        assert type(faults.translated("127.0.0.1:1", name, "read")) is kind


def test_an_unreachable_kafka_names_the_command() -> None:
    assert "./firn stack up" in faults.translated("127.0.0.1:1", "_TRANSPORT", "read").do


def test_a_commit_without_an_answer_may_have_happened() -> None:
    assert isinstance(faults.commit_fault("127.0.0.1:1", "_TRANSPORT"), OutcomeUnknownError)


def test_what_passes_is_known_to_the_client_too() -> None:
    assert {KafkaError(getattr(KafkaError, name)).name() for name in faults.PASSING} == faults.PASSING
