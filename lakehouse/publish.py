"""From parts to what readers see: the commit to Delta, then the pointers, and both before the unit is switched."""

from collections.abc import Sequence
from datetime import datetime

from core.errors import BlockedError, DamagedError
from core.ledger import Part, Pointer, lease_name
from core.moves import Unit
from lakehouse.commit import PartFile, commit, create_table, live_files
from lakehouse.site import Site
from lakehouse.tables import TableRef, messages_table


def table_lease(unit: Unit) -> str:
    return f"table/{unit.region}/{unit.slice}"


def publish(site: Site, unit: Unit, parts: Sequence[Part], attempt: str, now: datetime) -> int:
    """Commits the parts under the unit's commit number and brings its pointers forward; returns the Delta version.

    Runs under the table's lease. Files of an earlier attempt that was killed after its commit are replaced.
    """
    table = messages_table(site.objects, site.config.objects, site.region, unit.slice)
    create_table(table)
    files = _part_files(table, unit, parts)
    number, attempt_id = unit.commits, f"{unit.epoch}-{attempt}"
    version = commit(table, files, app_id=lease_name(unit), number=number, attempt_id=attempt_id, now=now)
    for part in parts:
        if not site.ledger.advance(_pointer(unit, part, version)):
            raise BlockedError(f"{unit.name}: a pointer is ahead of version {version}", "let the other mover finish")
    return version


def require_pointers(site: Site, unit: Unit, parts: Sequence[Part]) -> None:
    """DamagedError unless the pointers name exactly the files that were proven. A CQL sink has none."""
    if unit.move.sink.is_cql:
        return
    named = {
        pointer.shard: pointer.path
        for pointer in site.ledger.pointers(unit.week, unit.slice)
        if pointer.shards == unit.shards
    }
    if named != {part.shard: part.path for part in parts} or len(named) != unit.shards:
        raise DamagedError(
            f"{unit.name}: pointers and proven files differ",
            "somebody rewrote the unit before its switch; nothing was dropped",
        )


def _part_files(table: TableRef, unit: Unit, parts: Sequence[Part]) -> list[PartFile]:
    live = live_files(table, unit.week)
    return [
        PartFile(
            part.path,
            part.size_bytes,
            part.digest.rows,
            (unit.week, part.shard),
            tuple(path for path, file in live.items() if file.place[1] == part.shard and path != part.path),
        )
        for part in parts
    ]


def _pointer(unit: Unit, part: Part, version: int) -> Pointer:
    return Pointer(
        unit.week, unit.slice, unit.shards, part.shard, part.path, version, part.digest, part.size_bytes, part.sha256
    )
