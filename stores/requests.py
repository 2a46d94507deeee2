"""BATCH requests whose statements are bytes already: the driver routes, sends, prepares anew and retries them as its
own.

The driver binds value by value, in Python. Its protocol handler is where a request becomes bytes, and is made to be
replaced.
"""

from io import BytesIO
from typing import Any

from cassandra import ConsistencyLevel
from cassandra.protocol import BatchMessage, ProtocolHandler
from cassandra.query import BatchStatement, BatchType

_BEFORE_STATEMENTS = slice(0, 1)  # the kind of batch
_AFTER_STATEMENTS = slice(3, None)  # and, past the number of statements, the consistency and what follows


class EncodedBatch(BatchStatement):  # type: ignore[misc]  # the driver has no types
    """Unlogged, all of one partition; `statements` are `size` of them as the protocol has them. Only for a session
    whose handler is `Requests`."""

    def __init__(self, keyspace: str, partition_key: bytes, size: int, statements: memoryview) -> None:
        super().__init__(BatchType.UNLOGGED, consistency_level=ConsistencyLevel.LOCAL_QUORUM)
        self.keyspace, self.routing_key = keyspace, partition_key
        self.size, self.statements = size, statements
        self._statements_and_parameters = _Encoded(self)


class _Encoded(list[Any]):
    """In the place of the list that the driver would encode."""

    def __init__(self, batch: EncodedBatch) -> None:
        super().__init__()
        self.batch = batch


class _EncodedMessage(BatchMessage):  # type: ignore[misc]
    def __init__(self, message: BatchMessage) -> None:
        self.__dict__.update(message.__dict__)

    def send_body(self, request: BytesIO, protocol_version: int) -> None:
        around = BytesIO()
        super().send_body(around, protocol_version)  # of no statements: its list is empty
        request.write(around.getvalue()[_BEFORE_STATEMENTS])
        request.write(self.queries.batch.size.to_bytes(2, "big"))
        request.write(self.queries.batch.statements)
        request.write(around.getvalue()[_AFTER_STATEMENTS])


class Requests(ProtocolHandler):  # type: ignore[misc]
    """The `client_protocol_handler` of a session that may send an `EncodedBatch`."""

    @classmethod
    def encode_message(cls, msg: Any, *numbers: Any, **how: Any) -> Any:
        is_encoded = isinstance(msg, BatchMessage) and isinstance(msg.queries, _Encoded)
        return super().encode_message(_EncodedMessage(msg) if is_encoded else msg, *numbers, **how)
