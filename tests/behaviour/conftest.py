"""A region of its own for each module, on the stack that runs."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from core import settings
from core.settings import Settings
from ops.regions import MIGRATIONS
from stores.cassandra import connected, migrate


@pytest.fixture(scope="session")
def config() -> Settings:
    return settings.load()


@pytest.fixture(scope="module")
def region(config: Settings) -> Iterator[str]:
    name = f"t{uuid4().hex[:10]}"
    with connected(config) as db:
        migrate(db, config, name, MIGRATIONS)
        yield name
        for tier in ("hot", "warm", "meta"):
            db.hot.ddl(f"DROP KEYSPACE {name}_{tier}")
