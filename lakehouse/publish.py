"""From parts to what readers see: the commit to Delta, then the pointers, and both before the unit is switched."""

import io
from collections.abc import Mapping, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from core.digest import Digest
from core.errors import BlockedError, DamagedError
from core.ledger import FrozenFile, Part, Pointer, lease_name
from core.moves import COLD_FROZEN, FROZEN_COLD, Unit, frozen_generations, readers
from core.tiers import Tier
from lakehouse.commit import LiveFile, PartFile, commit, create_table, fence, live_files, live_version
from lakehouse.deltalog import log_of, require_legible
from lakehouse.index import load_index
from lakehouse.paths import DATA_SUFFIX
from lakehouse.site import Site
from lakehouse.tables import TableRef, frozen_table, messages_table
from schemas.tables import FROZEN_MANIFEST
from stores.objects import NotFoundError


def table_lease(unit: Unit) -> str:
    return f"table/{unit.region}/{unit.slice}"


def cold_files(site: Site, unit: Unit) -> list[Pointer]:
    """Those that hold the unit's rows in cold now, by shard."""
    return [pointer for pointer in site.ledger.pointers(unit.week, unit.slice) if pointer.shards == unit.shards]


def files_of(site: Site, unit: Unit) -> tuple[list[Pointer], list[FrozenFile]]:
    """The files that hold the unit's rows now, in cold and in frozen."""
    generations = frozen_generations(unit)
    frozen = site.ledger.frozen(unit.week, unit.slice) if generations else []
    cold = cold_files(site, unit) if Tier.COLD in readers(unit) else []
    return cold, [file for file in frozen if file.generation in generations]


def live_files_of(site: Site, unit: Unit) -> dict[str, LiveFile]:
    """What the Delta log holds of the unit, by path."""
    create_table(messages_of(site, unit))
    return live_files(messages_of(site, unit), unit.week)


def shards_of(site: Site, unit: Unit) -> list[int]:
    """The shards that the unit's move takes: all of them, but of a supplement only those that it has."""
    if unit.generation and unit.move == COLD_FROZEN:
        return sorted(one.shard for one in cold_files(site, unit))
    return list(range(unit.shards))


def parts_of(site: Site, unit: Unit) -> list[Part]:
    """Without those that an older generation left for shards that this one does not have."""
    shards = set(shards_of(site, unit))
    return [part for part in site.ledger.parts(unit) if part.shard in shards]


def messages_of(site: Site, unit: Unit) -> TableRef:
    return messages_table(site.objects, site.config.objects, site.region, unit.slice)


def publish(site: Site, unit: Unit, parts: Sequence[Part], attempt: str, now: datetime) -> int:
    """Commits a unit's first files under its commit number and brings its pointers forward; returns the version.

    Runs under the table's lease. Files of an earlier attempt that was killed after its commit are replaced.
    """
    table = messages_of(site, unit)
    create_table(table)
    live = live_files(table, unit.week)
    replaced = {
        part.shard: tuple(path for path, file in live.items() if file.place[1] == part.shard and path != part.path)
        for part in parts
    }
    return _published(site, unit, parts, replaced, attempt, now)


def publish_rewrite(
    site: Site, unit: Unit, parts: Sequence[Part], old: Mapping[int, Pointer], attempt: str, now: datetime
) -> int:
    """As `publish`, in the place of the files that the parts were made from: SourceChangedError when one is not live
    any more, or another is."""
    create_table(messages_of(site, unit))
    replaced = {part.shard: (old[part.shard].path,) if part.shard in old else () for part in parts}
    return _published(site, unit, parts, replaced, attempt, now)


def _published(
    site: Site,
    unit: Unit,
    parts: Sequence[Part],
    replaced: Mapping[int, tuple[str, ...]],
    attempt: str,
    now: datetime,
) -> int:
    files = [
        PartFile(part.path, part.size_bytes, part.digest.rows, (unit.week, part.shard), replaced[part.shard])
        for part in parts
    ]
    version = commit(
        messages_of(site, unit),
        files,
        app_id=lease_name(unit),
        number=unit.commits,
        attempt_id=f"{unit.epoch}-{attempt}",
        now=now,
    )
    for part in parts:
        _advance(site, unit, _pointer(unit, part, version))
    return version


def _advance(site: Site, unit: Unit, pointer: Pointer) -> None:
    if not site.ledger.advance(pointer):
        raise BlockedError(
            f"{unit.name}: a pointer is ahead of version {pointer.version}", "let the other mover finish"
        )


