"""The driver's faults as ours: a write that was not answered is unknown, never failed."""

import pytest
from cassandra import InvalidRequest, OperationTimedOut, ReadTimeout, Unavailable, WriteFailure, WriteTimeout
from cassandra.cluster import NoHostAvailable
from cassandra.protocol import ErrorMessage, ServerError

from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError
from stores.cassandra import MissingTableError, translated

CAS_WRITE_UNKNOWN = 0x1700  # the driver has no class for it


@pytest.mark.parametrize(
    ("fault", "ours"),
    [
        (WriteTimeout("late", write_type=0), OutcomeUnknownError),
        (WriteFailure("some replicas failed"), OutcomeUnknownError),
        (OperationTimedOut(), OutcomeUnknownError),
        (ErrorMessage(CAS_WRITE_UNKNOWN, "unknown", None), OutcomeUnknownError),
        (ServerError(0, "broken", None), OutcomeUnknownError),
        (ReadTimeout("late"), BlockedError),
        (Unavailable("too few"), BlockedError),
        (NoHostAvailable("nobody", {}), BlockedError),
        (InvalidRequest("unconfigured table messages_w1"), MissingTableError),
        (InvalidRequest("Keyspace us_hot does not exist"), MissingTableError),
        (InvalidRequest("Undefined column name"), DamagedError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_faults(fault: Exception, ours: type[FirnError]) -> None:
    with pytest.raises(ours) as caught, translated():
        raise fault
    assert type(caught.value) is ours
    assert caught.value.__cause__ is fault


def test_other_faults_pass() -> None:
    with pytest.raises(KeyError), translated():
        raise KeyError("ours")
