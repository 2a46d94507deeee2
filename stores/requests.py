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

_BEFORE_STATEMENTS = 3  # the kind of batch, and how many statements follow


class EncodedBatch(BatchStatement):  # type: ignore[misc]  # the driver has no types
    """Unlogged, all of one partition; `statements` are `size` of them as the protocol has them. Only for a session
    whose handler is `Requests`."""

    def __init__(self, keyspace: str, partition_key: bytes, size: int, statements: memoryview) -> None:
        super().__init__(BatchType.UNLOGGED, consistency_level=ConsistencyLevel.LOCAL_QUORUM)
        self.keyspace, self.routing_key = keyspace, partition_key
        self.size, self.statements = size, statements
        self._statements_and_parameters = _Encoded(self)


class _Encoded(list[Any]):
    """In the place of the list that the driver would encode: it gives nothing to encode, and is as long as what is
    encoded already. Of an empty batch the driver would not look at the partition key, and a handler that does not know
    this one would send a valid request to write nothing."""

    def __init__(self, batch: EncodedBatch) -> None:
        super().__init__()
        self.batch = batch

    def __len__(self) -> int:
        return self.batch.size


class _EncodedMessage(BatchMessage):  # type: ignore[misc]
    def __init__(self, message: BatchMessage) -> None:
        self.__dict__.update(message.__dict__)

    def send_body(self, request: BytesIO, protocol_version: int) -> None:
        around = BytesIO()
        super().send_body(around, protocol_version)
        request.write(around.getvalue()[:_BEFORE_STATEMENTS])
        request.write(self.queries.batch.statements)
        request.write(around.getvalue()[_BEFORE_STATEMENTS:])


class Requests(ProtocolHandler):  # type: ignore[misc]
    """The `client_protocol_handler` of a session that may send an `EncodedBatch`."""

    @classmethod
    def encode_message(cls, msg: Any, *numbers: Any, **how: Any) -> Any:
        is_encoded = isinstance(msg, BatchMessage) and isinstance(msg.queries, _Encoded)
        return super().encode_message(_EncodedMessage(msg) if is_encoded else msg, *numbers, **how)
