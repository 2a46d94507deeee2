"""Each DAG, run by Airflow through spark-submit on real services: the operators' way, not the jobs' own."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.ledger import fingerprint
from core.moves import WARM_COLD, State
from core.settings import Settings
from core.tiers import Tier
from lakehouse.paths import table_root
from lakehouse.publish import cold_files
from lakehouse.site import opened
from ops.airflow import DagRunner, Run
from stores import messages
from tests import checker as checking
from tests.client import Client, edited, sent

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DUE = MONDAY + timedelta(days=14)
PAST_GRACE = DUE + timedelta(days=1)
DUE_COLD = MONDAY + timedelta(days=38)
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


def logs_of(run: Run) -> dict[str, str]:
    """By task."""
    found = run.log.parents[1].glob("task_id=*/attempt=*.log")
    return {path.parent.name.removeprefix("task_id="): path.read_text() for path in found}


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


def test_a_week_that_comes_to_cold_is_judged_in_the_same_run(
    config: Settings, region: str, dags: DagRunner, checker: checking.Checker
) -> None:
    """The week of the test above."""
    run = dags.run("tier", DUE_COLD, {"region": region, "week": "2026-W02"})
    assert run.state == "success"
    with opened(config, region) as site:
        unit, verdict = site.ledger.unit(WEEK, 0), site.ledger.verdict(WEEK, 0)
        assert unit is not None
        assert verdict is not None
        assert (unit.state, unit.move) == (State.SWITCHED, WARM_COLD)
        assert verdict.files == fingerprint(cold_files(site, unit))
    assert (verdict.passed, verdict.judged_at) == (True, DUE_COLD)
    logs = logs_of(run)
    assert logs.keys() == {"move", "quality", "done"}
    assert run.log.read_text() == logs["move"]
    assert f"{unit.name}: switched (warm → cold)" in logs["move"]
    assert f"{unit.name}: passed" in logs["quality"]
    assert "quality.run" not in logs["move"]
    assert "Spark-Submit" not in logs["quality"]
    assert checker.report().faults == ()


def test_late_changes_are_folded_and_the_old_file_is_purged(
    config: Settings, region: str, dags: DagRunner, client: Client, checker: checking.Checker
) -> None:
    """Of a week so old that it never had a table."""
    old = sent(1, MONDAY - timedelta(days=100))
    for days, event in ((0, old), (1, edited(old, MONDAY))):
        client.send([event])
        client.wait_until_consumed()
        run = dags.run("fold", DUE_COLD + timedelta(days=days), {"region": region})
        assert run.state == "success"
        assert "folded, 1 events taken out of the lane" in run.log.read_text()
    held, later = files(config, region), DUE_COLD + timedelta(days=3)
    assert dags.run("maintain", later, {"region": region}).state == "success"
    assert files(config, region) == held, "a manual run without apply is a dry run"
    assert dags.run("maintain", later, {"region": region, "apply": True}).state == "success"
    gone = held - files(config, region)
    assert len(gone) == 2, "the file that the second fold replaced, and its index"
    assert files(config, region) < held
    assert checker.report().faults == ()


def files(config: Settings, region: str) -> set[str]:
    with opened(config, region) as site:
        return {one.key for prefix in ("lake/", "index/") for one in site.objects.list(prefix)}


def test_a_week_that_nobody_knows_fails_the_run_and_says_so(dags: DagRunner) -> None:
    run = dags.run("tier", PAST_GRACE, {"week": "2031-W01"})
    assert run.state == "failed"
    assert "knows no week 2031-W01" in run.log.read_text()
    logs = logs_of(run)
    assert logs.keys() == {"move", "quality"}, "the gate runs whatever became of the move; the end does not"
    assert run.log.read_text() == logs["move"]
    assert "knows no week 2031-W01" in logs["quality"]


def test_a_run_fails_by_its_gate_alone(config: Settings, region: str, dags: DagRunner) -> None:
    """The cold file of the week above, written over; a later verdict stands in for the one that passed."""
    with opened(config, region) as site:
        unit, verdict = site.ledger.unit(WEEK, 0), site.ledger.verdict(WEEK, 0)
        assert unit is not None
        assert verdict is not None
        site.ledger.put_verdict(replace(verdict, passed=False))
        (pointer, *_) = cold_files(site, unit)
        site.objects.put(f"{table_root(0)}/{pointer.path}", b"no Parquet")
    run = dags.run("tier", DUE_COLD, {"region": region, "week": "2026-W02"})
    assert run.state == "failed"
    assert run.log.read_text() == logs_of(run)["quality"]
    assert f"{unit.name} (file is whole)" in run.log.read_text()
