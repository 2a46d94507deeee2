"""The command line over a region that holds something."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from core import ids, topics, weeks
from core.overlay import merge_all, row_of
from core.settings import Settings
from core.tiers import Tier
from core.topics import Record
from jobs import weeks as weeks_job
from lakehouse.site import opened
from ops import holdings
from ops.cli import main
from ops.services import as_environment
from schemas.events import MessageSent
from stores import conversations, kafka, messages

NOW = datetime(2026, 3, 2, tzinfo=UTC)
LATER = NOW + timedelta(days=8)
WEEK = weeks.of_instant(NOW)
CONVERSATION = UUID("0f0e0d0c-0b0a-8908-8706-050403020100")
COUNT = 25
Run = Callable[..., Any]


def sent(number: int) -> MessageSent:
    at = NOW + timedelta(minutes=number)
    identifier = ids.compose((at - ids.UNIX_EPOCH) // timedelta(microseconds=1), 0, number)
    return MessageSent(
        conversation_id=CONVERSATION.bytes,
        message_id=identifier,
        sender_id=7,
        message_type=0,
        body=bytes([number]) * 100,
        preview=b"",
        media_ref=None,
        reply_to=None,
        server_ts=at,
    )


@pytest.fixture(scope="module")
def held(config: Settings, region: str) -> Settings:
    """A week of messages in hot, and one record that was set aside."""
    weeks_job.run(config, NOW, (region,), lambda _: None)
    rows = list(merge_all(row_of(sent(number)) for number in range(COUNT)).values())
    with opened(config, region) as site:
        site.db.hot.write([[conversations.present(region, CONVERSATION.bytes, WEEK)]])
        site.db.hot.write(messages.batches(region, Tier.HOT, WEEK, rows))
    producer = kafka.open_producer(config.kafka)
    topic = topics.topic_for(region, is_group=True)
    kafka.dead_letter(producer, region, Record(topic, 1, 42, 0, b"key", b"a secret body"), "not an event")
    producer.flush()
    return config


@pytest.fixture
def run(held: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name, value in as_environment(held).items():
        monkeypatch.setenv(name, value)

    def run(*words: str, code: int = 0) -> Any:
        assert main(words) == code, capsys.readouterr().err
        shown = capsys.readouterr().out
        return json.loads(shown) if "--json" in words else shown

    return run


def test_status_weighs_what_lags(run: Run, region: str) -> None:
    found = run("status", "--now", LATER.isoformat(), "--json")["regions"][region]
    assert found["lag"]["hot"]["messages"] == 0  # due is the week before, which is empty
    found = run("status", "--now", (LATER + timedelta(weeks=1)).isoformat(), "--json")["regions"][region]
    lag = found["lag"]["hot"]
    assert (lag["messages"], lag["is_estimate"], lag["next"]) == (COUNT, False, "warm")
    assert lag["size_bytes"] > COUNT * 100
    assert lag["due_since"] == "2026-03-09T00:00:00Z"  # the empty week before is the oldest
    assert found["log"]["behind_messages"] == 0
    assert found["log"]["dead_letters"] == 1
    text = run("status", "--now", LATER.isoformat())
    assert weeks.label(WEEK) in text
    assert "dead letters  1" in text


def test_plan_says_what_would_move(run: Run, region: str) -> None:
    now = (LATER + timedelta(weeks=1)).isoformat()
    found = run("plan", "--now", now, "--json")["regions"][region]
    assert found["total"]["messages"] == COUNT
    assert weeks.label(WEEK) in {one["week"] for one in found["moves"]}
    assert found["drops"] == []
    assert "hot → warm" in run("plan", "--now", now)
    assert "nothing is due to move" in run("plan", "--now", NOW.isoformat())


def test_read_pages_through_a_conversation(run: Run, region: str) -> None:
    whole = run("read", str(CONVERSATION), "--all", "--json")
    assert [one["id"] for one in whole["messages"]] == [
        str(UUID(bytes=sent(number).message_id)) for number in reversed(range(COUNT))
    ]
    assert {one["tier"] for one in whole["messages"]} == {"hot"}
    assert whole["before"] is None
    text = run("read", str(CONVERSATION), "--limit", "10")
    command = next(line for line in text.splitlines() if line.startswith("more: ./firn "))
    rest = run(*command.removeprefix("more: ./firn ").split(), "--limit", "10", "--json")
    assert rest["messages"] == whole["messages"][10:20]
    assert "no more" in run("read", str(CONVERSATION), "--region", region, "--all")


def test_read_of_nothing_is_refused_without_naming_anybody(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = "00000000-0000-8000-8000-000000000001"
    assert main(["read", unknown]) == 2
    assert unknown not in capsys.readouterr().err


def test_dead_letters_show_where_and_why_never_what(run: Run, region: str) -> None:
    (letter,) = run("dead-letters", "--json")["dead_letters"]
    assert letter.pop("at")
    assert letter == {
        "region": region,
        "topic": topics.topic_for(region, is_group=True),
        "partition": 1,
        "offset": 42,
        "reason": "not an event",
    }
    text = run("dead-letters")
    assert "not an event" in text
    assert "secret" not in text


def test_a_region_that_was_never_made_ready_does_not_hide_the_others(
    run: Run, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRN_REGIONS", f"{region},nowhere")
    found = run("status", "--now", NOW.isoformat(), "--json", code=3)["regions"]
    assert "states" in found[region]
    assert found["nowhere"]["error"] == "MissingTableError"


def test_a_large_week_is_estimated_from_a_sample(held: Settings, region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "SAMPLE_ROWS", 10)
    many = [sent(number) for number in range(200)]
    spread = [
        replace(row_of(event), conversation_id=ids.conversation_uuid("t", str(number)))
        for number, event in enumerate(many)
    ]
    with opened(held, region) as site:
        site.db.hot.write(messages.batches(region, Tier.HOT, WEEK + 1, spread))
        unit = site.ledger.unit(WEEK + 1, 0)
        assert unit
        amount = holdings.weigh(site, unit)
    assert amount
    assert amount.is_estimate
    assert 70 < amount.messages < 600
