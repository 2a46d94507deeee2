"""Imports old history in bulk: files are sorted on local disk, then placed, and bad rows go to quarantine.

    inspect ─▶ sort ─▶ judge ─▶ place ─▶ quarantine ─▶ receipt

Killed at any point, the same command goes on. Done twice it changes nothing: an import is named by the bytes of its
files, and everything that it makes by what is in it. `docs/import.md` tells people about it.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from blake3 import blake3

from core import imports, settings, topics
from core.errors import DamagedError, RefusedError
from core.imports import ColumnMap, Destination
from core.mapped import IN_FUTURE
from jobs import shell
from jobs.imports.landing import Sinks
from jobs.imports.notes import Progress, UnitKey, progress_of
from jobs.imports.placing import has_runs, place
from jobs.imports.sorting import BAD, Work, sort
from jobs.imports.splitting import PART_BYTES
from lakehouse.incoming import HistoryFile, inspect
from lakehouse.quarantine import keep
from lakehouse.site import opened
from lakehouse.spill import LostSpillError, Spill, alone, discard, notes
from lakehouse.tables import quarantine_table
from schemas.events import Event, encode
from stores import kafka
from stores.objects import NotFoundError, Objects

SOURCE = "import"
RECEIPTS = "imports/"
_ID_LENGTH = 16
_ATTEMPT_LENGTH = 8


@dataclass(frozen=True)
class Order:
    """What a person asked for. `source` is the name under which ids are derived: the same for the same archive."""

    region: str
    files: tuple[Path, ...]
    columns: ColumnMap
    source: str = SOURCE


@dataclass
class Log:
    """Events to Kafka; opened only when there are any."""

    config: settings.Settings
    region: str

    @cached_property
    def producer(self) -> kafka.Producer:
        kafka.end_offsets(self.config.kafka, self.region)  # names a missing topic before anything is sent
        return kafka.open_producer(self.config.kafka)

    def send(self, events: Iterable[Event]) -> None:
        """All to the group's topic: the direct one is read first, and old history must not go before what people say
        now. The order does not matter to the rows."""
        topic = topics.topic_for(self.region, is_group=True)
        for event in events:
            self.producer.produce(topic, event.conversation_id, encode(event))
        self.producer.flush()


def run(config: settings.Settings, now: datetime, order: Order, say: shell.Say) -> dict[str, Any]:
    files, same = inspect(order.files, order.columns)
    import_id = identity(files, order)
    folder = config.state_dir / "imports" / import_id
    with alone(folder), opened(config, order.region, now) as site:
        told = _receipt(site.objects, import_id)
        if told and has_runs(_runs(told["run_names"]), site.ledger):
            discard(folder)
            say(f"import {import_id} was done before: nothing changes")
        else:
            sinks = Sinks(
                import_id,
                uuid4().hex[:_ATTEMPT_LENGTH],
                site.ledger,
                site.objects,
                site.db.hot.write,
                Log(config, order.region).send,
                config.layout.row_group_bytes,
            )
            told = Import(config, now, order, tuple(files), folder, sinks, say).done()
        return {name: value for name, value in told.items() if name != "run_names"} | {
            "files": [_about(file, order.columns) for file in files],
            "same": [str(path) for path in same],
        }


@dataclass(frozen=True)
class Import:
    """One import under way. `folder` is its spill; it stays while the same command can go on."""

    config: settings.Settings
    now: datetime
    order: Order
    files: tuple[HistoryFile, ...]
    folder: Path
    sinks: Sinks
    say: shell.Say
    part_bytes: int = PART_BYTES

    def done(self) -> dict[str, Any]:
        try:
            work = self._work()
            seconds = {
                "sorting": self._sort(work),
                "placing": place(work, self.sinks, self.config.tiers, self.part_bytes),
            }
            self._require_all(work.progress)
            if work.progress.bad:
                table = quarantine_table(self.sinks.objects, self.config.objects, self.order.region)
                keep(table, self.sinks.import_id, work.spill.batches(BAD), self.now, self.folder)
        except LostSpillError:
            discard(self.folder)
            raise
        told = self._told(work.progress, seconds)
        _put_receipt(self.sinks.objects, told)
        discard(self.folder)
        return told

    def _work(self) -> Work:
        found = notes(self.folder)
        if not has_runs(progress_of(found).runs, self.sinks.ledger):
            self.say("what this import had placed is gone: it begins anew")
            discard(self.folder)
            found = []
        progress = progress_of(found)
        spill, slices = Spill(self.folder, progress.lengths), self.config.layout.slices
        order = self.order
        return Work(self.files, order.columns, order.source, slices, self.now, spill, progress, self.say)

    def _sort(self, work: Work) -> float:
        try:
            return sort(work)
        except (DamagedError, RefusedError):
            discard(self.folder)  # with these bytes it can never go on
            raise

    def _require_all(self, progress: Progress) -> None:
        if progress.read != progress.settled:
            raise DamagedError(
                f"{progress.read:,} rows were read, and the fate of {progress.settled:,} is known",
                f"keep the files and {self.folder}, and report this; what was placed is right",
            )

    def _told(self, progress: Progress, seconds: dict[str, float]) -> dict[str, Any]:
        labels = [file.label for file in self.files]
        return {
            "import": self.sinks.import_id,
            "region": self.order.region,
            "source": self.order.source,
            "read": progress.read,
            "placed": {to: progress.placed[to] for to in Destination},
            "repeated": progress.repeated,
            "quarantined": dict(sorted(progress.bad.items())),
            "listed": [{"file": labels[at], "line": line, "reason": why} for at, line, why in progress.listed],
            "units": len(progress.units),
            "runs": len(progress.runs),
            "run_names": [[*unit, name] for unit, name in progress.runs],
            "seconds": {name: round(spent, 1) for name, spent in seconds.items()},
        }


def identity(files: Sequence[HistoryFile], order: Order) -> str:
    """Of the bytes of the files in any order, and of all that changes what they become."""
    parts = [order.region, order.source, str(order.columns), *(file.digest for file in files)]
    return blake3("\x1f".join(parts).encode()).hexdigest()[:_ID_LENGTH]


def _about(file: HistoryFile, columns: ColumnMap) -> dict[str, Any]:
    read = {name for names in imports.used(file.names, columns).values() for name in names}
    return {"name": file.label, "form": file.form, "ignored": [name for name in file.names if name not in read]}


def _receipt(objects: Objects, import_id: str) -> dict[str, Any] | None:
    """What the import told when it was done."""
    try:
        told: dict[str, Any] = json.loads(objects.get(f"{RECEIPTS}{import_id}.json"))
    except NotFoundError:
        return None
    return told


def _put_receipt(objects: Objects, told: dict[str, Any]) -> None:
    """Only where the ledger can bear it out later, and a later time would not tell more."""
    if told["run_names"] and not told["quarantined"].keys() & set(IN_FUTURE):
        objects.put(f"{RECEIPTS}{told['import']}.json", json.dumps(told).encode())


def _runs(named: Iterable[Sequence[Any]]) -> Iterator[tuple[UnitKey, str]]:
    return (((week, slice_), name) for week, slice_, name in named)


def one_region(config: settings.Settings, named: Sequence[str] | None) -> str:
    """A history belongs to one region; where only one is configured it need not be named."""
    chosen = tuple(named or config.regions)
    if len(chosen) != 1:
        raise RefusedError(
            f"an import goes to one region, not to {', '.join(chosen)}", f"name it: --region {config.regions[0]}"
        )
    return config.require_region(chosen[0])


def named_source(text: str) -> str:
    """Names what ids are derived from, so it is plain text."""
    if not text or not text.isprintable():
        raise RefusedError("--source is empty or not printable", "give each archive a name of its own")
    return text


def parser() -> argparse.ArgumentParser:
    made = shell.options("python -m jobs.imports", "Import old history in bulk.")
    made.add_argument("files", nargs="+", type=Path, metavar="FILE", help="Parquet or NDJSON")
    made.add_argument("--source", default=SOURCE, metavar="NAME", help="the archive's name, from which ids are derived")
    made.add_argument(
        "--map", action="append", default=[], metavar="OURS=THEIRS", help="a column that has another name there"
    )
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)

    def work() -> dict[str, Any]:
        config = settings.load()
        columns, source = imports.parse_map(args.map), named_source(args.source)
        order = Order(one_region(config, args.region), tuple(args.files), columns, source)
        return run(config, args.now, order, shell.say)

    return shell.finish(work)
