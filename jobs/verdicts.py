"""What the quality gate says of a unit's cold files, and what that means for a drop."""

from core import weeks
from core.ledger import fingerprint
from core.moves import Unit
from lakehouse.publish import cold_files
from lakehouse.site import Site


def why_not_judged(site: Site, unit: Unit) -> str | None:
    """The sentence that forbids dropping anything of the unit; None when its present files have passed."""
    verdict = site.ledger.verdict(unit.week, unit.slice)
    if verdict is None or verdict.files != fingerprint(cold_files(site, unit)):
        how = f"./firn judge --week {weeks.label(unit.week)}"
        return f"{unit.name}: the quality gate has not judged its cold files yet: {how}"
    if not verdict.passed:
        return f"{unit.name}: its cold files break: {'; '.join(verdict.failed)}; nothing of it is dropped"
    return None
