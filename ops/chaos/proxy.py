"""A loopback proxy in front of a service that counts requests and lets harm come to one of them.

It knows where a request ends, and nothing of what is in it: CQL by its frames (version 5: its segments), Kafka by its
length prefix, HTTP by its head. Kafka's brokers say where they are, so their address in a reply becomes the proxy's.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

LOOPBACK = "127.0.0.1"
QUIET_SECONDS = 0.3  # a reply is whole, and thrown away, when nothing of it came for so long
DELAY_SECONDS = 3.0
_CHUNK_BYTES = 1 << 16
_STARTUP = 1
_CRC_BYTES = 4


class Harm(StrEnum):
    REPLY_LOST = "reply lost"
    RESET = "reset before"
    TRUNCATED = "reply truncated"
    DELAYED = "reply delayed"


class Protocol(StrEnum):
    CQL = "cql"
    KAFKA = "kafka"
    HTTP = "http"


@dataclass
class Requests:
    """Cuts what a client sends into its requests."""

    protocol: Protocol
    held: bytearray = field(default_factory=bytearray)
    segment_header: int = 0  # bytes of it; 0 while frames are not in segments yet

    def cut(self, data: bytes) -> Iterator[bytes]:
        self.held += data
        while (length := self._length()) is not None and len(self.held) >= length:
            whole = bytes(self.held[:length])
            del self.held[:length]
            self._learn(whole)
            yield whole

    def _length(self) -> int | None:
        """Of the first request; None while too little of it is there to tell."""
        match self.protocol:
            case Protocol.KAFKA:
                return 4 + int(struct.unpack(">i", self.held[:4])[0]) if len(self.held) >= 4 else None
            case Protocol.HTTP:
                return _http_length(self.held)
            case _ if not self.segment_header:
                return 9 + int(struct.unpack(">I", self.held[5:9])[0]) if len(self.held) >= 9 else None
            case _:
                return self._segment_length()

    def _segment_length(self) -> int | None:
        if len(self.held) < self.segment_header:
            return None
        payload_bytes = int.from_bytes(self.held[:3], "little") & 0x1FFFF
        return self.segment_header + payload_bytes + _CRC_BYTES

    def _learn(self, whole: bytes) -> None:
        """From version 5 on, all that follows STARTUP comes in segments."""
        is_startup = self.protocol is Protocol.CQL and not self.segment_header and whole[4] == _STARTUP
        if is_startup and whole[0] >= 5:
            self.segment_header = 8 if b"COMPRESSION" in whole else 6


def _http_length(held: bytearray) -> int | None:
    head, end, _ = bytes(held).partition(b"\r\n\r\n")
    if not end:
        return None
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(head) + len(end) + int(value)
    return len(head) + len(end)


@dataclass
class Proxy:
    """Harm comes to request number `at`, from 1, once; `seen` counts all of them. Its threads end with the process."""

    protocol: Protocol
    host: str
    target_port: int
    harm: Harm | None = None
    at: int = 0
    seen: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server((LOOPBACK, 0)))

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def start(self) -> int:
        """The port that it listens on."""
        _daemon(self._accept)
        return self.port

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection((self.host, self.target_port))
            except OSError:
                client.close()
                continue
            link = Link(self, client, server)
            _daemon(link.forward)
            _daemon(link.back)

    def is_its_turn(self) -> bool:
        """Counts one more request."""
        with self._turn:
            self.seen += 1
            return self.harm is not None and self.seen == self.at

    def as_ours(self, reply: bytes) -> bytes:
        """With our address in place of the broker's; as long as before."""
        host = self.host.encode()
        return reply.replace(host + struct.pack(">i", self.target_port), host + struct.pack(">i", self.port))


@dataclass
class Link:
    """One connection of a client, and ours to the server for it."""

    proxy: Proxy
    client: socket.socket
    server: socket.socket
    harm: Harm | None = None

    def forward(self) -> None:
        requests = Requests(self.proxy.protocol)
        with suppress(OSError):
            while data := self.client.recv(_CHUNK_BYTES):
                for request in requests.cut(data):
                    if self.proxy.is_its_turn():
                        self.harm = self.proxy.harm
                    if self.harm is Harm.RESET:
                        return self.close()
                    self.server.sendall(request)
                    if self.harm is Harm.REPLY_LOST:
                        return  # what comes back is for `back` to throw away
        self.close()

    def back(self) -> None:
        replies = Requests(Protocol.KAFKA)
        with suppress(OSError):
            while data := self._received():
                match self.harm:
                    case Harm.REPLY_LOST:
                        continue
                    case Harm.TRUNCATED:
                        self.client.sendall(data[: len(data) // 2])
                        break
                    case Harm.DELAYED:
                        time.sleep(DELAY_SECONDS)
                        self.harm = None
                if self.proxy.protocol is Protocol.KAFKA:
                    data = b"".join(map(self.proxy.as_ours, replies.cut(data)))
                self.client.sendall(data)
        self.close()

    def _received(self) -> bytes:
        """Nothing: the connection is at its end, or the reply that is to be lost is whole."""
        while True:
            self.server.settimeout(QUIET_SECONDS)
            try:
                return self.server.recv(_CHUNK_BYTES)
            except TimeoutError:
                if self.harm is Harm.REPLY_LOST:
                    return b""

    def close(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
            end.close()


def _daemon(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()
