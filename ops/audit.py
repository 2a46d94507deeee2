"""What was done by hand, over all regions."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core import settings, weeks
from core.ledger import Audited
from lakehouse.site import opened
from ops import report


@dataclass(frozen=True)
class Line:
    region: str
    entry: Audited


def gather(config: settings.Settings, regions: Sequence[str]) -> list[Line]:
    """Newest first."""
    found = []
    for region in regions:
        with opened(config, region) as site:
            found += [Line(region, entry) for entry in site.ledger.audit()]
    return sorted(found, key=lambda line: (line.entry.at, line.entry.revision), reverse=True)


def as_data(line: Line) -> dict[str, Any]:
    return {"region": line.region, **asdict(line.entry), "week": weeks.label(line.entry.week)}


def in_cells(line: Line) -> tuple[str, ...]:
    one = line.entry
    place = (weeks.label(one.week), str(one.slice), one.move, one.found_in, one.became)
    return report.instant(one.at), line.region, one.action, *place, "yes" if one.applied else "?", one.actor, one.reason
