"""Between a process and a store: each call takes its time, may get lost on either way, and may find its caller dead.

One call is one step of a history. Others run before it takes effect; what happens between its effect and the caller's
next call is up to the scheduler.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.simulation.scheduler import Killed, Process, Scheduler
from core.errors import BlockedError, FirnError, OutcomeUnknownError

R = TypeVar("R")
QUICK_SECONDS = 0.012
CALM_SECONDS = 0.001
SLOW_SECONDS = 0.4
SLOW_SHARE = 0.04
TIMEOUT_SECONDS = 1.5
SHORTEST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 90.0
AFTER_A_LOOK = 6.0


@dataclass(frozen=True)
class Weather:
    """How often what goes wrong, per call; each history has a weather of its own. `spots`: how calls begin before
    which one stands still far more often than elsewhere."""

    pause: float = 0.0
    kill: float = 0.0
    lost_request: float = 0.0
    lost_reply: float = 0.0
    failed_read: float = 0.0
    straggler: float = 0.0
    missed_replica: float = 0.0
    half_batch: float = 0.0
    lost_executor: float = 0.0
    rot: float = 0.0
    spots: tuple[str, ...] = ()
    spot: float = 0.0
    late_commit: float = 0.0


@dataclass
class Network:
    scheduler: Scheduler
    weather: Weather
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        weather = self.weather
        always = (("pause", weather.pause), ("kill", weather.kill))
        self._unfailing = always
        self._after_a_look = (("pause", min(0.3, weather.pause * AFTER_A_LOOK)), ("kill", weather.kill))
        self._spotted = (("pause", weather.spot), ("kill", weather.kill), ("lost reply", weather.lost_reply))
        self._reading = (*always, ("lost request", weather.failed_read))
        self._writing = (*always, ("lost request", weather.lost_request), ("lost reply", weather.lost_reply))

    def call(self, what: str, effect: Callable[[], R], lost: FirnError | None) -> R:
        """`lost`: what the caller hears when there is no answer; None for a call that never fails."""
        me = self.scheduler.current
        self.scheduler.sleep(self._latency())
        odd = me.chance.one_of(self._faults(me.process, what, lost))
        kind, grave = odd or ("", 0.0)
        if kind == "pause":
            self._pause(me.process, grave, what)
        elif kind == "kill":
            self.kill(what)
        elif kind == "lost request" and lost is not None:
            self._lose(f"no answer, not done: {what}", lost)
        result = effect()
        if kind == "lost reply" and lost is not None:
            self._lose(f"no answer, but done: {what}", lost)
        return result

    def _faults(self, process: Process, what: str, lost: FirnError | None) -> Sequence[tuple[str, float]]:
        """Between a look at the lease and the step that it allows a pause is what the laws have to fear most."""
        if process.has_just_looked:
            process.has_just_looked = False
            return self._after_a_look
        if what.startswith(self.weather.spots):
            return self._spotted
        if lost is None:
            return self._unfailing
        return self._reading if isinstance(lost, BlockedError) else self._writing

    def _pause(self, process: Process, grave: float, what: str) -> None:
        seconds = SHORTEST_PAUSE_SECONDS * (LONGEST_PAUSE_SECONDS / SHORTEST_PAUSE_SECONDS) ** grave
        self.tell(f"stands still for {seconds:.1f} s before: {what}")
        self.scheduler.pause(process, seconds)
        self.scheduler.sleep(0.0)

    def kill(self, what: str) -> None:
        process = self.scheduler.current.process
        self.tell(f"is killed before: {what}")
        process.dead_at = self.scheduler.now
        raise Killed

    def later(self, seconds: float, effect: Callable[[], None]) -> None:
        """What is still on its way when its sender no longer waits for it."""
        me = self.scheduler.current
        name = f"network/{self.scheduler.next_ticket}"
        self.scheduler.spawn(name, Process("network"), me.chance.chance.stream(name), effect, seconds)

    def _lose(self, told: str, lost: FirnError) -> None:
        self.tell(told)
        self.scheduler.sleep(TIMEOUT_SECONDS)
        raise lost

    def _latency(self) -> float:
        chance = self.scheduler.current.chance
        if chance.chance.is_calm:
            return CALM_SECONDS
        noise = chance.noise()
        return QUICK_SECONDS * noise if noise > SLOW_SHARE else SLOW_SECONDS * noise / SLOW_SHARE


def unknown(what: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(f"{what} did not answer", "run the same command again")


def silent(what: str) -> BlockedError:
    return BlockedError(f"{what} does not answer", "run the same command again")
