"""The same way with an S3 server in the directory's place: files, index, commits and reads go over HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from moto.server import ThreadedMotoServer
from pyspark.sql import SparkSession

from core import digest
from core.overlay import merge_all, row_of, visible
from core.settings import Objects, Secret, Settings
from core.tiers import Tier
from jobs import drop, move, weeks
from lakehouse.census import census
from lakehouse.reader import read_page
from lakehouse.site import opened
from ops.regions import prepare
from tests.client import Client, amended, sent
from tests.conftest import CLOCKS, LAYOUT, quiet, remove

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
LAST_DAY = 37
COLD_SHARDS = 2


@pytest.fixture(scope="module")
def config(stack_settings: Settings, region: str) -> Iterator[Settings]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    objects = Objects("s3://firn-", f"http://{host}:{port}", access_key="firn", secret_key=Secret("firn-secret"))
    chosen = replace(stack_settings, regions=(region,), layout=LAYOUT, clocks=CLOCKS, objects=objects)
    try:
        prepare(chosen, region)
        yield chosen
    finally:
        remove(chosen, region)
        server.stop()


@pytest.mark.usefixtures("consumer")
def test_a_week_reaches_cold_over_s3(config: Settings, region: str, client: Client, spark: SparkSession) -> None:
    weeks.run(config, MONDAY, (region,), quiet)
    messages = [sent(number % 9, MONDAY + timedelta(minutes=number), number, bytes(1500)) for number in range(120)]
    late = amended(messages[::3], MONDAY + timedelta(days=LAST_DAY + 1))
    client.send(messages)
    client.wait_until_consumed()
    for day in (14, 15, LAST_DAY, LAST_DAY + 1):
        weeks.run(config, MONDAY + timedelta(days=day), (region,), quiet)
        drop.run(spark, config, MONDAY + timedelta(days=day), (region,), None, True, quiet)
        move.run(spark, config, MONDAY + timedelta(days=day), (region,), None, quiet)
    client.send(late)
    client.wait_until_consumed()

    wanted = merge_all(row_of(event) for event in [*messages, *late])
    with opened(config, region) as site:
        counts = [count for count in census(site) if count.digest.rows]
        first = read_page(site, messages[0].conversation_id, None, 500)
    assert [count.unit.tier for count in counts] == [Tier.COLD]
    assert counts[0].files == counts[0].unit.shards >= COLD_SHARDS
    assert counts[0].digest == digest.of_rows(wanted.values())
    of_first = [row for row in visible(wanted.values()) if row.conversation_id == messages[0].conversation_id]
    assert list(first.rows) == sorted(of_first, key=lambda row: row.message_id, reverse=True)