def withdraw(site: Site, unit: Unit, attempt: str, now: datetime) -> int:
    """Takes a frozen unit's files out of the cold table and returns the version without them.

    Files and pointers stay: readers use them until the unit is dropped, and `retire_pointers` is called after that.
    """
    return commit(
        messages_of(site, unit),
        [],
        app_id=lease_name(unit),
        number=unit.commits,
        attempt_id=f"{unit.epoch}-{attempt}",
        now=now,
        removes=[pointer.path for pointer in cold_files(site, unit)],
    )


def retire_pointers(site: Site, unit: Unit, version: int) -> None:
    for pointer in cold_files(site, unit):
        site.ledger.retire(pointer, version)


def repair_pointers(site: Site, units: Sequence[Unit]) -> int:
    """The log is the truth: brings pointers up to it where a process died between its commit and them.

    `units` are of one slice. Returns how many pointers were wrong. Runs under the table's lease, and before anything
    that derives from pointers.
    """
    if not units:
        return 0
    table = messages_of(site, units[0])
    create_table(table)
    live, version = live_version(table)
    return sum(_repaired(site, unit, table, _astray(site, unit, live), version) for unit in units)


def fix_files(site: Site, unit: Unit, attempt: str, now: datetime) -> None:
    """From here on the unit's files in cold are those that its pointers name: a fold that stood still can neither
    commit nor move a pointer any more.

    Runs under the table's lease, before a move reads them as its source; the number is the unit's next.
    """
    table = messages_of(site, unit)
    create_table(table)
    fence(table, app_id=lease_name(unit), number=unit.commits, attempt_id=f"{unit.epoch}-{attempt}", now=now)
    repair_pointers(site, [unit])


def astray(site: Site, units: Sequence[Unit]) -> list[Unit]:
    """Those of `units` that `repair_pointers` would change something of. They are of one slice, and its table is there.

    Runs under the table's lease.
    """
    live = live_files(messages_of(site, units[0])) if units else {}
    return [unit for unit in units if any(_astray(site, unit, live))]


def _astray(site: Site, unit: Unit, live: Mapping[str, LiveFile]) -> tuple[dict[int, str], list[Pointer]]:
    """The live paths, by shard, that no pointer names, and the pointers of shards that have no live file."""
    named = {one.shard: one for one in cold_files(site, unit)}
    paths = {int(file.place[1]): path for path, file in live.items() if file.place[0] == unit.week}
    wrong = {shard: path for shard, path in paths.items() if shard not in named or named[shard].path != path}
    return wrong, [pointer for shard, pointer in named.items() if shard not in paths]


def _repaired(
    site: Site, unit: Unit, table: TableRef, found: tuple[dict[int, str], list[Pointer]], version: int
) -> int:
    wrong, gone = found
    for shard, path in wrong.items():
        _advance(site, unit, _pointer(unit, _part_by_index(site, unit, table, shard, path), version))
    for pointer in gone:
        site.ledger.retire(pointer, version)
    return len(wrong) + len(gone)


def _part_by_index(site: Site, unit: Unit, table: TableRef, shard: int, path: str) -> Part:
    index = load_index(site.objects, f"{table.root}/{path}")
    facts = (path, index.size_bytes, index.sha256)
    return Part(*unit.key, unit.move.source, shard, unit.epoch, index.digest, *facts)


def publish_frozen(site: Site, unit: Unit, parts: Sequence[Part], attempt: str, now: datetime) -> None:
    """The manifest to Delta, then the ledger's rows that readers go by."""
    table = _frozen_table(site, unit)
    create_table(table)
    place, name = (unit.week, unit.generation), f"{unit.epoch:08d}-{attempt}{DATA_SUFFIX}"
    path = f"week={unit.week}/generation={unit.generation}/{name}"
    data = _manifest(site, unit, parts, now)
    site.objects.put(f"{table.root}/{path}", data)
    replaced = tuple(old for old, file in live_files(table, unit.week).items() if file.place == place and old != path)
    commit(
        table,
        [PartFile(path, len(data), len(parts), place, replaced)],
        app_id=lease_name(unit),
        number=unit.commits,
        attempt_id=f"{unit.epoch}-{attempt}",
        now=now,
    )
    for part in parts:
        if not site.ledger.put_frozen(_frozen_file(site, unit, part, now)):
            raise BlockedError(f"{unit.name} was frozen under a newer epoch", "let the other mover finish")


