"""How fast rows go by, and how long that will last: a line now and then."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

LINE_SECONDS = 2.0


@dataclass
class Meter:
    """`begun` rows were done before this process came; its rate is its own. `clock` is real time."""

    verb: str
    begun: int
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _started_at: float = field(init=False)
    _said_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._started_at = self._said_at = self.clock()

    @property
    def seconds(self) -> float:
        return self.clock() - self._started_at

    def at(self, done: int, total: int, is_estimate: bool = False, is_last: bool = False) -> None:
        """The last line is always said."""
        now = self.clock()
        if now - self._said_at < LINE_SECONDS and not is_last:
            return
        self._said_at = now
        rate = (done - self.begun) / max(now - self._started_at, 1e-9)
        left = "" if is_last or not rate else f", {_span((total - done) / rate)} left"
        self.say(f"{self.verb} {done:,} of {'~' if is_estimate else ''}{total:,} rows ({rate:,.0f} rows/s{left})")


def _span(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
