"""The two ends of a move, shard by shard: rows out of a source, rows into a sink, and the proof that they agree.

Everything here runs in a task: it opens nothing, commits nothing and changes no state; what it made it returns.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

from core import digest, ring, rows
from core.errors import DamagedError
from core.ledger import Part
from core.moves import Unit
from core.overlay import Row, laid_over, merge_all, row_of
from core.tiers import Tier
from lakehouse.coldfile import read_cold_file
from lakehouse.paths import data_path, table_root
from lakehouse.site import Site
from lakehouse.writer import write_cold_file
from stores import messages
from stores.cassandra import Level
from stores.objects import NotFoundError


@dataclass(frozen=True)
class Shard:
    """One task: a shard of a sealed unit under one epoch; `attempt` is in the names of what it writes."""

    unit: Unit
    number: int
    attempt: str


@dataclass(frozen=True)
class Finding:
    """What reading both ends of a part again showed; `proven` allows the unit to go on."""

    part: Part
    source: digest.Digest
    sink: digest.Digest
    proven: bool


def tokens(site: Site, unit: Unit, shard: int) -> ring.Range:
    return ring.shard_range(unit.slice, site.config.layout.slices, shard, unit.shards)


def source_rows(site: Site, unit: Unit, shard: int) -> Iterator[Row]:
    tier = unit.move.source
    return messages.scan(site.database(tier), site.region, tier, unit.week, tokens(site, unit, shard))


def sink_rows(site: Site, unit: Unit, part: Part, level: Level = Level.QUORUM) -> Iterator[Row]:
    """As the store gives them back."""
    tier = unit.move.sink
    if tier.is_cql:
        return messages.scan(site.database(tier), site.region, tier, unit.week, tokens(site, unit, part.shard), level)
    key = f"{table_root(unit.slice)}/{part.path}"
    return chain.from_iterable(rows.from_batch(batch) for batch in read_cold_file(site.objects, key, part.sha256))


def copy(site: Site, shard: Shard) -> Part:
    """Harmless to repeat: cells come at their own times, files have names of their own."""
    tally = digest.Tally()
    passing = tally.through(source_rows(site, shard.unit, shard.number))
    unit = shard.unit
    part = Part(*unit.key, unit.move.source, shard.number, unit.epoch, digest.Digest())
    if unit.move.sink is Tier.WARM:
        site.db.warm.write(messages.batches(site.region, Tier.WARM, unit.week, passing))
        return replace(part, digest=tally.digest, size_bytes=tally.size_bytes)
    path = data_path(unit.week, shard.number, unit.epoch, shard.attempt)
    ordered = rows.in_key_order(rows.to_batches(passing))
    file = write_cold_file(
        ordered, site.objects, f"{table_root(unit.slice)}/{path}", site.config.layout.row_group_bytes
    )
    return replace(part, digest=tally.digest, path=path, size_bytes=file.size_bytes, sha256=file.sha256)


def verify(site: Site, work: tuple[Unit, Part]) -> Finding:
    """Reads the sink back and scans the source afresh; a file that cannot be read back proves nothing.

    Late duplicates make them differ harmlessly: then source ∪ lane is held against sink ∪ lane.
    """
    unit, part = work
    source = digest.of_rows(source_rows(site, unit, part.shard))
    try:
        sink = digest.of_rows(sink_rows(site, unit, part))
    except (DamagedError, NotFoundError):
        return Finding(part, source, digest.Digest(), False)
    if source != sink or sink != part.digest:
        amendments = lane_rows(site, unit, part.shard)
        source = digest.of_rows(laid_over(source_rows(site, unit, part.shard), amendments))
        sink = digest.of_rows(laid_over(sink_rows(site, unit, part), amendments))
    return Finding(part, source, sink, source == sink)


def covered(site: Site, work: tuple[Unit, Part]) -> Finding:
    """Before a drop: the sink with its lane, read from ALL replicas, must lose nothing by losing the source.

    It has to be unchanged when the source is merged into it; it may hold more, for it has been written since.
    """
    unit, part = work
    amendments = lane_rows(site, unit, part.shard)
    sink = list(laid_over(sink_rows(site, unit, part, Level.ALL), amendments))
    left = merge_all(source_rows(site, unit, part.shard))
    without, with_source = digest.of_rows(sink), digest.of_rows(laid_over(sink, left))
    return Finding(part, with_source, without, without == with_source)


def lane_rows(site: Site, unit: Unit, shard: int) -> dict[tuple[bytes, bytes], Row]:
    return merge_all(map(row_of, site.lane.scan(unit.week, tokens(site, unit, shard))))
