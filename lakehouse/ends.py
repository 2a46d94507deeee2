"""The two ends of a move, shard by shard: rows out of a source, rows into a sink, and the proof that they agree.

Everything here runs in a task: it opens nothing, commits nothing and changes no state; what it made it returns.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import pyarrow as pa

from core import canonical, digest, ring, rows
from core.errors import DamagedError
from core.ledger import Part, Pointer
from core.moves import Unit, frozen_generations, reroutes
from core.overlay import Row, laid_over, merge_all, row_of
from core.sealing import people_of
from core.tiers import Tier
from lakehouse.coldfile import read_cold_file
from lakehouse.frozen import fresh_place, read_frozen_file, require_attested, require_opening, write_frozen_file
from lakehouse.index import require_readable
from lakehouse.paths import data_path, frozen_key, table_root
from lakehouse.site import Site
from lakehouse.writer import ColdFile, write_cold_file
from stores import inserts, messages, scans
from stores.cassandra import Level
from stores.objects import NotFoundError

_SALT_DIGITS = 8


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
    match tier:
        case Tier.COLD:
            return chain.from_iterable(map(rows.from_batch, source_batches(site, unit, shard)))
        case Tier.FROZEN:
            return thawing_rows(site, unit, shard)
        case _:
            return messages.scan(site.database(tier), site.region, tier, unit.week, tokens(site, unit, shard))


def source_batches(site: Site, unit: Unit, shard: int) -> Iterator[pa.RecordBatch]:
    """The same rows in whole batches, and in another order."""
    tier = unit.move.source
    match tier:
        case Tier.COLD:
            return cold_batches(site, unit, source_file(site, unit, shard))
        case Tier.FROZEN:
            return rows.to_batches(thawing_rows(site, unit, shard))
        case _:
            return scans.scan(site.database(tier), site.region, tier, unit.week, tokens(site, unit, shard))


def source_file(site: Site, unit: Unit, shard: int) -> Pointer:
    """The cold file of a shard; DamagedError when no pointer leads to it."""
    if pointer := _cold_file(site, unit, shard):
        return pointer
    raise DamagedError(
        f"no pointer leads to the cold file of shard {shard} of {unit.name}",
        "run ./firn maintain --apply, which brings pointers up to the Delta log, then the same command again",
    )


def _cold_file(site: Site, unit: Unit, shard: int) -> Pointer | None:
    pointers = site.ledger.pointers(unit.week, unit.slice)
    return next((one for one in pointers if (one.shards, one.shard) == (unit.shards, shard)), None)


def thawing_rows(site: Site, unit: Unit, shard: int) -> Iterator[Row]:
    """All generations of a frozen shard and the supplement that cold may hold, merged; a shard fits in memory.

    FrozenObjectError while an object is not restored. What a destroyed key had sealed does not come back.
    """
    frozen, generations = site.ledger.frozen(unit.week, unit.slice), frozen_generations(unit)
    files = [file for file in frozen if file.shard == shard and file.generation in generations]
    if not files or files[0].generation or any(file.shards != unit.shards for file in files):
        raise DamagedError(
            f"the ledger does not name the frozen object of shard {shard} of {unit.name}",
            "nothing was dropped; see the manifest in lake/frozen, and what has written into the ledger",
        )
    read = (rows.to_batches(read_frozen_file(site.objects, site.vault, file.path, file.sha256)) for file in files)
    supplement = _cold_file(site, unit, shard)
    beside = cold_batches(site, unit, supplement) if supplement else iter(())
    return rows.from_batch(rows.one_per_key(chain(chain.from_iterable(read), beside)))


def cold_batches(site: Site, unit: Unit, file: Part | Pointer) -> Iterator[pa.RecordBatch]:
    return read_cold_file(site.objects, f"{table_root(unit.slice)}/{file.path}", file.sha256)


def sink_rows(site: Site, unit: Unit, part: Part, level: Level = Level.QUORUM) -> Iterator[Row]:
    """As the store gives them back; a frozen sink gives nothing back."""
    tier = unit.move.sink
    if tier.is_cql:
        return messages.scan(site.database(tier), site.region, tier, unit.week, tokens(site, unit, part.shard), level)
    return chain.from_iterable(map(rows.from_batch, cold_batches(site, unit, part)))


def sink_digest(site: Site, unit: Unit, part: Part) -> digest.Digest:
    """Of what the sink holds. A frozen object's rows were digested before it was put: here the store attests that it
    still holds those bytes."""
    if unit.move.sink is Tier.FROZEN:
        require_attested(site.objects, part.path, part.sha256, part.size_bytes)
        return part.digest
    if unit.move.sink is Tier.COLD:
        return canonical.of_batches(cold_batches(site, unit, part))
    sink = site.database(unit.move.sink), site.region, unit.move.sink, unit.week, tokens(site, unit, part.shard)
    return canonical.of_batches(scans.scan(*sink))


def copy(site: Site, shard: Shard) -> Part:
    """Harmless to repeat: cells come at their own times, files have names of their own."""
    unit = shard.unit
    part = Part(*unit.key, unit.move.source, shard.number, unit.epoch, digest.Digest())
    match unit.move.sink:
        case Tier.HOT | Tier.WARM as tier:
            tally = digest.Tally()
            passing = canonical.tallied(source_batches(site, unit, shard.number), tally)
            inserts.write(site.database(tier), site.region, tier, unit.week, passing)
            return replace(part, digest=tally.digest, size_bytes=tally.size_bytes)
        case Tier.COLD:
            path = data_path(unit.week, shard.number, unit.epoch, shard.attempt)
            return of_file(part, path, _to_cold(site, shard, f"{table_root(unit.slice)}/{path}"))
        case _:
            return of_file(part, *_to_frozen(site, shard))


def of_file(part: Part, path: str, file: ColdFile) -> Part:
    return replace(part, digest=file.digest, path=path, size_bytes=file.size_bytes, sha256=file.sha256)


def _to_cold(site: Site, shard: Shard, key: str) -> ColdFile:
    ordered = rows.in_key_order(source_batches(site, shard.unit, shard.number))
    return write_cold_file(ordered, site.objects, key, site.config.layout.row_group_bytes)


def _to_frozen(site: Site, shard: Shard) -> tuple[str, ColdFile]:
    """Under a key of its own each time: a task that runs twice must not put one salt's bytes under the other's
    references."""
    unit = shard.unit
    place = fresh_place(*unit.key, unit.generation, shard.number, unit.epoch)
    attempt = f"{shard.attempt}{place.salt.hex()[:_SALT_DIGITS]}"
    key = frozen_key(unit.slice, unit.week, unit.generation, shard.number, unit.epoch, attempt)
    batches = cold_batches(site, unit, source_file(site, unit, shard.number))
    sizes = (site.config.layout.row_group_bytes, site.config.frozen.text_class)
    return key, write_frozen_file(batches, site.vault, site.objects, place, key, *sizes)


def verify(site: Site, work: tuple[Unit, Part]) -> Finding:
    """Reads the sink back and scans the source afresh; a file that cannot be read back proves nothing.

    Late duplicates make them differ harmlessly: then source ∪ lane is held against sink ∪ lane.
    """
    unit, part = work
    source = canonical.of_batches(source_batches(site, unit, part.shard))
    try:
        sink = sink_digest(site, unit, part)
    except (DamagedError, NotFoundError):
        return Finding(part, source, digest.Digest(), False)
    if reroutes(unit.move) and (source != sink or sink != part.digest):
        amendments = lane_rows(site, unit, part.shard)
        source = digest.of_rows(laid_over(source_rows(site, unit, part.shard), amendments))
        sink = digest.of_rows(laid_over(sink_rows(site, unit, part), amendments))
    return Finding(part, source, sink, source == sink)


def covered(site: Site, work: tuple[Unit, Part]) -> Finding:
    """Before a drop: the sink with its lane, read from ALL replicas, must lose nothing by losing the source.

    It has to be unchanged when the source is merged into it; it may hold more, for it has been written since. A cold
    sink must be readable by its index, too, for that is how it will be read from then on. Where
    neither end is written by anybody, the cold file must be the very one that was proven: the one whose rows were
    frozen, and the vault must still open them, or the one that a thaw made. A frozen source is not read again, for its
    copies may have gone.
    """
    unit, part = work
    if unit.move.sink is Tier.COLD:
        require_readable(site.objects, f"{table_root(unit.slice)}/{part.path}", part.sha256)
    if unit.move.source is Tier.FROZEN:
        sink = sink_digest(site, unit, part)
        return Finding(part, part.digest, sink, sink == part.digest)
    if unit.move.sink is Tier.FROZEN:
        tally, people = digest.Tally(), set[int]()
        for row in tally.through(source_rows(site, unit, part.shard)):
            people.update(people_of(row))
        require_opening(site.vault, site.objects, part.path, people, part.digest)
        return Finding(part, tally.digest, sink_digest(site, unit, part), tally.digest == part.digest)
    amendments = lane_rows(site, unit, part.shard)
    held = list(laid_over(sink_rows(site, unit, part, Level.ALL), amendments))
    left = merge_all(source_rows(site, unit, part.shard))
    without, with_source = digest.of_rows(held), digest.of_rows(laid_over(held, left))
    return Finding(part, with_source, without, without == with_source)


def lane_rows(site: Site, unit: Unit, shard: int) -> dict[tuple[bytes, bytes], Row]:
    return merge_all(map(row_of, site.lane.scan(unit.week, tokens(site, unit, shard))))
