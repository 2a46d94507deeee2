"""What a piece of work in one region needs open: two datacenters, a bucket, the lane."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from core import settings
from core.tiers import Tier
from stores.buckets import open_objects
from stores.cassandra import Database, Databases, connected
from stores.lane import Lane
from stores.ledger import CqlLedger
from stores.objects import Objects


@dataclass(frozen=True)
class Site:
    config: settings.Settings
    region: str
    db: Databases
    lane: Lane

    @cached_property
    def objects(self) -> Objects:
        """Opened at first use: a consumer writes on while the object store is away."""
        return open_objects(self.config.objects, self.region)

    @property
    def ledger(self) -> CqlLedger:
        return CqlLedger(self.db.hot, self.region)

    def database(self, tier: Tier) -> Database:
        return self.db.hot if tier is Tier.HOT else self.db.warm


@contextmanager
def opened(config: settings.Settings, region: str) -> Iterator[Site]:
    with connected(config) as db:
        yield site(config, region, db)


def site(config: settings.Settings, region: str, db: Databases) -> Site:
    """Over databases that the caller opened."""
    return Site(config, region, db, Lane(db.hot, region, config.layout.ring_slices))
