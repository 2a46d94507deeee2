"""Readers that are known to be wrong.

Two of them have only their order wrong. In the product a grace covers that: whoever reads within the longest read sees
what was there when he began, in any order. So they are tried on a reader that leans on the order alone: it asks every
tier, whatever the ledger says, and takes its time. With the order of the product that reader is right too
(`RIGHT_ORDER` is tried beside the controls, and must never be caught).
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from bench.simulation import clocks, stage
from bench.simulation.scenes import open_site
from bench.simulation.seams import Seam
from core.errors import DamagedError
from core.moves import State, Unit
from core.overlay import Row, canonical, merge
from core.tiers import Tier
from lakehouse import reader
from lakehouse.reader import Stretch
from stores.cassandra import MissingTableError
from stores.ledger import CqlLedger

LANE = "lane"
OLD_SECONDS = 40.0
SLOW_SECONDS, SLOW_SHARE = 30.0, 0.25
ON_THEIR_WAY = (State.SEALED, State.COPIED, State.VERIFIED, State.SWITCHED)
RIGHT = (Tier.HOT, LANE, Tier.WARM, LANE, Tier.COLD, Tier.FROZEN)
REVERSED = RIGHT[::-1]
LANE_LAST = (Tier.HOT, Tier.WARM, LANE, Tier.COLD, LANE, Tier.FROZEN)


def _unbounded(seconds: float = 0.0) -> Any:
    return SimpleNamespace(monotonic=lambda: seconds)


def _in_order(
    order: Sequence[str], site: Any, unit: Unit, conversation: bytes, before: bytes | None, limit: int
) -> Stretch:
    """Each place as it is when its turn has come; he takes his time where a week is on its way."""
    chance = stage.world().scheduler.current.chance
    slow_share = SLOW_SHARE if unit.state in ON_THEIR_WAY and not chance.chance.is_calm else 0.0
    stretches: list[Stretch] = []
    amendments: list[Row] = []
    for place in order:
        if chance.noise() < slow_share:
            clocks.SimulatedTime.sleep(SLOW_SECONDS * chance.noise())
        if place == LANE:
            amendments += site.lane.read(unit.week, conversation)
            continue
        fresh = site.ledger.unit(unit.week, unit.slice) or unit
        with suppress(MissingTableError, DamagedError):
            stretches.append(reader._from_tier(site, fresh, Tier(place), conversation, before, limit))
    return reader.stretch_of(stretches, amendments, before)


def _first_wins(rows: Iterable[Row]) -> dict[tuple[bytes, bytes], Row]:
    kept: dict[tuple[bytes, bytes], Row] = {}
    for row in rows:
        kept.setdefault(row.key, canonical(row))
    return kept


def _overlay_first(stretches: Sequence[Stretch], amendments: Sequence[Row], before: bytes | None) -> Stretch:
    """The lane is laid over what the source has; then the sink's rows take the place of the source's."""
    from_id = max((stretch.from_id for stretch in stretches if stretch.from_id), default=None)
    laid = {row.key: canonical(row) for row in stretches[0].rows}
    for row in amendments:
        laid[row.key] = merge(laid[row.key], row) if row.key in laid else canonical(row)
    for stretch in stretches[1:]:
        laid |= {row.key: canonical(row) for row in stretch.rows}
    kept = [row for row in laid.values() if reader._between(row.message_id, from_id, before)]
    return Stretch(tuple(sorted(kept, key=lambda row: row.message_id, reverse=True)), from_id)


class OldLedger(CqlLedger):
    """Keeps what it once read of a unit."""

    def unit(self, week: int, slice_: int) -> Unit | None:
        scheduler = stage.world().scheduler
        kept: dict[Any, Any] = vars(scheduler.current.process).setdefault("kept", {})
        at, found = kept.get((week, slice_), (-OLD_SECONDS, None))
        if scheduler.now - at >= OLD_SECONDS:
            found = super().unit(week, slice_)
            kept[week, slice_] = (scheduler.now, found)
        return cast(Unit | None, found)


def _with_old_ledger(world: Any) -> Any:
    site = open_site(world)
    names = ("config", "region", "db", "lane", "objects", "vault", "database")
    return SimpleNamespace(ledger=OldLedger(site.db.hot, site.region), **{name: getattr(site, name) for name in names})


def _ordered(order: Sequence[str]) -> tuple[Seam, ...]:
    return (
        Seam("lakehouse.reader", "_merged", partial(_in_order, order)),
        Seam("lakehouse.reader", "time", _unbounded()),
    )


RIGHT_ORDER = _ordered(RIGHT)
CONTROLS = (
    ("cold before hot", "the reader asks the lower tiers first", _ordered(REVERSED)),
    ("sink before lane", "the reader asks the lane after where it is emptied into", _ordered(LANE_LAST)),
    (
        "dedupe keeps the first",
        "of two rows of one key the reader keeps the first, instead of merging cells",
        (Seam("lakehouse.reader", "merge_all", _first_wins),),
    ),
    (
        "overlay before dedupe",
        "the reader lays the lane over one tier and then takes the rows of the other",
        (Seam("lakehouse.reader", "stretch_of", _overlay_first),),
    ),
    (
        "old copy of the ledger",
        "the reader goes by units as it knew them long ago",
        (Seam("bench.simulation.reading", "open_site", _with_old_ledger),),
    ),
)
