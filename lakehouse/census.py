"""What a region holds, counted from the stores themselves: every row of every unit, where its truth lies."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from core import digest, ring, rows
from core.errors import BlockedError, DamagedError
from core.ledger import FrozenFile, Pointer
from core.moves import Unit
from core.overlay import Row, laid_over, merge_all, row_of
from lakehouse.coldfile import read_cold_file
from lakehouse.frozen import read_frozen_file, require_attested
from lakehouse.paths import table_root
from lakehouse.publish import files_of
from lakehouse.site import Site
from stores import messages
from stores.cassandra import MissingTableError

_TRIES = 5


@dataclass(frozen=True)
class Count:
    """One unit. `digest` is over all canonical rows with the lane laid over; `messages` leaves out lone amendments, but
    of frozen rows that are not read back (`attested`), which the manifest only counts."""

    unit: Unit
    digest: digest.Digest
    messages: int
    files: int
    size_bytes: int
    in_lane: int
    attested: bool = False


def count(site: Site, unit: Unit) -> Count:
    """Reads all of it. For a CQL tier `size_bytes` is that of the encoded rows, for a cold one that of its files.

    Frozen rows count as the store attests them, while nothing lies over them; else they are read, or it is a
    FrozenObjectError.
    """
    events = list(site.lane.scan(unit.week, ring.cut(unit.slice, site.config.layout.slices)))
    cold, frozen = files_of(site, unit)
    size_bytes = sum(file.size_bytes for file in cold) + sum(file.size_bytes for file in frozen)
    sizes = len(cold) + len(frozen), size_bytes, len(events)
    if not unit.tier.is_cql and not unit.generation and len(cold) + len(frozen) != unit.shards:
        raise DamagedError(
            f"{unit.name} has {len(cold) + len(frozen)} of its {unit.shards} files",
            "run ./firn maintain --apply, which brings pointers up to the Delta log, then count again",
        )
    if frozen and not cold and not events and len({file.generation for file in frozen}) == 1:
        return _attested(site, unit, frozen, *sizes)
    tally, found = digest.Tally(), 0
    base = laid_over(_frozen_rows(site, frozen), merge_all(cold_rows(site, unit, cold))) if frozen else None
    rows_of_unit = base or unit_rows(site, unit, cold)
    for row in tally.through(laid_over(rows_of_unit, merge_all(map(row_of, events)))):
        found += row.is_message
    size_bytes = tally.size_bytes if unit.tier.is_cql else size_bytes
    return Count(unit, tally.digest, found, len(cold) + len(frozen), size_bytes, len(events))


def _attested(site: Site, unit: Unit, frozen: Sequence[FrozenFile], files: int, size_bytes: int, in_lane: int) -> Count:
    for file in frozen:
        require_attested(site.objects, file.path, file.sha256, file.size_bytes)
    total = sum((file.digest for file in frozen), digest.Digest())
    return Count(unit, total, total.rows, files, size_bytes, in_lane, attested=True)


def unit_rows(site: Site, unit: Unit, pointers: Iterable[Pointer]) -> Iterator[Row]:
    """Without the lane; of a cold unit the files that `pointers` name."""
    if unit.tier.is_cql:
        whole = ring.cut(unit.slice, site.config.layout.slices)
        return messages.scan(site.database(unit.tier), site.region, unit.tier, unit.week, whole)
    return cold_rows(site, unit, pointers)


def cold_rows(site: Site, unit: Unit, pointers: Iterable[Pointer]) -> Iterator[Row]:
    files = (
        read_cold_file(site.objects, f"{table_root(unit.slice)}/{pointer.path}", pointer.sha256) for pointer in pointers
    )
    return chain.from_iterable(rows.from_batch(batch) for batch in chain.from_iterable(files))


def _frozen_rows(site: Site, files: Sequence[FrozenFile]) -> Iterator[Row]:
    """Of all generations, later ones merged in."""
    vault = site.vault
    read = (read_frozen_file(site.objects, vault, file.path, file.sha256) for file in files)
    return iter(merge_all(chain.from_iterable(read)).values())


def census(site: Site) -> list[Count]:
    """Every unit, oldest week first; one that moves while it is counted is counted again."""
    return [_settled_count(site, unit) for unit in sorted(site.ledger.units(), key=lambda unit: unit.key)]


def _settled_count(site: Site, unit: Unit) -> Count:
    for _ in range(_TRIES):
        before = site.ledger.unit(unit.week, unit.slice) or unit
        try:
            counted = count(site, before)
        except (MissingTableError, DamagedError):
            if _revision(site, unit) == before.revision:
                raise
            continue
        if _revision(site, unit) == before.revision:
            return counted
    raise BlockedError(f"{unit.name} moved {_TRIES} times while it was counted", "count again when the mover is done")


def _revision(site: Site, unit: Unit) -> int:
    return (site.ledger.unit(unit.week, unit.slice) or unit).revision
