"""The gate of every change that reroutes writers: all of the log up to a known end was read by consumers that knew."""

import json
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class PartitionState:
    """`end` is the first offset not yet written when it was asked for; None stands for "no commit", "no number"."""

    topic: str
    partition: int
    start: int
    end: int
    committed: int | None
    route: int | None


def blocking(partitions: Iterable[PartitionState], route: int) -> tuple[str, ...]:
    """One sentence per partition that keeps the gate shut; empty means that it is open.

    The ends must have been read after the seal. No partition at all proves nothing, so that blocks too.
    """
    seen = tuple(partitions)
    if not seen:
        return ("no partition was looked at, so nothing shows that the writers know the new route",)
    return tuple(sentence for state in seen if (sentence := _why(state, route)))


def metadata(route: int) -> str:
    """What an offset commit carries."""
    return json.dumps({"route": route})


def route_in(metadata: str | None) -> int | None:
    """None for anything that `metadata` did not write."""
    try:
        found = json.loads(metadata or "null")
    except ValueError:
        return None
    route = found.get("route") if isinstance(found, dict) else None
    return route if isinstance(route, int) and not isinstance(route, bool) else None


def _why(state: PartitionState, route: int) -> str:
    name = f"{state.topic}/{state.partition}"
    if state.committed is None:
        return f"{name}: its consumer has committed nothing, not even the start"
    if state.committed < state.start:
        gone = f"offsets {state.committed}..{state.start - 1} are gone"
        return f"{name}: the log was truncated before it was read: {gone}"
    if state.committed < state.end:
        return f"{name}: read up to offset {state.committed} of {state.end}"
    if state.route is None:
        return f"{name}: its last commit carries no route number, {route} is needed"
    if state.route < route:
        return f"{name}: its last commit was made under route {state.route}, {route} is needed"
    return ""
