"""The one world that the seams speak to: there is one at a time in a process."""

from bench.simulation.world import World

_entered: list[World] = []


def world() -> World:
    return _entered[-1]


def enter(entered: World) -> None:
    _entered.append(entered)


def leave() -> None:
    _entered.pop()
