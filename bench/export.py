"""How near reading a table to Arrow comes to reading it and looking at nothing: `python -m bench.export --rows 100000`.

Against the running stack, in a keyspace of its own that is dropped again. The drain asks for the same ranges, pages and
number on their way, and lets each body go undecoded; the third client is the driver's own rows with `pa.array` per
column. Then what a proof does: both tables of the week to canonical rows and their digest, by batches and row by row.
This is the reading half of an export alone: nothing is written to the lake. The last line is JSON.
"""

import argparse
import json
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import pyarrow as pa

from bench.decode import COLUMNS, WEEK, Row
from bench.decode import messages as made
from bench.pages import arrow
from core import ring, settings
from core.canonical import of_batches
from core.digest import of_rows
from core.tiers import Tier
from schemas.tables import MESSAGES
from stores import messages, scans
from stores.cassandra import UNSET, Database, Statement, bounded, connect
from stores.messages import create_tables, keyspace
from stores.pages import bodies, drain, raw

_KEY = ["conversation_id", "message_id"]


@contextmanager
def keyspace_of(db: Database, region: str, tier: Tier, replication: int) -> Iterator[str]:
    """It goes again."""
    found = keyspace(region, tier)
    strategy = f"{{'class': 'NetworkTopologyStrategy', '{db.datacenter}': {replication}}}"
    db.ddl(f"CREATE KEYSPACE {found} WITH replication = {strategy}")
    try:
        yield found
    finally:
        db.ddl(f"DROP KEYSPACE {found}")


@contextmanager
def table(db: Database, rows: Sequence[Row], replication: int) -> Iterator[str]:
    """A region whose week holds `rows`. It goes again."""
    region = f"b{secrets.token_hex(5)}"
    with keyspace_of(db, region, Tier.HOT, replication) as found:
        create_tables(db, region, Tier.HOT, WEEK, 1)
        fill(db, f"{found}.{MESSAGES.name}{WEEK}", rows)
        yield region


def fill(db: Database, name: str, rows: Sequence[Row]) -> None:
    insert = f"INSERT INTO {name} ({', '.join(MESSAGES.names)}) VALUES ({', '.join('?' for _ in MESSAGES.names)})"
    statements = ([Statement(insert, [UNSET if v is None else v for v in row]) for row in of] for of in _each(rows))
    db.write(batch for of in statements for batch in bounded(of))


def _each(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Those of one conversation together, as `messages` gives them."""
    return (list(group) for _, group in groupby(rows, key=lambda row: row[0]))


def in_order(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(batches).sort_by([(name, "ascending") for name in _KEY])


def timed(work: Callable[[], int], rounds: list[tuple[float, float]]) -> int:
    begun, cpu = time.perf_counter(), time.process_time()
    found = work()
    rounds.append((time.perf_counter() - begun, time.process_time() - cpu))
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.export", description=__doc__)
    for name, default in {"rows": 100_000, "page-rows": 5_000, "ranges": 16, "in-flight": 4, "rounds": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args(arguments)
    config, rows = settings.load(), list(made(chosen.rows))
    db = connect(config.hot)
    try:
        with table(db, rows, config.hot.replication) as region, raw(db) as opened:
            facts = {"bench": "export", "part": "reading", **vars(chosen)}
            return told(facts, compared(db, opened, region, rows, chosen))
    finally:
        db.session.cluster.shutdown()


def compared(
    db: Database, opened: Database, region: str, rows: Sequence[Row], chosen: argparse.Namespace
) -> dict[str, list[tuple[float, float]]] | None:
    """Wall and CPU seconds of each client and round; None if what was read is not what was written."""
    where = "WHERE token(conversation_id) > ? AND token(conversation_id) <= ?"
    query = f"SELECT {', '.join(MESSAGES.names)} FROM {keyspace(region, Tier.HOT)}.{MESSAGES.name}{WEEK} {where}"
    asked = [ring.cut(part, chosen.ranges) for part in range(chosen.ranges)]
    how: tuple[Any, ...] = (query, asked, chosen.in_flight, chosen.page_rows)
    if in_order([batch for _, batch in drain(opened, *how)]) != in_order([arrow(COLUMNS, rows)]):
        return None
    week = (db, region, Tier.HOT, WEEK, ring.WHOLE)
    if of_batches(scans.scan(*week)) != of_rows(messages.scan(*week)):
        return None
    clients: dict[str, Callable[[], int]] = {
        "drained": lambda: sum(len(body) > 0 for _, body in bodies(opened, *how)),
        "decoded": lambda: sum(batch.num_rows for _, batch in drain(opened, *how)),
        "driver": lambda: sum(arrow(COLUMNS, page).num_rows for _, page in bodies(db, *how)),  # type: ignore[arg-type,misc]
        "digested by batches": lambda: of_batches(scans.scan(*week)).rows,
        "digested by rows": lambda: of_rows(messages.scan(*week)).rows,
    }
    rounds: dict[str, list[tuple[float, float]]] = {client: [] for client in clients}
    for _ in range(chosen.rounds):
        for client, work in clients.items():
            timed(work, rounds[client])
    return rounds


def told(facts: dict[str, Any], rounds: dict[str, list[tuple[float, float]]] | None) -> int:
    if rounds is None:
        print("what was read is not what was written")
        print(json.dumps(facts | {"equal": False}))
        return 1
    count = facts["rows"]
    for client, found in rounds.items():
        wall, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        facts[client] = {"rows_per_s": round(count / wall), "client_cpu_s_per_m_rows": round(cpu / count * 1e6, 2)}
        print(
            f"{client:20} {count / wall:>10,.0f} rows/s, {cpu / count * 1e6:.2f} CPU-s of the client for a million rows"
        )
    of_drain = facts["decoded"]["rows_per_s"] / facts["drained"]["rows_per_s"]
    print(json.dumps(facts | {"equal": True, "decoded_of_drained": round(of_drain, 3)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
