"""The steps that cannot be taken back, by name: whoever must see what happens around them can stand there.

In production nobody does, and a step costs one look at a variable. `firn chaos` kills and freezes processes there.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Watcher = Callable[[str, bool], None]

_watchers: list[Watcher] = []


def watch(watcher: Watcher) -> None:
    """For the rest of this process `watcher` is told of each step: (name, False) before it, (name, True) after."""
    _watchers.append(watcher)


def irreversible(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    def named(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def step(*args: P.args, **kwargs: P.kwargs) -> R:
            if not _watchers:
                return function(*args, **kwargs)
            _tell(name, False)
            result = function(*args, **kwargs)
            _tell(name, True)
            return result

        return step

    return named


def _tell(name: str, is_done: bool) -> None:
    for watcher in _watchers:
        watcher(name, is_done)
