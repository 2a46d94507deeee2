"""Each DAG, run by Airflow through spark-submit on real services: the operators' way, not the jobs' own."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.moves import State
from core.settings import Settings
from core.tiers import Tier
from lakehouse.site import opened
from ops.airflow import DagRunner
from stores import messages
from tests import checker as checking
from tests.client import Client, sent

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DUE = MONDAY + timedelta(days=14)
PAST_GRACE = DUE + timedelta(days=1)
WEEK = 2922


@pytest.fixture(scope="module")
def dags(config: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagRunner]:
    """Its database and logs lie apart, so that no run of ours shows up in a developer's UI."""
    lines: list[str] = []
    with DagRunner(replace(config, state_dir=tmp_path_factory.mktemp("airflow")), lines.append) as runner:
        yield runner


def tables(config: Settings, region: str) -> set[Tier]:
    with opened(config, region) as site:
        names = set(messages.table_names(WEEK))
        return {tier for tier in (Tier.HOT, Tier.WARM) if names <= messages.existing_tables(site.db.hot, region, tier)}


@pytest.mark.usefixtures("consumer")
def test_the_three_dags_take_a_week_from_hot_to_warm(
    config: Settings, region: str, dags: DagRunner, client: Client, checker: checking.Checker
) -> None:
    assert dags.run("weeks", MONDAY).state == "success"
    client.send(sent(number % 7, MONDAY + timedelta(hours=number), number) for number in range(60))
    client.wait_until_consumed()

    assert dags.run("tier", DUE, {"region": region, "week": "2026-W02"}).state == "success"
    assert dags.run("drop", PAST_GRACE).state == "success"
    assert tables(config, region) == {Tier.HOT, Tier.WARM}, "a manual run without apply is a dry run"
    assert dags.run("drop", PAST_GRACE, {"apply": True}).state == "success"

    assert tables(config, region) == {Tier.WARM}
    with opened(config, region) as site:
        unit = site.ledger.unit(WEEK, 0)
    assert unit is not None
    assert (unit.state, unit.tier) == (State.DROPPED, Tier.WARM)
    assert checker.report().faults == ()


def test_a_week_that_nobody_knows_fails_the_run_and_says_so(dags: DagRunner) -> None:
    run = dags.run("tier", DUE, {"week": "2031-W01"})
    assert run.state == "failed"
    assert "knows no week 2031-W01" in run.log.read_text()
