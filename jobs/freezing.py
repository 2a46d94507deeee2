"""Whether a cold unit may be frozen now: nothing may wait to be folded into it, and the freeze must pay for itself."""

from core import ring
from core.archive import freeze_verdict
from core.moves import COLD_FROZEN, State, Unit
from lakehouse.frozen import require_attested
from lakehouse.paths import table_root
from lakehouse.publish import cold_files
from lakehouse.site import Site


def why_not_freeze(site: Site, unit: Unit) -> str | None:
    """The sentence that keeps an open cold unit in cold; None when it may go, or is on its way already."""
    if unit.move != COLD_FROZEN or unit.state is not State.OPEN:
        return None
    if any(not run.folded for run in site.ledger.runs(unit.week, unit.slice)):
        return "imported rows wait for a fold: ./firn fold"
    if not site.lane.is_empty(unit.week, ring.cut(unit.slice, site.config.layout.slices)):
        return "late changes wait for a fold: ./firn fold"
    files, policy = cold_files(site, unit), site.config.frozen
    if not files:
        return "it has no file to freeze"
    verdict = freeze_verdict((file.size_bytes for file in files), policy.text_class, policy.horizon_months)
    return None if verdict.pays else f"{verdict.sentence}, so it stays in cold"


def require_sealing(site: Site, unit: Unit) -> None:
    """Before a freeze begins: the vault has its wrapping key, and the store attests what it holds of the unit.

    RefusedError or DamagedError; what is put into a frozen class is paid for by the month, and is of no use without.
    """
    if unit.move != COLD_FROZEN:
        return
    _ = site.vault
    for file in cold_files(site, unit):
        require_attested(site.objects, f"{table_root(unit.slice)}/{file.path}", file.sha256, file.size_bytes)
