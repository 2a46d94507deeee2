"""What a replay refuses before it opens anything."""

from dataclasses import replace
from datetime import timedelta

import pytest

from core.errors import BlockedError, RefusedError
from core.settings import Kafka, Settings
from ops import sample
from ops.replay import Report, replay


def test_a_window_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(RefusedError, match="ends before it starts"):
        replay(Settings(), sample.LAST, sample.LAST - timedelta(days=1), print)


def test_without_kafka_it_names_the_command() -> None:
    with pytest.raises(BlockedError, match=r"\./firn stack up"):
        replay(replace(Settings(), kafka=Kafka()), sample.LAST - timedelta(days=1), sample.LAST, print)


def test_a_report_adds_up() -> None:
    report = Report({("us", "MessageSent"): 1200, ("eu", "MessageSent"): 34})
    assert report.total == 1234
    assert str(report) == "eu MessageSent: 34\nus MessageSent: 1,200\ntotal: 1,234"
