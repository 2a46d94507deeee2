"""Making a region ready: keyspaces and tables, topics with their first commits, the bucket. Harmless to repeat."""

from pathlib import Path

from core import settings
from stores import cassandra, kafka
from stores.buckets import open_objects
from stores.ledger import CqlLedger

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