def withdraw_manifests(site: Site, unit: Unit, attempt: str, now: datetime) -> None:
    """Takes all that is frozen of a thawed unit out of the manifest's table, then out of the ledger. The objects stay
    until `jobs.maintain` purges what nothing names any more.

    Runs under the table's lease, and only when no reader looks there any more.
    """
    table = _frozen_table(site, unit)
    if log_of(table).commits and (live := sorted(live_files(table, unit.week))):
        number, attempt_id = unit.commits, f"{unit.epoch}-{attempt}"
        commit(table, [], app_id=lease_name(unit), number=number, attempt_id=attempt_id, now=now, removes=live)
    for file in site.ledger.frozen(unit.week, unit.slice):
        site.ledger.retire_frozen(file)


def _manifest(site: Site, unit: Unit, parts: Sequence[Part], now: datetime) -> bytes:
    rows = [
        {
            "shard": part.shard,
            "shards": unit.shards,
            "object": part.path,
            "size_bytes": part.size_bytes,
            "rows": part.digest.rows,
            "digest": str(part.digest),
            "sha256": part.sha256,
            "storage_class": site.config.frozen.text_class,
            "frozen_at": now,
        }
        for part in parts
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=FROZEN_MANIFEST), sink, store_schema=False)
    return sink.getvalue()


def _frozen_file(site: Site, unit: Unit, part: Part, now: datetime) -> FrozenFile:
    place = (unit.week, unit.slice, unit.generation, part.shard, unit.epoch, unit.shards, part.path)
    return FrozenFile(*place, part.digest, part.size_bytes, part.sha256, site.config.frozen.text_class, now)


def require_pointers(site: Site, unit: Unit, parts: Sequence[Part]) -> None:
    """DamagedError unless what readers go by names exactly what was proven. A CQL sink has no such names.

    For a frozen sink the cold files must be those still whose rows were frozen, too.
    """
    if unit.move.sink.is_cql:
        return
    wanted = {part.shard: (part.path, part.digest) for part in parts}
    cold = cold_files(site, unit)
    if unit.move.sink is Tier.COLD:
        is_whole = {one.shard: (one.path, one.digest) for one in cold} == wanted
    else:
        frozen = [one for one in site.ledger.frozen(unit.week, unit.slice) if one.generation == unit.generation]
        is_whole = {one.shard: (one.path, one.digest) for one in frozen} == wanted
        is_whole &= _digests(cold) == {part.shard: part.digest for part in parts}
    is_supplement = unit.generation and unit.move != FROZEN_COLD
    if not is_whole or (not is_supplement and len(wanted) != unit.shards):
        raise DamagedError(
            f"{unit.name}: pointers and proven files differ",
            "somebody rewrote the unit before its switch; nothing was dropped",
        )


def require_logged(site: Site, unit: Unit) -> None:
    """DamagedError unless the Delta log is legible and holds what readers are led to; of a frozen sink the manifest."""
    if unit.move.sink.is_cql:
        return
    is_cold = unit.move.sink is Tier.COLD
    table = messages_of(site, unit) if is_cold else _frozen_table(site, unit)
    require_legible(table)
    live = live_files(table, unit.week)
    if is_cold:
        is_whole = {file.path for file in cold_files(site, unit)} <= live.keys()
    else:
        frozen = [one for one in site.ledger.frozen(unit.week, unit.slice) if one.generation == unit.generation]
        mine = [path for path, file in live.items() if file.place == (unit.week, unit.generation)]
        listed = {row for path in mine for row in _listed(site, f"{table.root}/{path}")}
        is_whole = {(one.shard, one.path, one.sha256) for one in frozen} <= listed
    if not is_whole:
        raise DamagedError(
            f"{unit.name}: table {table.root} does not hold what the ledger names",
            "bring its _delta_log back from a copy of the bucket; nothing was dropped",
        )


def _listed(site: Site, key: str) -> list[tuple[int, str, str]]:
    try:
        rows = pq.read_table(pa.BufferReader(site.objects.get(key)), columns=["shard", "object", "sha256"]).to_pylist()
    except (OSError, pa.ArrowException, ValueError, DamagedError, NotFoundError) as fault:
        raise DamagedError(
            f"the manifest {key} is missing or damaged", "bring it back from a copy of the bucket; nothing was dropped"
        ) from fault
    return [(row["shard"], row["object"], row["sha256"]) for row in rows]


def _frozen_table(site: Site, unit: Unit) -> TableRef:
    return frozen_table(site.objects, site.config.objects, site.region, unit.slice)


def _digests(pointers: Sequence[Pointer]) -> dict[int, Digest]:
    return {pointer.shard: pointer.digest for pointer in pointers}


def _pointer(unit: Unit, part: Part, version: int) -> Pointer:
    return Pointer(
        unit.week, unit.slice, unit.shards, part.shard, part.path, version, part.digest, part.size_bytes, part.sha256
    )
