"""Which lifecycle rules of a bucket would take away or freeze what firn still needs: no rule may.

A rule sees an object's age, and neither ledger nor log: what it expires is gone while pointers still name it, and what
it moves to another class cannot be read, or is restored at another price. The mover puts objects into their class, and
`jobs.maintain` deletes what nothing names.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """Of an object's current version: `does` says what happens to it, empty for a rule that only ends uploads and old
    versions. `is_tagged`: only objects with a tag, and firn gives none. Sizes are those it is limited to, in bytes."""

    name: str
    prefix: str
    does: tuple[str, ...]
    is_enabled: bool = True
    is_tagged: bool = False
    larger_than_bytes: int | None = None
    smaller_than_bytes: int | None = None

    def takes(self, key: str, size_bytes: int) -> bool:
        """Whether the object will fall under it, once it is old enough."""
        is_large = self.larger_than_bytes is None or size_bytes > self.larger_than_bytes
        is_small = self.smaller_than_bytes is None or size_bytes < self.smaller_than_bytes
        return self.is_in_force and key.startswith(self.prefix) and is_large and is_small

    @property
    def is_in_force(self) -> bool:
        return self.is_enabled and bool(self.does) and not self.is_tagged


def threats(rules: Iterable[Rule], homes: Sequence[str]) -> list[Rule]:
    """Those that reach into a prefix under which firn keeps, or will keep, what it needs; whatever their sizes are
    limited to, for nobody knows how large the next object is."""
    return [
        rule
        for rule in rules
        if rule.is_in_force and any(home.startswith(rule.prefix) or rule.prefix.startswith(home) for home in homes)
    ]


def sentence(rule: Rule) -> str:
    where = f"below {rule.prefix}" if rule.prefix else "everywhere"
    return f"lifecycle rule {rule.name} {' and '.join(rule.does)} what lies {where}"
