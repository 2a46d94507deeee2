"""Making a region ready: keyspaces and tables, topics with their first commits, the bucket. Harmless to repeat.

And which region a conversation is at home in."""

import shutil
from pathlib import Path

from core import settings
from core.errors import RefusedError
from stores import cassandra, conversations, kafka, topics
from stores.buckets import open_objects
from stores.ledger import CqlLedger
from stores.objects import place

MIGRATIONS = Path(__file__).parent.parent / "schemas" / "cql"


def prepare(config: settings.Settings, region: str) -> None:
    with cassandra.connected(config) as db:
        cassandra.migrate(db, config, region, MIGRATIONS)
        route = CqlLedger(db.hot, region).route()
    kafka.ensure_topics(config.kafka, region, route)
    open_objects(config.objects, region)


def prepare_all(config: settings.Settings) -> None:
    for region in config.regions:
        prepare(config, region)


def remove(config: settings.Settings, region: str) -> None:
    """All that a region has, everywhere: for regions of tests alone. What cannot go now is left behind."""
    with cassandra.connected(config) as db:
        for suffix in ("hot", "warm", "meta", "vault"):
            db.hot.ddl(f"DROP KEYSPACE IF EXISTS {region}_{suffix}")
    topics.remove_topics(config.kafka, region)
    if directory := place(config.objects, region).directory:
        shutil.rmtree(directory, ignore_errors=True)
        return
    objects = open_objects(config.objects, region)
    for listed in objects.list(""):
        objects.delete(listed.key)


def home_of(
    config: settings.Settings, db: cassandra.Databases, conversation_id: bytes, named: str | None
) -> tuple[str, list[int]]:
    """The region (`named`, or the first that knows it) and the weeks that hold anything there, newest first."""
    regions = (config.require_region(named),) if named else config.regions
    for region in regions:
        try:
            known = conversations.weeks_of(db.hot, region, conversation_id)
        except cassandra.MissingTableError:
            if named:
                raise
            continue  # a region that was never made ready holds nothing
        if known:
            return region, known
    raise RefusedError(
        f"{' and '.join(regions)}: no such conversation, or all of it was erased",
        "see that the UUID and the region are right",
    )
