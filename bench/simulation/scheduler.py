"""One thing at a time: greenlets, of which one runs, and that one hands on to the next in simulated time.

The product's code blocks where it speaks to a store. Here each such place is a `sleep`: it puts the actor back into the
queue and wakes whoever is due first. So the order of everything follows from the sleeps, and these from the seed.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import getcurrent, greenlet

from bench.simulation.chance import Stream

_POLL_SECONDS = 0.05


class Killed(BaseException):
    """A process that was killed does nothing more; no handler of the product's takes it for an error."""


class DeadlockError(RuntimeError):
    """Everybody waits for somebody."""


@dataclass(eq=False)
class Process:
    """What is paused or killed as a whole. Its clocks are its own: `skew` is how many seconds it is off."""

    name: str
    skew: float = 0.0
    dead_at: float | None = None
    paused: tuple[float, float] = (0.0, 0.0)
    waited_at: float = -1.0
    has_just_looked: bool = False
    looked_at: dict[str, float] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)

    @property
    def is_dead(self) -> bool:
        return self.dead_at is not None


@dataclass(eq=False)
class Actor:
    """One line of execution of a process."""

    name: str
    process: Process
    chance: Stream
    turn: Any
    is_done: bool = False
    was_killed: bool = False
    result: Any = None
    error: BaseException | None = None
    joiners: list[tuple["Actor", int]] = field(default_factory=list)
    ticket: int = 0


@dataclass
class _Ending:
    """Keeps what an actor ended with, for whoever asks."""

    actor: Actor

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, fault: BaseException | None, __: object) -> bool:
        self.actor.is_done, self.actor.was_killed = True, isinstance(fault, Killed)
        self.actor.error = None if self.actor.was_killed else fault
        return True


class Scheduler:
    """`director` is the actor of whoever made it; it sleeps while the others play."""

    def __init__(self, director: Stream) -> None:
        self.now = 0.0
        self.steps = 0
        self.director = Actor("director", Process("director"), director, getcurrent())
        self.current = self.director
        self._queue: list[tuple[float, int, Actor]] = []
        self._tickets = 0
        self._playing: dict[Actor, None] = {}
        self._is_stuck = False

    def spawn(self, name: str, process: Process, chance: Stream, work: Callable[[], Any], after: float = 0.0) -> Actor:
        actor = Actor(name, process, chance, self.director.turn)
        actor.turn = greenlet(lambda *_: self._play(actor, work), self.director.turn)
        self._playing[actor] = None
        self.wake(actor, after)
        return actor

    def sleep(self, seconds: float) -> None:
        """Every place where others may go on."""
        me = self.current
        if me.process.dead_at is not None:
            raise Killed
        self.steps += 1
        at = self.now + seconds if seconds > 0.0 else self.now
        if (self._queue and self._queue[0][0] <= at) or at < me.process.paused[1]:
            self.wake(me, seconds)
            self._hand_on(me)
        else:  # nobody is due before: as if it had been handed on and back
            self._tickets += 1
            me.ticket = self._tickets
            self.now = at

    def block(self) -> None:
        """Until somebody wakes it."""
        me = self.current
        if me.process.dead_at is not None:
            raise Killed
        self._hand_on(me)

    def wake(self, actor: Actor, after: float = 0.0) -> None:
        """At the given time and no other: what it waited for before does not count any more."""
        self._tickets += 1
        actor.ticket = self._tickets
        heapq.heappush(self._queue, (self.now + max(after, 0.0), self._tickets, actor))

    def join(self, actor: Actor, patience: float | None = None) -> bool:
        """Whether it has ended, within `patience` if one is given."""
        if not actor.is_done and patience is None:
            actor.joiners.append((self.current, self.current.ticket))
            self.block()
        elif not actor.is_done:
            actor.joiners.append((self.current, self.next_ticket))
            self.sleep(patience or 0.0)
        return actor.is_done

    @property
    def next_ticket(self) -> int:
        """What the next sleep will wait by."""
        return self._tickets + 1

    def rouse(self, waiting: list[tuple[Actor, int]]) -> None:
        """Those that still wait for what they said that they wait for."""
        for actor, ticket in waiting:
            if actor.ticket == ticket:
                self.wake(actor)
        waiting.clear()

    def pause(self, process: Process, seconds: float) -> None:
        process.paused = (self.now, self.now + seconds)

    def close(self) -> None:
        """Kills what still plays, so that nothing of it is left behind."""
        while self._playing:
            actor = next(iter(self._playing))
            actor.process.dead_at = self.now
            self.wake(actor)
            self.wake(self.director)
            self._hand_on(self.director)

    def _hand_on(self, me: Actor) -> None:
        while True:
            following = self._next()
            if following is not me:
                self.current = following
                following.turn.switch()
            if me is self.director and self._is_stuck:
                self._is_stuck = False
                raise DeadlockError
            if me.process.dead_at is not None and me is not self.director:
                raise Killed
            if self.now >= me.process.paused[1]:
                return
            self.wake(me, me.process.paused[1] - self.now)

    def _next(self) -> Actor:
        while self._queue:
            at, ticket, actor = heapq.heappop(self._queue)
            if actor.ticket == ticket and not actor.is_done:
                self.now = max(self.now, at)
                return actor
        self._is_stuck = True
        return self.director

    def _play(self, actor: Actor, work: Callable[[], Any]) -> None:
        with _Ending(actor):
            if actor.process.dead_at is not None:
                raise Killed
            actor.result = work()
        del self._playing[actor]
        self.rouse(actor.joiners)
        self.current = self._next()
        actor.turn.parent = self.current.turn


class Lock:
    """As threading.Lock, between actors."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held:
            self._scheduler.sleep(_POLL_SECONDS)
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False


class Event:
    """As threading.Event, between actors."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False
        self._waiting: list[tuple[Actor, int]] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._scheduler.rouse(self._waiting)

    def wait(self, timeout: float) -> bool:
        if not self._is_set:
            self._waiting.append((self._scheduler.current, self._scheduler.next_ticket))
            self._scheduler.sleep(timeout)
        return self._is_set
