"""One cursor over every tier: source, then lane, then sink, merged cell by cell; it stays right while weeks move.

The cursor is a message id. A page costs one read per week that it touches; weeks without messages cost nothing, and
nothing is ever listed. What cannot be read now is named, never skipped.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from core import moves, ring, rows, weeks
from core.errors import BlockedError, DamagedError
from core.ledger import FrozenFile, Pointer
from core.moves import State, Unit, born_cold
from core.overlay import Row, merge_all, visible
from core.rows import ID_BYTES
from core.tiers import Tier
from lakehouse.frozen import read_frozen_groups
from lakehouse.index import HIGHEST, ColdIndex, find, load_index, read_row_groups
from lakehouse.paths import table_root
from lakehouse.restore import Waiting, waiting
from lakehouse.site import Site
from stores import conversations, messages
from stores.cassandra import MissingTableError
from stores.objects import FrozenObjectError, NotFoundError, Objects

_RELOADS = 5


class MovedOnError(BlockedError):
    """The unit is not what it was when its reading began."""


@dataclass(frozen=True)
class Page:
    """Visible rows, newest first. `before` continues; None: there is no more. `missing` weeks cannot be read yet, each
    with what it waits for; they do not stop the page, so what it shows has gaps there."""

    rows: tuple[Row, ...]
    tiers: dict[int, Tier]
    before: bytes | None
    missing: dict[int, Waiting]
    hidden_amendments: int


@dataclass(frozen=True)
class Stretch:
    """Some of a week's rows, newest first. All with ids from `from_id` up are here; None: all that is left of it."""

    rows: tuple[Row, ...]
    from_id: bytes | None


def read_page(site: Site, conversation_id: bytes, before: bytes | None, limit: int) -> Page:
    """Up to `limit` visible messages with ids below `before`."""
    found: list[Row] = []
    tiers: dict[int, Tier] = {}
    missing: dict[int, Waiting] = {}
    amendments = 0
    last_week = None if before is None else weeks.of_id(before)
    for week in conversations.weeks_of(site.db.hot, site.region, conversation_id, last_week):
        cursor = before if week == last_week else None
        while len(found) < limit:
            unit, stretch = read_week(site, conversation_id, week, cursor, limit - len(found))
            if isinstance(stretch, Waiting):
                missing[week] = stretch
                break
            tiers[week] = unit.tier
            found += visible(stretch.rows)
            amendments += sum(not row.is_message for row in stretch.rows)
            cursor = stretch.from_id
            if cursor is None:
                break
        if len(found) >= limit:
            page = tuple(found[:limit])
            return Page(page, tiers, page[-1].message_id, missing, amendments)
    return Page(tuple(found), tiers, None, missing, amendments)


def read_week(
    site: Site, conversation_id: bytes, week: int, before: bytes | None, limit: int
) -> tuple[Unit, Stretch | Waiting]:
    """The newest stretch below `before` of one week; what it waits for where frozen rows of it are not restored.

    A table or pointer that is gone means that the week moved on since the ledger was read: it is read again. So is a
    week whose reading took longer than the longest read, for that is how long a mover keeps what it has moved.
    """
    slice_ = ring.part_of(ring.token(conversation_id), site.config.layout.slices)
    gone: NotFoundError | None = None
    for _ in range(_RELOADS):
        began = time.monotonic()
        unit = _unit(site, week, slice_)
        try:
            stretch = _merged(site, unit, conversation_id, before, limit)
        except (MissingTableError, MovedOnError):
            continue
        except NotFoundError as fault:
            gone = fault  # purged since its pointer was read; else it is lost
            continue
        except DamagedError:
            if (site.ledger.unit(week, slice_) or unit) == unit:
                raise
            continue
        except FrozenObjectError:
            return unit, waiting(site.objects, _frozen_files(site, unit, conversation_id))
        if time.monotonic() - began <= site.config.clocks.longest_read_seconds:
            return unit, stretch
    if gone:
        raise DamagedError(
            f"{gone.key} is named by {weeks.label(week)} and is not in the store",
            "see all that is named and not there: ./firn phantoms",
        )
    raise BlockedError(
        f"{weeks.label(week)} could not be read in {_RELOADS} tries: its tables are gone or too slow",
        "look at ./firn status and ./firn stack status, then read again",
    )


def _unit(site: Site, week: int, slice_: int) -> Unit:
    return site.ledger.unit(week, slice_) or born_cold(site.region, week, slice_)


def _merged(site: Site, unit: Unit, conversation_id: bytes, before: bytes | None, limit: int) -> Stretch:
    """The order of the reads is the law: what leaves the source is in the lane, what leaves the lane is in the sink."""
    first, *others = moves.readers(unit)
    stretches = [_from_tier(site, unit, first, conversation_id, before, limit)]
    amendments = site.lane.read(unit.week, conversation_id)
    stretches += [_from_tier(site, unit, tier, conversation_id, before, limit) for tier in others]
    return stretch_of(stretches, amendments, before)


