"""Kafka → week tables: reads a region's log, writes each event where the ledger says, then commits.

Each commit carries the route number that the writes obeyed, also on idle partitions: that is what the gate of a move
waits for. What cannot be kept goes to the dead-letter topic with its reason; what cannot be written now is tried again
and never skipped.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import structlog

from core import gate, settings
from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError
from core.intake import why_not
from core.topics import DEAD_LETTER_BYTES_MAX, Committed, Place, Record
from lakehouse.site import Site, opened
from schemas.events import Event, MalformedEventError, decode
from serving import logs
from serving.intake import Intake, UnknownWeekError
from serving.routing import RouteCopy
from stores import kafka
from stores.cassandra import MissingTableError

BATCH_RECORDS = 2000
_POLL_SECONDS = 0.2
_RETRY_SECONDS = 1.0
log = structlog.get_logger()


@dataclass
class Partitions:
    """What is assigned to this process: the next offset to read, and what the last commit said."""

    next_offsets: dict[Place, int] = field(default_factory=dict)
    last_commit: tuple[dict[Place, int], int] | None = None
    newest_route: int = -1

    def assigned(self, committed: Mapping[Place, Committed]) -> None:
        self.next_offsets |= {place: known.offset or 0 for place, known in committed.items()}
        self.newest_route = max([self.newest_route, *(known.route or 0 for known in committed.values())])
        self.last_commit = None

    def revoked(self, places: Sequence[Place]) -> None:
        for place in places:
            self.next_offsets.pop(place, None)
        self.last_commit = None

    def follow(self, records: Sequence[Record]) -> None:
        """DamagedError when offsets are missing before one of them."""
        expected = dict(self.next_offsets)
        for record in records:
            first = expected.get(record.place, record.offset)
            if record.offset != first:
                raise DamagedError(
                    f"{record.topic}/{record.partition}: offsets {first}..{record.offset - 1} are missing from the log",
                    "find out what was lost before anything is dropped; the gate of every move is shut until then",
                )
            expected[record.place] = record.offset + 1


@dataclass
class Consumer:
    site: Site
    client: kafka.Consumer
    dead_letters: kafka.Producer
    routes: RouteCopy
    intake: Intake
    partitions: Partitions
    stop: threading.Event

    def run(self) -> None:
        while not self.stop.is_set():
            self.step()

    def step(self) -> None:
        """One batch, or one idle look at the ledger."""
        records = kafka.poll(self.client, BATCH_RECORDS, _POLL_SECONDS)
        if self._durable(records):
            for record in records:
                self.partitions.next_offsets[record.place] = record.offset + 1
        self._commit()

    def _durable(self, records: Sequence[Record]) -> bool:
        """Tries until everything is written or set aside; False when the partitions went to somebody else meanwhile."""
        self.partitions.follow(records)
        places = {record.place for record in records}
        while not self.stop.is_set():
            if not places <= self.partitions.next_offsets.keys():
                return False
            try:
                self._write(records)
                return True
            except (MissingTableError, UnknownWeekError) as fault:
                log.warning("blocked", region=self.site.region, what=fault.what, do=fault.do)
                self.stop.wait(_RETRY_SECONDS)
                self._try_reload()
            except (BlockedError, OutcomeUnknownError) as fault:
                log.warning("retrying", region=self.site.region, what=fault.what)
                self.stop.wait(_RETRY_SECONDS)
        return False

    def _write(self, records: Sequence[Record]) -> None:
        routes = self.routes.current()
        if routes.number < self.partitions.newest_route:
            routes = self.routes.reload()
        events = [event for record in records if (event := self._event(record))]
        if events:
            self.intake.write(events, routes)
        self.dead_letters.flush()

    def _event(self, record: Record) -> Event | None:
        try:
            event = decode(record.value)
            reason = why_not(event, record.key, record.timestamp_ms * 1000)
        except MalformedEventError as fault:
            event, reason = None, str(fault)
        if reason:
            log.warning(
                "dead letter", topic=record.topic, partition=record.partition, offset=record.offset, reason=reason
            )
            kafka.dead_letter(self.dead_letters, self.site.region, record, reason)
            return None
        return event

    def _commit(self) -> None:
        """Nothing to say when neither an offset nor the route has changed."""
        try:
            wanted = (dict(self.partitions.next_offsets), self.routes.current().number)
            if wanted[0] and wanted != self.partitions.last_commit and wanted[1] >= self.partitions.newest_route:
                kafka.commit(self.client, wanted[0], gate.metadata(wanted[1]))
                self.partitions.last_commit = wanted
        except (BlockedError, OutcomeUnknownError) as fault:
            log.warning("not committed yet", region=self.site.region, what=fault.what)

    def _try_reload(self) -> None:
        try:
            self.routes.reload()
        except (BlockedError, OutcomeUnknownError) as fault:
            log.warning("retrying", region=self.site.region, what=fault.what)


def serve(config: settings.Settings, region: str, stop: threading.Event) -> None:
    """Runs until `stop`; raises DamagedError on a gap in the log."""
    partitions = Partitions()
    with opened(config, region) as site:
        producer = kafka.open_producer(config.kafka, DEAD_LETTER_BYTES_MAX)
        client = kafka.open_consumer(config.kafka, region, partitions.assigned, partitions.revoked)
        with closing(client):
            routes = RouteCopy(site.ledger, config.layout.slices, config.clocks.ledger_age_seconds)
            log.info("consuming", region=region)
            Consumer(site, client, producer, routes, Intake(site), partitions, stop).run()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serving.consumer", description="Write a region's log into week tables."
    )
    parser.add_argument("--region", required=True)
    args = parser.parse_args(argv)
    logs.configure()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        config = settings.load()
        serve(config, config.require_region(args.region), stop)
    except FirnError as fault:
        log.error("stopped", error=type(fault).__name__, what=fault.what, do=fault.do)
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
