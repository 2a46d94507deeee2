"""How fast a week is copied from table to table, beside a client that only writes: `python -m bench.copy`.

Against the running stack, in keyspaces of its own that are dropped again. What is measured is what a task of the mover
does: a fresh scan of the source, the digest of every row on its way, each cell written at its own time. The peer has
its rows in memory and does nothing but write them, by prepared unlogged batches of one conversation each, as many rows
in one and as many on their way as were best in a sweep before. Every run has new tables; what is in them afterwards
must be the source. The last line is JSON.
"""

import argparse
import json
import secrets
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, product
from typing import Any, NamedTuple

from cassandra import ConsistencyLevel
from cassandra.query import UNSET_VALUE, BatchStatement, BatchType

from bench.decode import WEEK, Row
from bench.decode import messages as made
from bench.export import keyspace_of, table
from core import canonical, ring, settings
from core.digest import Digest, Tally
from core.tiers import Tier
from schemas.tables import MESSAGES
from stores import inserts, messages, scans
from stores.cassandra import Database, connect

BATCH_ROWS, IN_FLIGHT = (5, 10, 20, 40), (16, 64, 128, 256)
_SWEPT_ROWS = 20_000


class Setting(NamedTuple):
    batch_rows: int
    in_flight: int


class Seconds(NamedTuple):
    wall: float
    cpu: float


@contextmanager
def empty(db: Database, region: str) -> Iterator[None]:
    messages.create_tables(db, region, Tier.WARM, WEEK, secrets.randbits(32))
    try:
        yield
    finally:
        messages.drop_tables(db, region, Tier.WARM, WEEK)


def copied(db: Database, region: str) -> Digest:
    """As `lakehouse.ends.copy` does it."""
    tally = Tally()
    passing = canonical.tallied(scans.scan(db, region, Tier.HOT, WEEK, ring.WHOLE), tally)
    inserts.write(db, region, Tier.WARM, WEEK, passing)
    return tally.digest


def copied_by_rows(db: Database, region: str) -> Digest:
    """The same by the driver's own rows and statements."""
    tally = Tally()
    passing = tally.through(messages.scan(db, region, Tier.HOT, WEEK, ring.WHOLE))
    db.write(messages.batches(region, Tier.WARM, WEEK, passing))
    return tally.digest


def written(db: Database, region: str, rows: Sequence[Row], setting: Setting) -> None:
    """The peer."""
    marks = ", ".join("?" for _ in MESSAGES.names)
    name = f"{messages.keyspace(region, Tier.WARM)}.{MESSAGES.name}{WEEK}"
    insert = db.session.prepare(f"INSERT INTO {name} ({', '.join(MESSAGES.names)}) VALUES ({marks})")
    flying: deque[Any] = deque()
    for _, group in groupby(rows, key=lambda row: row[0]):
        of = list(group)
        for start in range(0, len(of), setting.batch_rows):
            batch = BatchStatement(BatchType.UNLOGGED, consistency_level=ConsistencyLevel.LOCAL_QUORUM)
            for row in of[start : start + setting.batch_rows]:
                batch.add(insert, [UNSET_VALUE if value is None else value for value in row])
            if len(flying) >= setting.in_flight:
                flying.popleft().result()
            flying.append(db.session.execute_async(batch))
    while flying:
        flying.popleft().result()


def measured(db: Database, region: str, work: Callable[[], object], source: Digest) -> Seconds:
    """ValueError if what was written is not the source."""
    with empty(db, region):
        begun, cpu = time.perf_counter(), time.process_time()
        work()
        seconds = Seconds(time.perf_counter() - begun, time.process_time() - cpu)
        if canonical.of_batches(scans.scan(db, region, Tier.WARM, WEEK, ring.WHOLE)) != source:
            raise ValueError("what was written is not what was read")
    return seconds


def best(db: Database, region: str, rows: Sequence[Row]) -> Setting:
    """Of the peer's settings, on some of the rows; the first run of all warms up and is not looked at."""
    settings_ = [Setting(*values) for values in product(BATCH_ROWS, IN_FLIGHT)]
    taken: dict[Setting, float] = {}
    for setting in (settings_[0], *settings_):
        with empty(db, region):
            begun = time.perf_counter()
            written(db, region, rows[:_SWEPT_ROWS], setting)
            taken[setting] = time.perf_counter() - begun
        print(f"peer: {setting.batch_rows} rows in a batch, {setting.in_flight} on their way: {taken[setting]:.2f} s")
    return min(taken, key=lambda setting: taken[setting])


def compared(db: Database, region: str, rows: Sequence[Row], rounds: int) -> dict[str, Any]:
    setting = best(db, region, rows)
    source = canonical.of_batches(scans.scan(db, region, Tier.HOT, WEEK, ring.WHOLE))
    clients: dict[str, Callable[[], object]] = {
        "copied": lambda: copied(db, region),
        "copied by rows": lambda: copied_by_rows(db, region),
        "plain": lambda: written(db, region, rows, setting),
    }
    turns: dict[str, list[Seconds]] = {name: [] for name in clients}
    for _ in range(rounds):
        for name, work in clients.items():
            turns[name].append(measured(db, region, work, source))
    facts: dict[str, Any] = {"peer": setting._asdict()}
    for name, found in turns.items():
        wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        cpu_of_million = cpu / len(rows) * 1e6
        facts[name] = {"rows_per_s": round(len(rows) / wall), "client_cpu_s_per_m_rows": round(cpu_of_million, 2)}
        print(f"{name:14} {len(rows) / wall:>9,.0f} rows/s, {cpu_of_million:.1f} CPU-s for a million rows")
    ratios = [plain.wall / ours.wall for ours, plain in zip(turns["copied"], turns["plain"], strict=True)]
    return facts | {"of_plain": round(statistics.median(ratios), 3)}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.copy", description=__doc__)
    for name, default in {"rows": 50_000, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args(arguments)
    config, rows = settings.load(), list(made(chosen.rows))
    facts: dict[str, Any] = {"bench": "copy", **vars(chosen)}
    db = connect(config.hot)
    try:
        replication = config.hot.replication
        with table(db, rows, replication) as region, keyspace_of(db, region, Tier.WARM, replication):
            facts |= {"equal": True, **compared(db, region, rows, chosen.rounds)}
    except ValueError as fault:
        print(fault)
        facts["equal"] = False
    finally:
        db.session.cluster.shutdown()
    print(json.dumps(facts))
    return 0 if facts["equal"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
