"""Whom the stores tell what happens to them, each thing at its very instant."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cells = Mapping[str, Any]


def _nobody(*_: Any) -> None:
    pass


@dataclass
class Watch:
    """`ledger`: table, keys, the row before and after. `committed` is told of a version before anybody can see it."""

    dropping: Callable[[str], None] = _nobody
    dropped: Callable[[str], None] = _nobody
    deleted: Callable[[str, Cells], None] = _nobody
    ledger: Callable[[str, Cells, Cells, Cells], None] = _nobody
    looked: Callable[[str], None] = _nobody
    committed: Callable[[str, Any, Sequence[Any]], None] = _nobody
    object_deleted: Callable[[str], None] = _nobody
    rotted: Callable[[], None] = _nobody
    kept: Callable[[int], None] = _nobody
