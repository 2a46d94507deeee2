"""What alarms are made of: there while it is known, also when it is 0, and in a form that Prometheus reads."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core import weeks
from core.errors import BlockedError
from core.moves import COLD_WARM, WARM_COLD, State, Unit
from core.settings import Alarms, Tiers
from ops import metrics
from ops.holdings import Amount, Weight
from ops.status import Log, Region

NOW = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = weeks.of_instant(NOW) - 3
ROOT = Path(__file__).resolve().parents[3]
STUCK = Unit("us", WEEK, 0, WARM_COLD, State.COPIED, sealed_at=NOW - timedelta(hours=30))
DUE = Unit("us", WEEK + 1, 0)
ASKED = Unit("us", WEEK - 60, 0, COLD_WARM, shards=2)
US = Region(
    "us",
    NOW,
    3,
    Tiers(),
    (Weight(STUCK, Amount(5, 50)), Weight(DUE, Amount(7, 70)), Weight(ASKED, None)),
    Log(8, 12, ("one is shut",), 2),
    Alarms(),
    {ASKED.key: NOW - timedelta(hours=25)},
)
LINE = re.compile(r"(firn_[a-z_]+)(?:\{((?:[a-z_]+=\"(?:[^\"\\\\]|\\\\.)*\",?)+)\})? (-?[0-9.e+]+)")


def shown(**regions: Region | BlockedError) -> dict[str, float]:
    text = metrics.rendered(metrics.metrics(regions, NOW))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in lines), lines
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_lag_and_what_is_stuck_are_told_by_region_and_move() -> None:
    found = shown(us=US)
    hot = '{region="us",source="hot",sink="warm"}'
    assert found[f"firn_lag_units{hot}"] == 1
    assert found[f"firn_lag_messages{hot}"] == 7
    assert found[f"firn_lag_bytes{hot}"] == 70
    assert found[f"firn_lag_seconds{hot}"] == 0
    assert found[f"firn_stuck_units{hot}"] == 0
    assert found['firn_stuck_units{region="us",source="warm",sink="cold"}'] == 1
    assert found['firn_stuck_units{region="us",source="cold",sink="warm"}'] == 1
    label = f'region="us",week="{weeks.label(WEEK)}",slice="0",source="warm",sink="cold",state="copied"'
    assert found[f"firn_stuck_seconds{{{label}}}"] == 30 * 3600
    assert found['firn_thaws_under_way{region="us"}'] == 1
    assert found['firn_consumer_behind_messages{region="us"}'] == 12
    assert found["firn_looked_at_seconds"] == NOW.timestamp()


def test_the_lag_grows_with_time() -> None:
    found = shown(us=replace(US, now=NOW + timedelta(days=3)))
    assert found['firn_lag_seconds{region="us",source="hot",sink="warm"}'] == 3 * 86400


def test_what_is_not_known_is_left_out() -> None:
    found = shown(
        us=replace(US, log=BlockedError("kafka is away", "wait")), eu=BlockedError("cassandra is away", "wait")
    )
    assert (found['firn_up{region="us"}'], found['firn_up{region="eu"}']) == (1, 0)
    assert not [name for name in found if 'region="eu"' in name and not name.startswith("firn_up")]
    assert not [name for name in found if name.startswith(("firn_consumer", "firn_gate", "firn_dead"))]


def test_labels_are_escaped() -> None:
    one = metrics.Metric("firn_up", "x", (metrics.Sample((("region", 'a"b\\c\nd'),), 1),))
    assert metrics.rendered([one]).splitlines()[2] == r'firn_up{region="a\"b\\c\nd"} 1'


def test_a_collector_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "firn.prom"
    path.write_text("old\n")
    metrics.write(path, "new\n")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("new\n", [path])
    with pytest.raises(FileNotFoundError):
        metrics.write(tmp_path / "not there" / "firn.prom", "new\n")


def test_every_alert_is_over_metrics_that_exist_and_names_an_entry_of_the_run_book() -> None:
    rules = (ROOT / "docs" / "alerts.yaml").read_text()
    used = set(re.findall(r"\bfirn_[a-z_]+", re.sub(r"#.*", "", rules)))
    assert used
    assert used <= metrics.TEXTS.keys()
    entries = {title.lower() for title in re.findall(r"^## (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.M)}
    named = set(re.findall(r'runbook: "([^"]+)"', rules))
    assert named <= entries, named - entries
