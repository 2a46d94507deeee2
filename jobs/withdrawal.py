"""Drops what is no table, unit by unit: the cold files of units that were frozen or thawed to warm, and the frozen
objects of units that were thawed to cold.

Of a switched unit readers go by the pointers to its cold files, so none of those goes before the unit is dropped. Of
frozen objects the manifest and the ledger's rows go first, for nobody reads them since the switch. The bytes stay until
`jobs.maintain` purges what nothing names any more, so a reader that is under way ends well.
"""

from collections.abc import Sequence

from core import moves
from core.errors import DamagedError
from core.ledger import Part, lease_name
from core.moves import State, Unit
from core.tiers import Tier
from jobs.attempt import Attempt
from jobs.verdicts import why_not_judged
from lakehouse import ends
from lakehouse.commit import latest_version
from lakehouse.publish import (
    cold_files,
    live_files_of,
    messages_of,
    parts_of,
    require_logged,
    require_pointers,
    retire_pointers,
    table_lease,
    withdraw,
    withdraw_manifests,
)
from lakehouse.session import succeeded
from stores.leases import holding


def candidates(run: Attempt, only: Sequence[int] | None) -> list[Unit]:
    """Units that were switched away from files, oldest first."""
    switched = [unit for unit in run.site.ledger.units() if unit.state is State.SWITCHED]
    found = [unit for unit in switched if not unit.move.source.is_cql]
    return sorted((unit for unit in found if only is None or unit.week in only), key=lambda unit: unit.key)


def name_of(unit: Unit) -> str:
    return f"{unit.name}/{unit.move.source}"


def why_not(run: Attempt, unit: Unit) -> str | None:
    return moves.why_not_drop(unit, run.now, run.site.config.tiers) or why_not_judged(run.site, unit)


def prove(run: Attempt, units: Sequence[Unit]) -> list[Unit]:
    """Those whose source is the very one that was proven, and whose sink holds it still."""
    parts = dict(run.able(units, lambda unit: (unit, _proven_parts(run, unit))))
    findings = run.spread(ends.covered, [(unit, (unit, part)) for unit in parts for part in parts[unit]])
    return run.able(parts, lambda unit: _covered(unit, succeeded(findings.get(unit.key, []))))


def _proven_parts(run: Attempt, unit: Unit) -> list[Part]:
    parts = parts_of(run.site, unit)
    require_pointers(run.site, unit, parts)
    require_logged(run.site, unit)
    if not all(part.verified for part in parts):
        raise DamagedError(f"{unit.name} is switched but not all of its parts are verified", "nothing was dropped")
    return parts


def _covered(unit: Unit, findings: Sequence[ends.Finding]) -> Unit:
    if not all(finding.proven for finding in findings):
        raise DamagedError(
            f"{unit.name}: {unit.move.source} and {unit.move.sink} do not hold the same any more",
            "nothing was dropped; keep both, and compare the digests of their files with those of the ledger's parts",
        )
    return unit


def drop(run: Attempt, unit: Unit) -> Unit:
    """A run that was killed in between goes on where it stopped; pointers that it left are retired by the next fold or
    `jobs.maintain`."""
    gate_seconds = run.site.config.clocks.gate_seconds
    with holding(run.keeper, lease_name(unit), gate_seconds) as lease:
        unit = run.change(unit, unit.changed(epoch=lease.epoch, commits=unit.commits + 1))
        with holding(run.keeper, table_lease(unit), gate_seconds):
            version = _withdrawn(run, unit) if unit.move.source is Tier.COLD else 0
            if unit.move.is_thaw:
                # Nothing of it stays named as frozen, not even what a freeze that was given up has left.
                run.check(unit)
                withdraw_manifests(run.site, unit, run.name, run.now)
        dropped = run.to(unit, State.DROPPED)
        if unit.move.source is Tier.COLD:
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
            f"{unit.name}: its table holds other files than those that were proven",
            "nothing was dropped; compare the pointers with the Delta log",
        )
    run.check(unit)
    return withdraw(run.site, unit, run.name, run.now)
