"""All that is left to chance in a history, from one seed.

Each actor draws from a stream of its own, so that what one does differently shifts nothing for the others. Small
differences in time are noise and always the same for a seed. What is *odd* (a pause, a kill, a lost reply) has a name,
`actor:number`, and can be left out by it: that is how a failing history is made short.
"""

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass, field


@dataclass
class Chance:
    """`only`: the odd things that may happen, by name; None: all that the seed wants. `is_calm`: none at all."""

    seed: int
    only: Container[str] | None = None
    is_calm: bool = False
    happened: dict[str, str] = field(default_factory=dict)

    def stream(self, name: str) -> "Stream":
        return Stream(self, name, random.Random(f"{self.seed}/{name}"))


@dataclass
class Stream:
    chance: Chance
    name: str
    rng: random.Random
    drawn: int = 0

    def noise(self) -> float:
        """From 0 to 1."""
        return self.rng.random()

    def whole(self, below: int) -> int:
        return int(self.rng.random() * below)

    def odd(self, kind: str, rate: float) -> float | None:
        """None nearly always; else how grave it is, from 0 to 1."""
        found = self.one_of(((kind, rate),))
        return found and found[1]

    def one_of(self, kinds: Sequence[tuple[str, float]]) -> tuple[str, float] | None:
        """At most one of them, and how grave it is."""
        self.drawn += 1
        # Drawn in any case: leaving one out must not move the rest.
        left = self.rng.random()
        for kind, rate in kinds:
            left -= rate
            if left < 0.0:
                return self._happens(kind)
        return None

    def _happens(self, kind: str) -> tuple[str, float] | None:
        if self.chance.is_calm:
            return None
        name = f"{self.name}:{self.drawn}"
        if self.chance.only is not None and name not in self.chance.only:
            return None
        self.chance.happened[name] = kind
        return kind, random.Random(f"{self.chance.seed}/{name}").random()
