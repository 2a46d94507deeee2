"""What Spark is to a job: each item is a task on an executor of its own, which may be lost and go on all the same."""

from collections.abc import Callable, Sequence
from typing import Any

from bench.simulation import stage
from bench.simulation.network import TIMEOUT_SECONDS
from bench.simulation.scheduler import Actor
from lakehouse import session
from lakehouse.site import opened

TRIES = 4


def spread(_: Any, config: Any, region: str, work: Callable[[Any, Any], Any], items: Sequence[Any]) -> list[Any]:
    world = stage.world()
    driver = world.scheduler.current

    def task(item: Any) -> Any:
        with opened(config, region) as site:
            return session._outcome(work, site, item)

    def started(at: int, attempt: int) -> Actor:
        name = f"{driver.name}/{work.__name__}.{driver.chance.drawn}.{at}.{attempt}"
        process = world.process(name)
        return world.scheduler.spawn(name, process, world.chance.stream(name), lambda: task(items[at]))

    first = [started(at, 0) for at in range(len(items))]
    return [_outcome(at, actor, started) for at, actor in enumerate(first)]


def _outcome(at: int, actor: Actor, started: Callable[[int, int], Actor]) -> Any:
    scheduler, driver = stage.world().scheduler, stage.world().scheduler.current
    for attempt in range(1, TRIES + 1):
        if driver.chance.odd("lost executor", stage.world().weather.lost_executor) is not None:
            # The driver hears nothing of it any more; the task itself may go on for long.
            stage.world().tell(f"gives {actor.name} up for lost")
            scheduler.join(actor, TIMEOUT_SECONDS)
        else:
            _await(actor)
            if actor.error:
                raise actor.error
            if not actor.was_killed:
                return actor.result
        actor = started(at, attempt)
    _await(actor)
    if actor.error or actor.was_killed:
        raise RuntimeError("Spark gave up")
    return actor.result


def _await(actor: Actor) -> None:
    """A killed executor is noticed, if after a while."""
    scheduler = stage.world().scheduler
    while not actor.is_done:
        if actor.process.dead_at is not None:
            actor.was_killed = True
            return
        scheduler.join(actor, 2.0)
