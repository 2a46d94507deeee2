"""The consumer's copy of the ledger: never older than T, and obeyed T after it was learned.

Readers obey a route change as soon as it is announced. A writer waits T, so that by its first write to a new place
every reader looks there too.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from core.routing import Routes, routes_of
from stores.ledger import Ledger


@dataclass
class RouteCopy:
    """`sleep` and `clock` are real time."""

    ledger: Ledger
    slices: int
    age_seconds: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _obeyed: Routes | None = None
    _coming: Routes | None = None
    _obey_at: float = 0.0
    _looked_at: float = field(default=float("-inf"))

    def current(self) -> Routes:
        """What to route by now; the first time, only after T."""
        if self.clock() - self._looked_at >= self.age_seconds / 2:
            self.look()
        if self._coming and (self._obeyed is None or self.clock() >= self._obey_at):
            self.sleep(max(0.0, self._obey_at - self.clock()))
            self._obeyed, self._coming = self._coming, None
        assert self._obeyed is not None
        return self._obeyed

    def look(self) -> None:
        """Asks for the route number; reads the units only when it is new."""
        looked_at = self.clock()
        number = self.ledger.route()
        newest = self._coming or self._obeyed
        if newest is None or number != newest.number:
            self._learn(number)
        self._looked_at = looked_at

    def reload(self) -> Routes:
        """After a surprise (a missing table, partitions whose last owner knew more): everything anew, and T."""
        self._learn(self.ledger.route())
        self._obeyed = None
        return self.current()

    def _learn(self, number: int) -> None:
        units = self.ledger.units()
        self._coming = routes_of(number, self.ledger.first_week(), self.slices, units)
        self._obey_at = self.clock() + self.age_seconds
