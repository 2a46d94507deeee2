"""The driver's faults as ours: a write that was not answered is unknown, never failed."""

import pytest
from cassandra import (
    ConsistencyLevel,
    InvalidRequest,
    OperationTimedOut,
    ReadTimeout,
    Unavailable,
    WriteFailure,
    WriteTimeout,
)
from cassandra.cluster import NoHostAvailable
from cassandra.protocol import ErrorMessage, ServerError

from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError
from stores.cassandra import Database, Databases, MissingTableError, translated

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
        (NoHostAvailable("no session can be opened", ["127.0.0.1"]), BlockedError),
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


ALL_OF_THREE = Unavailable("away", consistency=ConsistencyLevel.ALL, required_replicas=3, alive_replicas=2)
LATE = ReadTimeout("late", consistency=ConsistencyLevel.LOCAL_QUORUM, required_responses=2, received_responses=1)


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (ALL_OF_THREE, "only 2 of the 3 replicas that ALL needs answer"),
        (LATE, "only 1 of the 2 replicas that LOCAL_QUORUM needs answer"),
        (
            NoHostAvailable("nobody", {"a": OSError("gone"), "b": ALL_OF_THREE}),
            "only 2 of the 3 replicas that ALL needs",
        ),
        (NoHostAvailable("nobody", {"a": OSError("gone")}), "Cassandra cannot answer now (NoHostAvailable)"),
    ],
)
def test_replicas_that_are_away_are_counted(fault: Exception, what: str) -> None:
    with pytest.raises(BlockedError) as caught, translated():
        raise fault
    assert what in caught.value.what
    assert "then run the same command again" in caught.value.do


def test_other_faults_pass() -> None:
    with pytest.raises(KeyError), translated():
        raise KeyError("ours")


def test_warm_is_opened_when_it_is_used_and_once() -> None:
    opened: list[str] = []
    hot, warm = Database(None, "hot"), Database(None, "warm")

    def open_warm() -> Database:
        opened.append("warm")
        return warm

    both = Databases(hot, open_warm)
    assert (both.hot.datacenter, opened) == ("hot", [])
    assert both.warm is both.warm is warm
    assert opened == ["warm"]
