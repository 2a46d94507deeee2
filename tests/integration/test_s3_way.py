"""The same way with an S3 server in the directory's place: files, index, commits and reads go over HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from pyspark.sql import SparkSession

from core import digest
from core import weeks as weeks_
from core.archive import Speed
from core.errors import RefusedError
from core.overlay import Row, merge_all, row_of, visible
from core.settings import Frozen, Objects, Secret, Settings
from core.tiers import Tier
from jobs import drop, fold, move, restore, weeks
from lakehouse.census import census
from lakehouse.reader import read_page
from lakehouse.restore import RestoreState
from lakehouse.site import opened
from ops.regions import prepare, remove
from quality import run as quality
from stores.objects import place
from stores.s3 import connect
from tests.client import Client, amended, sent
from tests.conftest import CLOCKS, LAYOUT, quiet

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
LAST_DAY = 37
COLD_SHARDS = 2


@pytest.fixture(scope="module")
def config(stack_settings: Settings, region: str) -> Iterator[Settings]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    objects = Objects("s3://firn-", f"http://{host}:{port}", access_key="firn", secret_key=Secret("firn-secret"))
    frozen = Frozen(horizon_months=1200)  # so few bytes pay for their freeze only in a hundred years
    chosen = replace(stack_settings, regions=(region,), layout=LAYOUT, clocks=CLOCKS, objects=objects, frozen=frozen)
    try:
        prepare(chosen, region)
        yield chosen
    finally:
        remove(chosen, region)
        server.stop()


@pytest.mark.usefixtures("consumer")
def test_a_week_reaches_cold_and_frozen_over_s3(
    config: Settings, region: str, client: Client, spark: SparkSession
) -> None:
    weeks.run(config, MONDAY, (region,), quiet)
    messages = [sent(number % 9, MONDAY + timedelta(minutes=number), number, bytes(1500)) for number in range(120)]
    late = amended(messages[::3], MONDAY + timedelta(days=LAST_DAY + 1))
    client.send(messages)
    client.wait_until_consumed()
    for day in (14, 15, LAST_DAY, LAST_DAY + 1):
        weeks.run(config, MONDAY + timedelta(days=day), (region,), quiet)
        quality.run(config, MONDAY + timedelta(days=day), (region,), None, quiet)
        drop.run(spark, config, MONDAY + timedelta(days=day), (region,), None, True, quiet)
        if day == LAST_DAY:
            a_rule_that_reaches_for_the_lake_is_refused(config, region, spark)
        move.run(spark, config, MONDAY + timedelta(days=day), (region,), None, quiet)
    client.send(late)
    client.wait_until_consumed()

    wanted = list(merge_all(row_of(event) for event in [*messages, *late]).values())
    expect(config, region, wanted, Tier.COLD)
    then = MONDAY + timedelta(days=7 + 366)
    fold.run(spark, config, then, (region,), None, quiet)
    expect(config, region, wanted, Tier.COLD)
    (week,) = {weeks_.of_id(message.message_id) for message in messages}
    for day in range(2):
        move.run(spark, config, then + timedelta(days=day), (region,), [week], quiet)
        quality.run(config, then + timedelta(days=day), (region,), [week], quiet)
        drop.run(spark, config, then + timedelta(days=day), (region,), [week], True, quiet)
    with opened(config, region) as site:
        page = read_page(site, messages[0].conversation_id, None, 500)
        assert page.rows == ()
        assert page.missing[week].state is RestoreState.NOT_ASKED
    restore.run(config, then, week, (region,), Speed.BULK, 3, False, quiet)  # the double restores at once
    expect(config, region, wanted, Tier.FROZEN)


def a_rule_that_reaches_for_the_lake_is_refused(config: Settings, region: str, spark: SparkSession) -> None:
    """As the bucket tells it; without a rule the same move goes on."""
    client, bucket = connect(config.objects), place(config.objects, region).bucket
    rules: Any = [{"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": "lake/"}, "Expiration": {"Days": 30}}]
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    with pytest.raises(RefusedError, match="lifecycle rule tidy expires what lies below lake/"):
        move.run(spark, config, MONDAY + timedelta(days=LAST_DAY), (region,), None, quiet)
    client.delete_bucket_lifecycle(Bucket=bucket)
    client.close()


def expect(config: Settings, region: str, wanted: list[Row], tier: Tier) -> None:
    """One unit holds all of it, in as many files as shards, and a conversation reads back."""
    with opened(config, region) as site:
        counts = [count for count in census(site) if count.digest.rows]
        page = read_page(site, wanted[0].conversation_id, None, 500)
    assert [count.unit.tier for count in counts] == [tier]
    assert counts[0].files == counts[0].unit.shards >= COLD_SHARDS
    assert counts[0].digest == digest.of_rows(wanted)
    of_first = [row for row in visible(wanted) if row.conversation_id == wanted[0].conversation_id]
    assert list(page.rows) == sorted(of_first, key=lambda row: row.message_id, reverse=True)
