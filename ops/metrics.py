"""What an alarm is made of, in the text form that Prometheus reads. Everything is a gauge; no label names a person.

A figure that is not known is left out, and is never 0: an alarm on its absence is another one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from core import weeks
from core.errors import FirnError
from core.moves import MOVES, THAWS
from ops import status
from ops.status import Region

Labels = tuple[tuple[str, str], ...]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_READABLE = 0o644


@dataclass(frozen=True)
class Sample:
    labels: Labels
    value: float


@dataclass(frozen=True)
class Metric:
    name: str
    text: str
    samples: tuple[Sample, ...]


# name, what it is
TEXTS = {
    "firn_looked_at_seconds": "When this was gathered, in seconds since 1970.",
    "firn_up": "Whether the region's ledger could be read.",
    "firn_units": "Units by the tier where their truth lies, and state.",
    "firn_lag_units": "Units that are due for the next tier down and not switched to it.",
    "firn_lag_messages": "Messages of these units; estimated where they were never counted.",
    "firn_lag_bytes": "Bytes of these units, as they lie in the tier that they are due to leave.",
    "firn_lag_seconds": "For how long the oldest of these units has been due.",
    "firn_stuck_units": "Units under way, or past their grace, for longer than alarms.stuck_hours.",
    "firn_stuck_seconds": "For how long one stuck unit has waited.",
    "firn_thaws_under_way": "Units that are being brought up a tier.",
    "firn_consumer_behind_messages": "Events in the log that the consumer has not written yet.",
    "firn_gate_shut_partitions": "Partitions that would keep a gate shut now.",
    "firn_dead_letters": "Records that were set aside because they can never be kept.",
}


def metrics(regions: Mapping[str, Region | FirnError], now: datetime) -> list[Metric]:
    found: dict[str, list[Sample]] = {name: [] for name in TEXTS}
    found["firn_looked_at_seconds"].append(Sample((), now.timestamp()))
    for name, region in regions.items():
        for metric, labels, value in _facts(region):
            found[metric].append(Sample((("region", name), *labels), value))
    return [Metric(name, TEXTS[name], tuple(samples)) for name, samples in found.items()]


def _facts(region: Region | FirnError) -> Iterator[tuple[str, Labels, float]]:
    yield "firn_up", (), not isinstance(region, FirnError)
    if isinstance(region, FirnError):
        return
    for tier, states in status.counts(region).items():
        yield from (("firn_units", (("tier", tier), ("state", state)), number) for state, number in states.items())
    yield from _lag(region)
    yield from _stuck(region)
    yield from _log(region)


def _lag(region: Region) -> Iterator[tuple[str, Labels, float]]:
    for lag in status.lags(region):
        labels = (("source", str(lag.move.source)), ("sink", str(lag.move.sink)))
        yield "firn_lag_units", labels, lag.units
        late = (region.now - lag.since).total_seconds() if lag.since else 0
        yield "firn_lag_seconds", labels, max(0, late)
        if lag.amount is not None:
            yield "firn_lag_messages", labels, lag.amount.messages
            yield "firn_lag_bytes", labels, lag.amount.size_bytes


def _stuck(region: Region) -> Iterator[tuple[str, Labels, float]]:
    """The count is there for every move, also when it is 0; a series per unit only while that one is stuck."""
    found = status.stuck_units(region)
    for move in (*MOVES, *THAWS):
        labels = (("source", str(move.source)), ("sink", str(move.sink)))
        yield "firn_stuck_units", labels, sum(one.unit.move == move for one in found)
    for one in found:
        unit, waited = one.unit, (region.now - one.since).total_seconds()
        place = (("week", weeks.label(unit.week)), ("slice", str(unit.slice)))
        ends = (("source", str(unit.move.source)), ("sink", str(unit.move.sink)), ("state", str(unit.state)))
        yield "firn_stuck_seconds", (*place, *ends), waited
    yield "firn_thaws_under_way", (), sum(status.is_thawing(weight.unit) for weight in region.weights)


def _log(region: Region) -> Iterator[tuple[str, Labels, float]]:
    if isinstance(region.log, FirnError):
        return
    if region.log.behind is not None:
        yield "firn_consumer_behind_messages", (), region.log.behind
    yield "firn_gate_shut_partitions", (), len(region.log.shut)
    yield "firn_dead_letters", (), region.log.dead_letters


def as_data(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "help": metric.text,
        "samples": [{"labels": dict(sample.labels), "value": sample.value} for sample in metric.samples],
    }


def rendered(found: Iterable[Metric]) -> str:
    return "".join(f"{line}\n" for metric in found for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.text}"
    yield f"# TYPE {metric.name} gauge"
    for sample in metric.samples:
        labels = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in sample.labels)
        yield f"{metric.name}{{{labels}}} {sample.value:.15g}" if labels else f"{metric.name} {sample.value:.15g}"


def write(path: Path, text: str) -> None:
    """Whole or not at all: a collector may look at any time."""
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    made = Path(file.name)
    made.chmod(_READABLE)
    made.replace(path)