def stretch_of(stretches: Sequence[Stretch], amendments: Sequence[Row], before: bytes | None) -> Stretch:
    """Complete only down to the highest id at which one of the reads stopped."""
    from_id = max((stretch.from_id for stretch in stretches if stretch.from_id), default=None)
    merged = merge_all(chain.from_iterable([*(stretch.rows for stretch in stretches), amendments])).values()
    kept = [row for row in merged if _between(row.message_id, from_id, before)]
    return Stretch(tuple(sorted(kept, key=lambda row: row.message_id, reverse=True)), from_id)


def _between(message_id: bytes, from_id: bytes | None, before: bytes | None) -> bool:
    return (from_id is None or message_id >= from_id) and (before is None or message_id < before)


def _from_tier(site: Site, unit: Unit, tier: Tier, conversation_id: bytes, before: bytes | None, limit: int) -> Stretch:
    match tier:
        case Tier.FROZEN:
            return _from_frozen(site, unit, conversation_id, before)
        case Tier.COLD:
            return _from_file(site, unit, conversation_id, before)
    try:
        found = messages.read(site.database(tier), site.region, tier, unit.week, conversation_id, before, limit)
    except MissingTableError:
        if unit.state is State.SWITCHED and tier is unit.move.source:
            return Stretch((), None)  # dropped since: the sink was proven to hold it all
        raise
    is_cut = sum(row.is_message or row.deleted or row.edit_id is not None for row in found) >= limit
    return Stretch(tuple(found), found[-1].message_id if is_cut else None)


def _from_file(site: Site, unit: Unit, conversation_id: bytes, before: bytes | None) -> Stretch:
    """Of a frozen unit only some shards have a supplement; any other unit has a file in each."""
    pointer = _pointer(site, unit, conversation_id)
    if pointer is not None:
        return newest_group(site.objects, f"{table_root(unit.slice)}/{pointer.path}", conversation_id, before)
    if _unit(site, unit.week, unit.slice) != unit:
        raise MovedOnError(f"{unit.name} was frozen while it was read", "read again")
    if unit.shards and not unit.generation:
        raise DamagedError(
            f"no pointer leads to a file of {unit.name}",
            "run ./firn maintain --apply, which brings pointers up to the Delta log, then read again",
        )
    return Stretch((), None)


def _from_frozen(site: Site, unit: Unit, conversation_id: bytes, before: bytes | None) -> Stretch:
    """What is sealed opens to the people who have a key still. FrozenObjectError while it is not restored; where the
    index says that nothing of the conversation is in it, the object itself is not asked for."""
    vault = site.vault

    def rows_of(index: ColdIndex, group: int) -> Iterator[Row]:
        return read_frozen_groups(site.objects, vault, index, [group], conversation_id)

    files = _frozen_files(site, unit, conversation_id)
    stretches = [_newest_rows(site.objects, file.path, rows_of, conversation_id, before) for file in files]
    return stretch_of(stretches, [], before)


def newest_group(objects: Objects, key: str, conversation_id: bytes, before: bytes | None) -> Stretch:
    """The conversation's rows in the newest row group below `before`: one GET beside the index's."""

    def rows_of(index: ColdIndex, group: int) -> Iterator[Row]:
        return rows.from_batch(read_row_groups(objects, index, [group]))

    return _newest_rows(objects, key, rows_of, conversation_id, before)


def _newest_rows(
    objects: Objects,
    key: str,
    rows_of: Callable[[ColdIndex, int], Iterator[Row]],
    conversation_id: bytes,
    before: bytes | None,
) -> Stretch:
    index = load_index(objects, key)
    groups = find(index, conversation_id, highest=HIGHEST if before is None else _just_below(before))
    if not groups:
        return Stretch((), None)
    held = rows_of(index, groups[-1])
    mine = (row for row in held if row.conversation_id == conversation_id and _between(row.message_id, None, before))
    found = tuple(sorted(mine, key=lambda row: row.message_id, reverse=True))
    # With groups left, this one begins in the conversation: all of it from the group's first key up is here.
    return Stretch(found, None if len(groups) == 1 else index.groups[groups[-1]].first_key[ID_BYTES:])


def _just_below(message_id: bytes) -> bytes:
    return (int.from_bytes(message_id, "big") - 1).to_bytes(ID_BYTES, "big")


def _pointer(site: Site, unit: Unit, conversation_id: bytes) -> Pointer | None:
    """The shard's range must hold the token."""
    token = ring.token(conversation_id)
    for pointer in site.ledger.pointers(unit.week, unit.slice):
        if pointer.shards == unit.shards and token in pointer.range(site.config.layout.slices):
            return pointer
    return None


def _frozen_files(site: Site, unit: Unit, conversation_id: bytes) -> list[FrozenFile]:
    """One per generation that has a file for this conversation's shard."""
    token, generations = ring.token(conversation_id), moves.frozen_generations(unit)
    return [
        file
        for file in site.ledger.frozen(unit.week, unit.slice)
        if file.generation in generations and token in file.range(site.config.layout.slices)
    ]
