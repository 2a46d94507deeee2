"""Where the product touches what is outside of it, and what stands there while it is simulated.

Everything else is the product itself. Each seam names a module and a name in it that must be there: a test says so,
and holds the signatures together.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

from bench.simulation import clocks, files, spreading, stage
from bench.simulation.delta import PlainSchema, SimulatedDelta
from core import ring
from core.archive import FreezeVerdict
from core.sealing import Place
from serving.routing import RouteCopy


class Seam(NamedTuple):
    """`name` may lead into a class: `Keeper.check`."""

    module: str
    name: str
    instead: Any

    @property
    def owner(self) -> Any:
        owner, *_ = self.name.rpartition(".")
        module = import_module(self.module)
        return getattr(module, owner) if owner else module

    @property
    def attribute(self) -> str:
        return self.name.rpartition(".")[2]


def _connected(_: Any) -> Any:
    @contextmanager
    def held() -> Iterator[Any]:
        yield stage.world().databases

    return held()


def _route_copy(ledger: Any, slices: int, age_seconds: float) -> RouteCopy:
    time = clocks.SimulatedTime
    return RouteCopy(ledger, slices, age_seconds, time.monotonic, time.sleep)


class _Log:
    """`stores.kafka` as jobs and consumer know it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(stage.world().log, name)


def _always_pays(sizes_bytes: Any, storage_class: str, months: int) -> FreezeVerdict:
    """Files are far too small here for any freeze to pay."""
    list(sizes_bytes)
    return SimpleNamespace(pays=True, sentence="")  # type: ignore[return-value]


def _fresh_place(region: str, *numbers: int) -> Place:
    """Its salt is as hard to guess as the seed."""
    week, slice_, generation, shard, epoch = numbers
    return Place(region, week, slice_, generation, shard, epoch, bytes.fromhex(clocks.SimulatedId().hex))


class Judge:
    """In the place of Great Expectations: passes what can be read back."""

    suite = "simulated"

    def __init__(self, _: Sequence[Any]) -> None:
        pass

    def broken(self, _: Sequence[Any]) -> list[str]:
        return []


def _facts(batches: Any, *_: Any) -> int:
    return sum(len(batch) for batch in batches) + 1


_TIME = clocks.SimulatedTime
SEAMS = (
    # services
    Seam("lakehouse.site", "connected", _connected),
    Seam("lakehouse.site", "open_objects", lambda *_: stage.world().objects),
    Seam("jobs.move", "kafka", _Log()),
    Seam("serving.consumer", "kafka", _Log()),
    Seam("lakehouse.commit", "DeltaTable", SimulatedDelta),
    Seam("lakehouse.commit", "Schema", PlainSchema),
    Seam("jobs.attempt", "spread", spreading.spread),
    # time, threads, names
    *(
        Seam(module, "time", _TIME)
        for module in ("jobs.move", "jobs.fold", "jobs.drop", "jobs.maintain", "lakehouse.reader", "stores.leases")
    ),
    Seam("jobs.move", "_POLL_SECONDS", 0.7),
    Seam("stores.leases", "_now", clocks.wall_clock),
    Seam("stores.leases", "threading", clocks.SimulatedThreading),
    Seam("serving.consumer", "RouteCopy", _route_copy),
    Seam("lakehouse.restore", "ThreadPoolExecutor", clocks.Inline),
    Seam("lakehouse.maintenance", "ThreadPoolExecutor", clocks.Inline),
    *(Seam(module, "uuid4", clocks.SimulatedId) for module in ("jobs.attempt", "jobs.maintain", "jobs.weeks")),
    Seam("serving.consumer", "log", clocks.ConsumersLog()),
    # files
    *(Seam(module, "rows", files.PlainRows) for module in ("lakehouse.ends", "lakehouse.folds", "lakehouse.reader")),
    Seam("lakehouse.ends", "canonical", files.PlainCanonical),
    Seam("lakehouse.ends", "scans", files.PlainScans),
    Seam("lakehouse.ends", "inserts", files.PlainInserts),
    Seam("jobs.imports.landing", "rows", files.PlainRows),
    Seam("jobs.imports.landing", "write_run", files.write_run),
    Seam("lakehouse.ends", "write_cold_file", files.write_cold_file),
    Seam("lakehouse.ends", "read_cold_file", files.read_cold_file),
    Seam("lakehouse.ends", "require_readable", files.require_readable),
    Seam("lakehouse.ends", "write_frozen_file", files.write_frozen_file),
    Seam("lakehouse.ends", "fresh_place", _fresh_place),
    Seam("lakehouse.frozen", "load_index", files.load_index),
    Seam("lakehouse.folds", "rewrite", files.rewrite),
    Seam("lakehouse.folds", "read_run", files.read_run),
    Seam("lakehouse.reader", "load_index", files.load_index),
    Seam("lakehouse.reader", "read_row_groups", files.read_row_groups),
    Seam("lakehouse.reader", "read_frozen_groups", files.read_frozen_groups),
    Seam("lakehouse.publish", "load_index", files.load_index),
    Seam("quality.run", "read_cold_file", files.read_cold_file),
    Seam("quality.run", "facts", SimpleNamespace(of_file=_facts, Facts=int)),
    Seam("quality.run", "Judge", Judge),
    Seam("quality.run", "messages_rules", list),
    Seam("jobs.freezing", "freeze_verdict", _always_pays),
    # tables here have the columns that are declared
    Seam("stores.messages", "drift", lambda *_: []),
    Seam("jobs.move", "require_columns", lambda *_: None),
    # speed alone
    Seam("core.ring", "token", lru_cache(1000)(ring.token)),
)


@contextmanager
def installed(seams: Sequence[Seam] = SEAMS) -> Iterator[None]:
    before = [(seam.owner, seam.attribute, getattr(seam.owner, seam.attribute)) for seam in seams]
    try:
        for seam in seams:
            setattr(seam.owner, seam.attribute, seam.instead)
        yield
    finally:
        for owner, attribute, was in reversed(before):
            setattr(owner, attribute, was)
