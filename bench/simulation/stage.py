"""The one world that the seams speak to: there is one at a time in a process."""

from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from bench.simulation.world import World

_world: Optional["World"] = None


def world() -> "World":
    assert _world is not None, "nothing is simulated now"
    return _world


def enter(entered: Optional["World"]) -> None:
    global _world  # noqa: PLW0603
    _world = entered
