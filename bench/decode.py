"""How fast pages become Arrow, beside the driver's own way: `python -m bench.decode --rows 50000`.

Pages of the real message table, as protocol 4 and 5 send them, plain and with LZ4. The peer is the driver's handler as
it is installed, with `pa.array` per column. Both start from the bytes of the socket and let go of each page's Arrow
before the next, in turns, in one thread; what is told is that thread's own seconds, so that neighbours count less.
Their tables must be equal first. The last line is JSON.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from cassandra.protocol import ProtocolHandler

from bench.pages import Driver, arrow, body, columns_of, frame, segmented
from core import ids, weeks
from schemas.tables import MESSAGES
from stores import envelopes, frames
from stores.pages import kind_of

SEED, WEEK = 20260825, 2913
_OVER = 5
COLUMNS = columns_of(MESSAGES)
LAYOUT = frames.layout([(name, kind_of(cql)) for name, cql in COLUMNS])
WAYS = {"v4": (4, False), "v4_lz4": (4, True), "v5": (5, False), "v5_lz4": (5, True)}
Row = tuple[object, ...]


def messages(rows: int, seed: int = SEED) -> Iterator[Row]:
    """As the live week has them: conversations of some twenty messages, newest first, mean body about 170 bytes; a few
    replies, edits, deletions, empty bodies and lone amendments. Bodies are random, as ciphertext is."""
    chance = random.Random(seed)
    conversation, begun = UUID(bytes=chance.randbytes(16)), weeks.start(WEEK)
    for number in range(rows):
        if chance.random() < 0.05:
            conversation = UUID(bytes=chance.randbytes(16))
        sent = begun + timedelta(milliseconds=chance.randrange(604_800_000))
        yield (conversation, *_values(chance, ids.compose(_microseconds(sent), number, chance.getrandbits(48))))


def _values(chance: random.Random, message_id: bytes) -> Row:
    message, alone = ids.to_timeuuid(message_id), chance.random() < 0.01
    length = 0 if chance.random() < 0.01 else min(int(chance.lognormvariate(4.9, 0.7)), 4000)
    edited, media, replied = chance.random() < 0.02, chance.random() < 0.15, chance.random() < 0.1
    edit = (message, chance.randbytes(length)) if edited or alone else None
    if alone:
        return (message, None, None, None, None, None, edit, None, None)
    return (
        message,
        chance.getrandbits(40),
        chance.randrange(4),
        None if edited else chance.randbytes(length),
        chance.randbytes(32).hex() if media else None,
        message if replied else None,
        edit,
        True if chance.random() < 0.01 else None,
        ids.instant(message_id).replace(tzinfo=None),
    )


def _microseconds(when: datetime) -> int:
    return (when - ids.UNIX_EPOCH) // timedelta(microseconds=1)


def sent(rows: Sequence[Row], page_rows: int, version: int, lz4: bool) -> list[bytes]:
    """What comes over the socket, page by page: answers to a prepared statement, which do not name their columns."""
    bodies = [body(COLUMNS, rows[at : at + page_rows], named=False) for at in range(0, len(rows), page_rows)]
    answers = [frame(one, version, lz4) for one in bodies]
    return [segmented(answer, lz4) for answer in answers] if version == 5 else answers


def by_us(pages: Iterable[bytes], version: int, lz4: bool) -> Iterator[pa.RecordBatch]:
    for page in pages:
        for answer in envelopes.frames(envelopes.segments(page, lz4) if version == 5 else page):
            yield frames.decoded(frames.opened(envelopes.result(answer), LAYOUT))


def by_driver(pages: Iterable[bytes], version: int, lz4: bool) -> Iterator[pa.RecordBatch]:
    return (arrow(COLUMNS, rows) for rows in rows_alone(pages, version, lz4))


def rows_alone(pages: Iterable[bytes], version: int, lz4: bool) -> Iterator[list[tuple[Any, ...]]]:
    driver = Driver(version, lz4)
    return (driver.rows(page, COLUMNS) for page in pages)


@dataclass(frozen=True)
class Figures:
    """Median seconds of the rounds; `driver_rows_seconds` is the driver's handler without any Arrow."""

    ours_seconds: float
    driver_seconds: float
    driver_rows_seconds: float

    def as_data(self, rows: int) -> dict[str, float]:
        return {
            "rows_per_s": round(rows / self.ours_seconds),
            "driver_rows_per_s": round(rows / self.driver_seconds),
            "speedup": round(self.driver_seconds / self.ours_seconds, 1),
            "speedup_over_rows_alone": round(self.driver_rows_seconds / self.ours_seconds, 1),
        }


def measured(pages: Sequence[bytes], version: int, lz4: bool, rounds: int) -> Figures:
    """In turns, so that a machine that slows down slows all of them; ours some times over, for it is soon done."""
    given = (pages, version, lz4)
    turns = [
        (
            _seconds(chain.from_iterable(by_us(*given) for _ in range(_OVER))) / _OVER,
            _seconds(by_driver(*given)),
            _seconds(rows_alone(*given)),
        )
        for _ in range(rounds)
    ]
    return Figures(*(statistics.median(column) for column in zip(*turns, strict=True)))


def _seconds(work: Iterator[object]) -> float:
    begun = time.thread_time()
    deque(work, maxlen=0)
    return time.thread_time() - begun


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.decode", description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--page-rows", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(arguments)
    rows = list(messages(chosen.rows))
    gc.freeze()  # the driver makes many objects: what stands around must not be looked through for each of its pages
    facts: dict[str, object] = {"bench": "decode", "rows": len(rows), "page_rows": chosen.page_rows}
    facts |= {"rounds": chosen.rounds, "driver_handler": handler()}
    found = {}
    for name, way in WAYS.items():
        pages = sent(rows, chosen.page_rows, *way)
        ours, theirs = list(by_us(pages, *way)), list(by_driver(pages, *way))
        if ours != theirs:
            print(f"{name}: the tables are not equal")
            print(json.dumps(facts | {"equal": False, "way": name}))
            return 1
        facts.setdefault("bytes_per_row", round(sum(map(len, pages)) / len(rows), 1))
        facts.setdefault("guard", guard(ours))
        del ours, theirs
        found[name] = measured(pages, *way, chosen.rounds).as_data(len(rows))
        print(
            f"{name:7} {found[name]['rows_per_s']:>12,.0f} rows/s, the driver {found[name]['driver_rows_per_s']:,.0f}"
        )
    print(f"{facts['bytes_per_row']} bytes a row in plain v4; the driver decodes by {handler()}; equal everywhere")
    print(json.dumps(facts | {"equal": True, "speedup": min(one["speedup"] for one in found.values()), "ways": found}))
    return 0


def handler() -> str:
    """Whether the installed driver's default is its compiled one."""
    parser = getattr(ProtocolHandler, "col_parser", None)
    return f"{ProtocolHandler.__name__}, {type(parser).__name__}" if parser else f"{ProtocolHandler.__name__}, plain"


def guard(batches: Sequence[pa.RecordBatch]) -> dict[str, int]:
    """What a decoder that skips the hard cells would not have."""
    table = pa.Table.from_batches(list(batches))
    lengths: Any = pc.binary_length(table["body"])
    return {
        "nulls": sum(column.null_count for column in table.columns),
        "empty_bodies": lengths.to_pylist().count(0),
        "edits": len(table) - table["edit"].null_count,
        "bytes_in_arrow": table.nbytes,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
