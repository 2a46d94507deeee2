"""What a piece of work in one region needs open: two datacenters, a bucket, the lane."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from core import settings
from core.tiers import Tier
from stores.buckets import open_objects
from stores.cassandra import Database, Databases, connected
from stores.lane import Lane
from stores.ledger import CqlLedger
from stores.objects import Objects
from stores.vault import CqlVault, wrapping_key


@dataclass(frozen=True)
class Site:
    """`now` is by what restored copies are ready and expire; None: real time."""

    config: settings.Settings
    region: str
    db: Databases
    lane: Lane
    now: datetime | None = None

    @cached_property
    def objects(self) -> Objects:
        """Opened at first use: a consumer writes on while the object store is away."""
        return open_objects(self.config.objects, self.region, self.now)

    @property
    def ledger(self) -> CqlLedger:
        return CqlLedger(self.db.hot, self.region)

    @property
    def vault(self) -> CqlVault:
        return CqlVault(self.db.hot, self.region, wrapping_key(self.config.vault, self.region))

    def database(self, tier: Tier) -> Database:
        return self.db.hot if tier is Tier.HOT else self.db.warm


@contextmanager
def opened(config: settings.Settings, region: str, now: datetime | None = None) -> Iterator[Site]:
    with connected(config) as db:
        yield site(config, region, db, now)


def site(config: settings.Settings, region: str, db: Databases, now: datetime | None = None) -> Site:
    """Over databases that the caller opened."""
    return Site(config, region, db, Lane(db.hot, region, config.layout.ring_slices), now)
