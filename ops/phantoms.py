"""What a bucket and what names its objects do not agree about, region by region, and what the store may do by itself.

Phantoms are named and not there; orphans are there and not named, told by the dry run of the job that purges them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core import lifecycle, settings, weeks
from core.errors import FirnError
from core.lifecycle import Rule
from jobs import maintain
from lakehouse import phantoms
from lakehouse.maintenance import tables_of
from lakehouse.paths import HOMES
from lakehouse.phantoms import Phantom
from lakehouse.site import Site, opened


@dataclass(frozen=True)
class Threat:
    """A rule that reaches for what firn needs, and how many objects that lie there now will fall under it."""

    rule: Rule
    objects: int

    @property
    def sentence(self) -> str:
        return lifecycle.sentence(self.rule)


@dataclass(frozen=True)
class Region:
    """`orphans` is what a dry run of `jobs.maintain` says, or why it could not."""

    name: str
    phantoms: tuple[Phantom, ...]
    threats: tuple[Threat, ...]
    orphans: dict[str, Any] | FirnError

    @property
    def is_sound(self) -> bool:
        return not self.phantoms and not self.threats


def gather(config: settings.Settings, now: datetime, regions: Sequence[str]) -> list[Region]:
    found = []
    for name in regions:
        with opened(config, name, now) as site:
            slices = range(config.layout.slices)
            gone = tuple(one for slice_ in slices for one in phantoms.phantoms(site.ledger, tables_of(site, slice_)))
            found.append(Region(name, gone, tuple(threats(site)), _orphans(config, now, name)))
    return found


def threats(site: Site) -> list[Threat]:
    """The objects are listed only where a rule needs to be held against them."""
    rules = lifecycle.threats(site.objects.lifecycle(), HOMES)
    held = [one for home in HOMES for one in site.objects.list(home)] if rules else []
    return [Threat(rule, sum(rule.takes(one.key, one.size_bytes) for one in held)) for rule in rules]


def _orphans(config: settings.Settings, now: datetime, region: str) -> dict[str, Any] | FirnError:
    try:
        done = maintain.run(config, now, (region,), False, lambda _: None)
        return dict(done["regions"][region])
    except FirnError as fault:
        return fault


def as_data(one: Region) -> dict[str, Any]:
    gone = [
        {
            "key": each.key,
            "week": None if each.week is None else weeks.label(each.week),
            "named_by": list(each.witnesses),
            "found_bytes": each.found_bytes,
            "wanted_bytes": each.wanted_bytes,
        }
        for each in one.phantoms
    ]
    rules = [{"rule": each.rule.name, "why": each.sentence, "objects": each.objects} for each in one.threats]
    orphans = one.orphans.as_data() if isinstance(one.orphans, FirnError) else one.orphans
    return {"phantoms": gone, "lifecycle": rules, "orphans": orphans}
