"""Where a single write goes, by one copy of the ledger."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core import ring, weeks
from core.moves import Target, Unit, writers


@dataclass(frozen=True)
class Routes:
    """One consistent copy: the route number was read first, the units after it."""

    number: int
    first_week: int | None
    slices: int
    units: Mapping[tuple[int, int], Unit]

    def unit(self, conversation_id: bytes, message_id: bytes) -> Unit | None:
        return self.units.get((weeks.of_id(message_id), self.slice_of(conversation_id)))

    def slice_of(self, conversation_id: bytes) -> int:
        return ring.part_of(ring.token(conversation_id), self.slices)

    def target(self, conversation_id: bytes, message_id: bytes) -> Target | None:
        """None: this copy knows no table for that week yet, so look again before anything else."""
        if unit := self.unit(conversation_id, message_id):
            return writers(unit)
        is_old = self.first_week is not None and weeks.of_id(message_id) < self.first_week
        return Target.LANE if is_old else None


def routes_of(number: int, first_week: int | None, slices: int, units: Iterable[Unit]) -> Routes:
    return Routes(number, first_week, slices, {(unit.week, unit.slice): unit for unit in units})
