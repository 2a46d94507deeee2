"""What a node sends, opened up to the body of each RESULT: frames of protocol v4 and v5, and v5's segments around them.

The driver opens them itself while it is connected. This is for what was recorded from the wire, and for whoever reads a
socket without it. Plain Python: what happens here happens once in many thousand rows.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from core.errors import BlockedError, DamagedError
from stores import kernels

RESULT, ERROR = 0x08, 0x00
AGAIN = "ask for the page again; if it comes so again, look at the log of the node that sent it"
_COMPRESSED, _TRACED, _PAYLOAD, _WARNED = 0x01, 0x02, 0x04, 0x08
_VERSIONS = (4, 5)
_ANSWER = 0x80
_HEADER_BYTES = 9
_CRC24_START, _CRC24_POLYNOMIAL = 0x875060, 0x1974F0B
_CRC32_START = zlib.crc32(b"\xfa\x2d\x55\xca")
_LENGTH_BITS = 17


Bytes = bytes | memoryview  # a page is long: it is looked at where it lies, and not copied


@dataclass(frozen=True)
class Frame:
    version: int
    flags: int
    opcode: int
    body: Bytes


class Reader:
    """Bytes of a page piece by piece; DamagedError where they end too early."""

    def __init__(self, body: Bytes) -> None:
        self.body = memoryview(body)
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.body) - self.at

    def take(self, size: int) -> bytes:
        return bytes(self.view(size))

    def view(self, size: int) -> memoryview:
        if not 0 <= size <= self.left:
            raise DamagedError(f"a page is cut: it has {self.left} bytes where {size} should come", AGAIN)
        self.at += size
        return self.body[self.at - size : self.at]

    def signed(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def text(self) -> str:
        try:
            return self.take(self.short()).decode()
        except UnicodeDecodeError as fault:
            raise DamagedError("a page has a name that is no UTF-8", AGAIN) from fault


def frames(recorded: Bytes) -> Iterator[Frame]:
    """Of what came over a connection, one after the other; a body that v4 compressed with LZ4 comes plain."""
    reader = Reader(recorded)
    while reader.left:
        version, flags, _, _, opcode = reader.take(_HEADER_BYTES - 4)
        if version & _ANSWER == 0 or version & ~_ANSWER not in _VERSIONS:
            raise DamagedError(f"a frame is no answer of protocol 4 or 5 (it begins with 0x{version:02x})", AGAIN)
        body: Bytes = reader.view(reader.signed())
        if flags & _COMPRESSED:
            compressed = Reader(body)
            body = _plain(compressed.signed(), compressed.view(compressed.left))
        yield Frame(version & ~_ANSWER, flags, opcode, body)


def segments(recorded: Bytes, compressed: bool) -> bytes:
    """The frames that v5 sent in segments, each checked by its two checksums. `compressed`: LZ4 was agreed upon."""
    reader, payloads = Reader(recorded), list[Bytes]()
    while reader.left:
        header = reader.take(5 if compressed else 3)
        if int.from_bytes(reader.take(3), "little") != crc24(header):
            raise DamagedError("the header of a segment does not have its checksum", AGAIN)
        bits = int.from_bytes(header, "little")
        payload = reader.view(bits & (1 << _LENGTH_BITS) - 1)
        if int.from_bytes(reader.take(4), "little") != zlib.crc32(payload, _CRC32_START):
            raise DamagedError("a segment does not have its checksum", AGAIN)
        size = bits >> _LENGTH_BITS & (1 << _LENGTH_BITS) - 1 if compressed else 0
        payloads.append(_plain(size, payload) if size else payload)
    return b"".join(payloads)


def crc24(header: bytes) -> int:
    crc = _CRC24_START
    for byte in header:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 1 << 24:
                crc ^= _CRC24_POLYNOMIAL
    return crc


def _plain(size: int, block: Bytes) -> bytes:
    # Arrow does not tell a block that holds less than it claims, and fills up with what was in memory before.
    if size != kernels.lz4_size(np.frombuffer(block, np.uint8)):
        raise DamagedError(f"a compressed page does not hold the {size} bytes that it claims", AGAIN)
    try:
        return bytes(pa.decompress(block, decompressed_size=size, codec="lz4_raw", asbytes=True)) if size else b""
    except OSError as fault:
        raise DamagedError("a compressed page cannot be opened", AGAIN) from fault


def result(frame: Frame) -> Bytes:
    """The body of a RESULT, without what may stand before it: a trace's id, warnings, a payload of the server's."""
    reader = Reader(frame.body)
    if frame.opcode == ERROR:
        code = reader.signed()
        raise BlockedError(f"a node answered with error 0x{code:04x}", "look at its log; then ask for the page again")
    if frame.opcode != RESULT:
        raise DamagedError(f"an answer is no RESULT (its opcode is 0x{frame.opcode:02x})", AGAIN)
    if frame.flags & _TRACED:
        reader.take(16)
    if frame.flags & _WARNED:
        for _ in range(reader.short()):
            reader.text()
    if frame.flags & _PAYLOAD:
        for _ in range(reader.short()):
            reader.text()
            reader.take(max(reader.signed(), 0))
    return frame.body[reader.at :]
