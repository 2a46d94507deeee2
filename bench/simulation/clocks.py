"""What `time`, `threading` and `uuid` are to the product while it is simulated."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bench.simulation import stage
from bench.simulation.scheduler import Actor, Event, Lock
from bench.simulation.world import TODAY


class SimulatedTime:
    """In the place of the module `time`."""

    @staticmethod
    def monotonic() -> float:
        return stage.world().scheduler.now

    @staticmethod
    def sleep(seconds: float) -> None:
        scheduler = stage.world().scheduler
        scheduler.sleep(seconds)
        scheduler.current.process.waited_at = scheduler.now


def wall_clock() -> datetime:
    """Of the process that asks: they do not agree."""
    scheduler = stage.world().scheduler
    return TODAY + timedelta(seconds=scheduler.now + scheduler.current.process.skew)


class Thread:
    """In the place of threading.Thread: another actor of the same process."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], daemon: bool) -> None:
        assert daemon
        self._work = lambda: target(*args)
        self._actor: Actor | None = None

    def start(self) -> None:
        world = stage.world()
        me = world.scheduler.current
        name = f"{me.name}/renewing"
        stream = world.chance.stream(f"{name}/{me.process.name}")
        self._actor = world.scheduler.spawn(name, me.process, stream, self._work)

    def join(self) -> None:
        assert self._actor is not None
        stage.world().scheduler.join(self._actor)


class SimulatedThreading:
    """In the place of the module `threading`."""

    Thread = Thread

    @staticmethod
    def Lock() -> Lock:  # noqa: N802
        return Lock(stage.world().scheduler)

    @staticmethod
    def Event() -> Event:  # noqa: N802
        return Event(stage.world().scheduler)


class Inline:
    """In the place of a ThreadPoolExecutor: one after the other."""

    def __init__(self, _: int) -> None:
        pass

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return iter([work(item) for item in items])

    def submit(self, work: Callable[..., Any], *args: Any) -> "Done":
        return Done(work(*args))


@dataclass
class Done:
    value: Any

    def result(self) -> Any:
        return self.value


class SimulatedId:
    """In the place of uuid4: as hard to guess as the seed."""

    def __init__(self) -> None:
        chance = stage.world().scheduler.current.chance
        self.hex = f"{int(chance.noise() * 2**52):013x}{int(chance.noise() * 2**52):013x}"[:32].ljust(32, "0")


class Silence:
    """In the place of a logger."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return self._say

    def _say(self, what: str = "", /, **facts: Any) -> None:
        pass


class ConsumersLog(Silence):
    """What the consumer warns of is part of the story."""

    def _say(self, what: str = "", /, **facts: Any) -> None:
        stage.world().tell(f"{what}: {facts.get('what', facts.get('reason', ''))}")
