"""Drops the cold files of units that were frozen: out of the table first, then the unit's state, then its pointers.

While a unit is switched its readers go by the pointers, so none of them goes before the unit is dropped. The bytes stay
until `jobs.maintain` purges what nothing names any more, so a reader that is under way ends well.
"""

from collections.abc import Sequence

from core import moves
from core.errors import DamagedError
from core.ledger import Part, lease_name
from core.moves import COLD_FROZEN, State, Unit
from jobs.attempt import Attempt
from jobs.verdicts import why_not_judged
from lakehouse import ends
from lakehouse.commit import latest_version
from lakehouse.publish import (
    cold_files,
    live_files_of,
    messages_of,
    parts_of,
    require_pointers,
    retire_pointers,
    table_lease,
    withdraw,
)
from lakehouse.session import succeeded
from stores.leases import holding


def candidates(run: Attempt, only: Sequence[int] | None) -> list[Unit]:
    """Units that were switched to frozen, oldest first."""
    found = [unit for unit in run.site.ledger.units() if (unit.move, unit.state) == (COLD_FROZEN, State.SWITCHED)]
    return sorted((unit for unit in found if only is None or unit.week in only), key=lambda unit: unit.key)


def name_of(unit: Unit) -> str:
    return f"{unit.name}/cold"


def why_not(run: Attempt, unit: Unit) -> str | None:
    return moves.why_not_drop(unit, run.now, run.site.config.tiers) or why_not_judged(run.site, unit)


def prove(run: Attempt, units: Sequence[Unit]) -> list[Unit]:
    """Those whose cold files are the very ones that were frozen and whose objects the store attests still."""
    parts = dict(run.able(units, lambda unit: (unit, _proven_parts(run, unit))))
    findings = run.spread(ends.covered, [(unit, (unit, part)) for unit in parts for part in parts[unit]])
    return run.able(parts, lambda unit: _covered(unit, succeeded(findings.get(unit.key, []))))


def _proven_parts(run: Attempt, unit: Unit) -> list[Part]:
    parts = parts_of(run.site, unit)
    require_pointers(run.site, unit, parts)
    if not all(part.verified for part in parts):
        raise DamagedError(f"{unit.name} is switched but not all of its parts are verified", "nothing was dropped")
    return parts


def _covered(unit: Unit, findings: Sequence[ends.Finding]) -> Unit:
    if not all(finding.proven for finding in findings):
        raise DamagedError(
            f"{unit.name}: its cold files are not those that were frozen",
            "nothing was dropped; keep them, and compare their digests with the manifest",
        )
    return unit


def drop(run: Attempt, unit: Unit) -> Unit:
    """A run that was killed in between goes on where it stopped; pointers that it left are retired by the next fold or
    `jobs.maintain`."""
    gate_seconds = run.site.config.clocks.gate_seconds
    with holding(run.keeper, lease_name(unit), gate_seconds) as lease:
        unit = run.change(unit, unit.changed(epoch=lease.epoch, commits=unit.commits + 1))
        with holding(run.keeper, table_lease(unit), gate_seconds):
            version = _withdrawn(run, unit)
        dropped = run.to(unit, State.DROPPED)
        retire_pointers(run.site, dropped, version)
        return dropped


def _withdrawn(run: Attempt, unit: Unit) -> int:
    """A version of the table that holds none of the unit's files; a killed run may have made it already."""
    live = live_files_of(run.site, unit).keys()
    if not live:
        return latest_version(messages_of(run.site, unit))
    require_pointers(run.site, unit, parts_of(run.site, unit))
    if live != {file.path for file in cold_files(run.site, unit)}:
        raise DamagedError(
            f"{unit.name}: its table holds other files than those that were frozen",
            "nothing was dropped; compare the pointers with the Delta log",
        )
    run.check(unit)
    return withdraw(run.site, unit, run.name, run.now)
