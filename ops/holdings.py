"""How much lies in which tier, week by week, without reading it all.

What was moved is known exactly, from the ledger's parts and pointers. What was not moved yet is sampled: the first rows
of a few token ranges; where the ranges end before the sample is full, that is exact too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby, islice

from rich.console import RenderableType
from rich.table import Table

from core import digest, moves, ring, weeks
from core.ledger import of_newest_epoch
from core.moves import State, Unit
from core.tiers import Tier
from lakehouse.census import Count
from lakehouse.publish import files_of
from lakehouse.site import Site
from ops import report
from stores import messages
from stores.cassandra import MissingTableError

SAMPLE_ROWS = 1000
SAMPLE_RANGES = 4  # for a region's week, however many slices it has
_TOTAL = "total"


@dataclass(frozen=True)
class Amount:
    """`messages` counts canonical rows; `size_bytes` is of the encoded rows in CQL, of the files in the lake."""

    messages: int = 0
    size_bytes: int = 0
    files: int = 0
    is_estimate: bool = False

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            self.messages + other.messages,
            self.size_bytes + other.size_bytes,
            self.files + other.files,
            self.is_estimate or other.is_estimate,
        )


@dataclass(frozen=True)
class Weight:
    """A unit and what it holds where its truth lies; None: not known."""

    unit: Unit
    amount: Amount | None


@dataclass(frozen=True)
class Holding:
    """All slices of a week that lie in one tier; `states` as in the ledger."""

    week: int
    tier: Tier
    states: tuple[State, ...]
    amount: Amount | None


def weigh(site: Site, unit: Unit) -> Amount | None:
    """A few reads of the ledger, and at most some pages of a table that was never copied. Rows of a supplement count
    beside the frozen ones that they amend."""
    if not unit.tier.is_cql:
        cold, frozen = files_of(site, unit)
        rows = sum(one.digest.rows for one in cold) + sum(one.digest.rows for one in frozen)
        size_bytes = sum(one.size_bytes for one in cold) + sum(one.size_bytes for one in frozen)
        return Amount(rows, size_bytes, len(cold) + len(frozen))
    if unit.tier is Tier.WARM or unit.state in (State.COPIED, State.VERIFIED):
        # What was thawed into warm was counted anew then.
        thawed = parted(site, replace(unit, move=moves.COLD_WARM)) if unit.tier is Tier.WARM else None
        return thawed or parted(site, replace(unit, move=moves.HOT_WARM))
    try:
        return sample(site, unit)
    except MissingTableError:
        return None  # it moved on meanwhile, or is damaged; the mover tells which


def parted(site: Site, unit: Unit) -> Amount | None:
    """What the unit's move has copied; None where nothing was."""
    parts = of_newest_epoch(site.ledger.parts(unit))
    if not parts:
        return None
    files = sum(bool(part.path) for part in parts)
    return Amount(sum(part.digest.rows for part in parts), sum(part.size_bytes for part in parts), files)


def sample(site: Site, unit: Unit) -> Amount:
    """An estimate by the share of the ring that the sampled rows cover."""
    slices = site.config.layout.slices
    ranges = max(1, SAMPLE_RANGES // slices)
    found = Amount()
    for part in range(ranges):
        found += _sampled(site, unit, ring.cut(unit.slice * ranges + part, slices * ranges))
    return found


def _sampled(site: Site, unit: Unit, tokens: ring.Range) -> Amount:
    tally, last, seen = digest.Tally(), tokens.start, 0
    rows = messages.scan(site.database(unit.tier), site.region, unit.tier, unit.week, tokens)
    for row in tally.through(islice(rows, SAMPLE_ROWS)):
        last, seen = ring.token(row.conversation_id), seen + 1
    if seen < SAMPLE_ROWS:
        return Amount(seen, tally.size_bytes)
    scale = (tokens.end - tokens.start) / max(1, last - tokens.start)
    return Amount(int(seen * scale), int(tally.size_bytes * scale), is_estimate=True)


def of_counts(counts: Iterable[Count]) -> list[Weight]:
    """What a census has counted, in the same words."""
    return [Weight(one.unit, Amount(one.messages, one.size_bytes, one.files)) for one in counts]


def by_week(weights: Iterable[Weight]) -> list[Holding]:
    """Oldest week first."""
    ordered = sorted(weights, key=_place)
    return [_holding(*place, list(group)) for place, group in groupby(ordered, key=_place)]


def total(amounts: Iterable[Amount | None]) -> Amount | None:
    """None when one of them is not known."""
    summed = Amount()
    for amount in amounts:
        if amount is None:
            return None
        summed += amount
    return summed


def _place(weight: Weight) -> tuple[int, Tier]:
    return weight.unit.week, weight.unit.tier


def _holding(week: int, tier: Tier, group: list[Weight]) -> Holding:
    states = tuple(state for state in State if any(weight.unit.state is state for weight in group))
    return Holding(week, tier, states, total(weight.amount for weight in group))


def as_data(holding: Holding) -> dict[str, object]:
    return {
        "week": weeks.label(holding.week),
        "tier": holding.tier,
        "states": list(holding.states),
        **amount_as_data(holding.amount),
    }


def amount_as_data(amount: Amount | None) -> dict[str, object]:
    """Nulls where it is not known."""
    if amount is None:
        return {"messages": None, "size_bytes": None, "files": None, "is_estimate": None}
    return dict(vars(amount))


def as_table(holdings: list[Holding], title: str = "") -> Table:
    """Weeks down, then a line per tier."""
    rows = [(weeks.label(one.week), one.tier, ", ".join(one.states), *cells(one.amount)) for one in holdings]
    return report.table(("week", "tier", "state", ">messages", ">files", ">bytes"), [*rows, *_totals(holdings)], title)


def as_picture(holdings: list[Holding], title: str) -> Iterator[RenderableType]:
    """A letter per week, oldest first, for the tier it lies in; then what each tier holds."""
    letters = "".join(one.tier[0].upper() for one in holdings)
    first, last = (weeks.label(one.week) for one in (holdings[0], holdings[-1]))
    yield report.title(title)
    yield f"{first} {letters} {last}"
    yield report.table(("tier", "", ">messages", ">files", ">bytes"), [line[1:] for line in _totals(holdings)])
    yield ""


def _totals(holdings: list[Holding]) -> Iterator[tuple[str, ...]]:
    for tier in Tier:
        if held := [one for one in holdings if one.tier is tier]:
            yield _TOTAL, tier, report.plural(len(held), "week"), *cells(total(one.amount for one in held))


def cells(amount: Amount | None) -> tuple[str, str, str]:
    """Messages, files, bytes."""
    if amount is None:
        return report.UNKNOWN, "", report.UNKNOWN
    files = report.count(amount.files) if amount.files else ""
    return report.count(amount.messages, amount.is_estimate), files, report.size(amount.size_bytes, amount.is_estimate)
