"""What a fold does to one shard: the lane's events and the rows of runs, merged into its cold file by one rewrite.

Runs in a task: it commits nothing and clears nothing; what it made and what it took in it returns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from core import digest, rows
from core.ledger import Part, Pointer, Run
from core.moves import Unit
from core.overlay import row_of
from lakehouse.ends import of_file, tokens
from lakehouse.paths import data_path, table_root
from lakehouse.rewrite import old_of, rewrite
from lakehouse.runs import read_run
from lakehouse.site import Site
from schemas.events import Event
from stores.lane import LaneKey, key_of


@dataclass(frozen=True)
class Task:
    """`old` is the shard's file as the ledger named it; `runs` are those to take in, and no others."""

    unit: Unit
    shard: int
    old: Pointer | None
    runs: tuple[Run, ...]
    attempt: str


@dataclass(frozen=True)
class Folded:
    """`part` is None where the file holds all of it already; `events` may leave the lane once readers see the part."""

    shard: int
    part: Part | None
    events: tuple[LaneKey, ...]


def fold(site: Site, task: Task) -> Folded:
    """Harmless to repeat: what is merged in twice is merged in once.

    Of a unit's first generation every shard gets a file, if only an empty one: there a missing file is damage.
    """
    unit = task.unit
    events = list(site.lane.scan(unit.week, tokens(site, unit, task.shard)))
    change = rows.one_per_key(chain(_in_lane(events), _in_runs(site, task)))
    seen = tuple(map(key_of, events))
    if not change.num_rows and (task.old or unit.generation):
        return Folded(task.shard, None, seen)
    path = data_path(unit.week, task.shard, unit.epoch, task.attempt)
    root, group_bytes = table_root(unit.slice), site.config.layout.row_group_bytes
    file = rewrite(site.objects, old_of(root, task.old), change, f"{root}/{path}", group_bytes)
    blank = Part(*unit.key, unit.move.source, task.shard, unit.epoch, digest.Digest())
    return Folded(task.shard, of_file(blank, path, file) if file else None, seen)


def _in_lane(events: list[Event]) -> Iterator[pa.RecordBatch]:
    return rows.to_batches(map(row_of, events))


def _in_runs(site: Site, task: Task) -> Iterator[pa.RecordBatch]:
    span = tokens(site, task.unit, task.shard)
    return chain.from_iterable(read_run(site.objects, run, span) for run in task.runs)
