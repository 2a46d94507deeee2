"""What must hold before a bucket is trusted with the only copy: no rule of the store reaches for it, and the tables
have our columns."""

from core import lifecycle
from core.errors import RefusedError
from core.moves import Unit
from core.tiers import Tier
from lakehouse.commit import create_table
from lakehouse.paths import HOMES
from lakehouse.publish import messages_of
from lakehouse.site import Site
from lakehouse.tables import frozen_table


def require_no_rule(site: Site) -> None:
    """RefusedError while a lifecycle rule would take away, or move, what lies or will lie in the lake or in frozen."""
    if found := lifecycle.threats(site.objects.lifecycle(), HOMES):
        raise RefusedError(
            f"{site.region}: {lifecycle.sentence(found[0])}",
            "nothing was moved or dropped; take the rule off the bucket or give it a prefix of its own, see what it "
            "has done already (./firn phantoms), then run the same command again",
        )


def require_columns(site: Site, unit: Unit) -> None:
    """RefusedError where a Delta table that the unit's move reads or writes has other columns than ours."""
    ends = (unit.move.source, unit.move.sink)
    if Tier.COLD in ends:
        create_table(messages_of(site, unit))
    if Tier.FROZEN in ends:
        create_table(frozen_table(site.objects, site.config.objects, site.region, unit.slice))
