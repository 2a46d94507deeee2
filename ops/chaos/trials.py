"""What is tried: the phases of a week's life, and around each step of their jobs three ways to fail."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ops.chaos.proxy import Harm, Protocol


class Fate(StrEnum):
    """What becomes of a process at a step. A frozen one wakes up when another has finished its work."""

    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    FROZEN_BEFORE = "frozen before"


@dataclass(frozen=True)
class Phase:
    """A job on every week of the region; its `now` is so many days after the last of them. While it is quiet nothing
    happens to the weeks: what waits for a fold is not frozen."""

    name: str
    job: str
    days: int
    is_judged: bool = False
    is_quiet: bool = False


PHASES = (
    Phase("hot to warm", "move", 8),
    Phase("drop of hot", "drop", 9),
    Phase("warm to cold", "move", 31),
    Phase("drop of warm", "drop", 32, is_judged=True),
    Phase("fold into cold", "fold", 40),
    Phase("cold to frozen", "move", 370, is_quiet=True),
    Phase("drop of cold", "drop", 371, is_judged=True),
    Phase("fold into frozen", "fold", 380),
)


@dataclass(frozen=True)
class Trial:
    """The `nth` step of that name, from 1, that the job of the phase takes on one week."""

    phase: str
    step: str
    nth: int
    fate: Fate

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fate} {self.step} ({self.nth})"


@dataclass(frozen=True)
class WireTrial:
    """Harm to the `nth` request, from 1, that the job of the phase sends by this protocol for one week."""

    phase: str
    protocol: Protocol
    nth: int
    harm: Harm

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.harm} of {self.protocol} request {self.nth}"


def wire_trials(phase: Phase, requests: Mapping[Protocol, int], at_most: int) -> Iterator[WireTrial]:
    """Every reply is lost once, or of too many some, evenly spread; and a few requests meet each other harm."""
    for protocol, count in requests.items():
        for nth in spread_over(count, at_most):
            yield WireTrial(phase.name, protocol, nth, Harm.REPLY_LOST)
        for harm in (Harm.RESET, Harm.TRUNCATED, Harm.DELAYED):
            for nth in spread_over(count, max(at_most // 8, 1)):
                yield WireTrial(phase.name, protocol, nth, harm)


def spread_over(count: int, at_most: int) -> list[int]:
    """Numbers from 1 to `count`, the last one among them."""
    chosen = min(count, at_most)
    return [count - count * number // chosen for number in reversed(range(chosen))] if chosen else []


def trials(phase: Phase, steps: Sequence[str]) -> Iterator[Trial]:
    """`steps` are the names in the order in which a run took them."""
    seen: Counter[str] = Counter()
    for step in steps:
        seen[step] += 1
        for fate in Fate:
            yield Trial(phase.name, step, seen[step], fate)


def one_per_kind(every: Sequence[Trial]) -> list[Trial]:
    """The first of each step's name and fate: a quick look."""
    first: dict[tuple[str, Fate], Trial] = {}
    for trial in every:
        first.setdefault((trial.step, trial.fate), trial)
    return list(first.values())
