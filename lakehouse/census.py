"""What a region holds, counted from the stores themselves: every row of every unit, where its truth lies."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from core import digest, ring, rows
from core.errors import BlockedError
from core.ledger import Pointer
from core.moves import Unit
from core.overlay import Row, laid_over, merge_all, row_of
from core.tiers import Tier
from lakehouse.coldfile import read_cold_file
from lakehouse.paths import table_root
from lakehouse.site import Site
from stores import messages
from stores.cassandra import MissingTableError

_TRIES = 5


@dataclass(frozen=True)
class Count:
    """One unit. `digest` is over all canonical rows with the lane laid over; `messages` leaves out lone amendments."""

    unit: Unit
    digest: digest.Digest
    messages: int
    files: int
    size_bytes: int
    in_lane: int


def count(site: Site, unit: Unit) -> Count:
    """Reads all of it. For a CQL tier `size_bytes` is that of the encoded rows, for a cold one that of its files."""
    pointers = [pointer for pointer in site.ledger.pointers(unit.week, unit.slice) if pointer.shards == unit.shards]
    events = list(site.lane.scan(unit.week, ring.cut(unit.slice, site.config.layout.slices)))
    tally, found = digest.Tally(), 0
    for row in tally.through(laid_over(unit_rows(site, unit, pointers), merge_all(map(row_of, events)))):
        found += row.is_message
    if unit.tier.is_cql:
        return Count(unit, tally.digest, found, 0, tally.size_bytes, len(events))
    size_bytes = sum(pointer.size_bytes for pointer in pointers)
    return Count(unit, tally.digest, found, len(pointers), size_bytes, len(events))


def unit_rows(site: Site, unit: Unit, pointers: Iterable[Pointer]) -> Iterator[Row]:
    """Without the lane; of a cold unit the files that `pointers` name."""
    if unit.tier.is_cql:
        whole = ring.cut(unit.slice, site.config.layout.slices)
        return messages.scan(site.database(unit.tier), site.region, unit.tier, unit.week, whole)
    files = (
        read_cold_file(site.objects, f"{table_root(unit.slice)}/{pointer.path}", pointer.sha256) for pointer in pointers
    )
    return chain.from_iterable(rows.from_batch(batch) for batch in chain.from_iterable(files))


def census(site: Site) -> list[Count]:
    """Every unit but frozen ones, oldest week first; one that moves while it is counted is counted again."""
    units = [unit for unit in site.ledger.units() if unit.tier is not Tier.FROZEN]
    return [_settled_count(site, unit) for unit in sorted(units, key=lambda unit: (unit.week, unit.slice))]


def _settled_count(site: Site, unit: Unit) -> Count:
    for _ in range(_TRIES):
        before = site.ledger.unit(unit.week, unit.slice) or unit
        try:
            counted = count(site, before)
        except MissingTableError:
            continue
        if (site.ledger.unit(unit.week, unit.slice) or unit).revision == before.revision:
            return counted
    raise BlockedError(f"{unit.name} moved {_TRIES} times while it was counted", "count again when the mover is done")
