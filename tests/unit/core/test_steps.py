"""Whoever watches is told of a step before and after it; whoever does not pays nothing and changes nothing."""

import pytest

from core import steps
from core.steps import irreversible, watch


@irreversible("a: told")
def told(number: int, *, more: int = 0) -> int:
    """Says so."""
    return number + more


@irreversible("b: fails")
def fails() -> None:
    raise ValueError("no")


def test_nobody_watches() -> None:
    assert steps._watchers == []
    assert told(1, more=2) == 3
    assert (told.__name__, told.__doc__) == ("told", "Says so.")


def test_each_watcher_is_told_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_watchers", [])
    seen: list[tuple[str, bool]] = []
    watch(lambda name, is_done: seen.append((name, is_done)))
    assert told(1) == 1
    with pytest.raises(ValueError, match="no"):
        fails()
    assert seen == [("a: told", False), ("a: told", True), ("b: fails", False)]
