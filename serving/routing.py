"""The consumer's copy of the ledger: never older than T, and obeyed T after it was learned.

Readers obey a route change as soon as it is announced. A writer waits T, so that by its first write to a new place
every reader looks there too.
"""

import time
from collections import deque
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
    _coming: deque[tuple[float, Routes]] = field(default_factory=deque)
    _looked_at: float = float("-inf")

    def current(self) -> Routes:
        """What to route by now; the first time, only after T."""
        if self.clock() - self._looked_at >= self.age_seconds / 2:
            self.look()
        if self._obeyed is None:
            self.sleep(max(0.0, self._coming[0][0] - self.clock()))
            _, self._obeyed = self._coming.popleft()
        # Each waits for its own T: one that is learned meanwhile must not hold up those before it.
        while self._coming and self.clock() >= self._coming[0][0]:
            _, self._obeyed = self._coming.popleft()
        return self._obeyed

    def look(self) -> None:
        """Asks for the route number; reads the units only when it is new."""
        looked_at = self.clock()
        number = self.ledger.route()
        newest = self._coming[-1][1] if self._coming else self._obeyed
        if newest is None or number != newest.number:
            self._learn(number)
        self._looked_at = looked_at

    def reload(self) -> Routes:
        """After a surprise (a missing table, partitions whose last owner knew more): everything anew, and T."""
        self._learn(self.ledger.route())
        self._obeyed, self._coming = None, deque([self._coming[-1]])
        return self.current()

    def _learn(self, number: int) -> None:
        units = self.ledger.units()
        routes = routes_of(number, self.ledger.first_week(), self.slices, units)
        self._coming.append((self.clock() + self.age_seconds, routes))
