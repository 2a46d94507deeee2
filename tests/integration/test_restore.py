"""A frozen week of a region is brought back: the job and its command, over the ledger and the directory store."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core import weeks
from core.archive import Speed
from core.digest import Digest
from core.errors import DamagedError, RefusedError
from core.ledger import FrozenFile
from core.moves import COLD_FROZEN, State, Unit, born_cold
from core.settings import Settings
from jobs import restore
from lakehouse.paths import frozen_key
from lakehouse.restore import RestoreState, frozen_files, waiting
from lakehouse.site import opened
from ops.cli import main
from ops.services import as_environment
from stores.objects import FrozenObjectError
from tests.conftest import quiet

NOW = datetime(2026, 3, 2, 10, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEEK = weeks.of_instant(NOW) - 60
BODY = b"sealed" * 500
Run = Callable[..., Any]


def freeze(
    config: Settings, region: str, week: int, classes: list[str], state: State = State.DROPPED, generation: int = 0
) -> None:
    """A unit in the ledger with a frozen file for each class, as a finished move leaves it."""
    with opened(config, region, NOW) as site:
        unit = Unit(region, week, 0, COLD_FROZEN, state, shards=len(classes), generation=generation)
        assert site.ledger.create(unit)
        for shard, storage_class in enumerate(classes):
            for number in range(generation + 1):
                key = frozen_key(0, week, number, shard, 1, "a")
                info = site.objects.put(key, BODY, storage_class=storage_class)
                file = FrozenFile(
                    week,
                    0,
                    number,
                    shard,
                    1,
                    len(classes),
                    key,
                    Digest(1, 1),
                    len(BODY),
                    info.sha256,
                    storage_class,
                    NOW,
                )
                assert site.ledger.put_frozen(file)


def asked(
    config: Settings, region: str, week: int, now: datetime = NOW, speed: Speed = Speed.BULK, dry_run: bool = False
) -> dict[str, Any]:
    return dict(restore.run(config, now, week, (region,), speed, None, dry_run, quiet)["regions"][region])


def state(config: Settings, region: str, week: int, now: datetime) -> RestoreState:
    with opened(config, region, now) as site:
        return waiting(site.objects, frozen_files(site, week)).state


def test_a_week_comes_back_for_a_while(config: Settings, region: str) -> None:
    week = WEEK
    freeze(config, region, week, ["GLACIER", "GLACIER"])
    expected = asked(config, region, week, dry_run=True)
    assert state(config, region, week, NOW) is RestoreState.NOT_ASKED
    first = asked(config, region, week)
    assert first == expected
    assert (first["objects"], first["size_bytes"], first["asked"], first["dollars"]) == (2, 2 * len(BODY), 2, 0)
    assert (first["ready_at"], first["restored_until"]) == ("2026-03-02T22:30:00Z", "2026-03-10T00:00:00Z")
    assert first["lies_in"] == ["frozen"]

    again = asked(config, region, week, NOW + 11 * HOUR)
    assert (again["asked"], again["under_way"], again["ready_at"]) == (0, 2, "2026-03-02T22:30:00Z")
    assert state(config, region, week, NOW + 11 * HOUR) is RestoreState.UNDER_WAY
    with opened(config, region, NOW + 11 * HOUR) as site, pytest.raises(FrozenObjectError):
        site.objects.get(frozen_files(site, week)[0].path)

    there = asked(config, region, week, NOW + 12 * HOUR)
    assert (there["under_way"], there["restored"], there["ready_at"]) == (0, 2, None)
    assert state(config, region, week, NOW + 12 * HOUR) is RestoreState.RESTORED
    with opened(config, region, NOW + 12 * HOUR) as site:
        assert [site.objects.get(file.path) for file in frozen_files(site, week)] == [BODY, BODY]

    assert state(config, region, week, datetime(2026, 3, 10, tzinfo=UTC)) is RestoreState.NOT_ASKED


def test_a_faster_speed_overtakes_and_costs(config: Settings, region: str) -> None:
    week = WEEK + 1
    freeze(config, region, week, ["GLACIER"])
    asked(config, region, week)
    fast = asked(config, region, week, NOW + HOUR, Speed.STANDARD)
    assert (fast["asked"], fast["ready_at"]) == (1, "2026-03-02T16:30:00Z")
    assert fast["dollars"] > 0


def test_only_generations_that_nothing_else_holds_are_brought_back(config: Settings, region: str) -> None:
    """A supplement that is still on its way to frozen is read from cold."""
    week = WEEK + 2
    freeze(config, region, week, ["GLACIER"], State.COPIED, generation=1)
    with opened(config, region, NOW) as site:
        assert [file.generation for file in frozen_files(site, week)] == [0]
    assert asked(config, region, week)["objects"] == 1


def test_a_class_that_is_readable_is_left_alone(config: Settings, region: str) -> None:
    week, said = WEEK + 3, list[str]()
    freeze(config, region, week, ["GLACIER_IR"])
    done = restore.run(config, NOW, week, (region,), Speed.EXPEDITED, None, False, said.append)
    assert done["regions"][region]["readable_at_once"] == 1
    assert done["dollars"] == 0
    assert "nothing has to be restored" in said[0]


def test_a_week_that_is_not_frozen_says_where_it_lies(config: Settings, region: str) -> None:
    with opened(config, region) as site:
        site.ledger.create(born_cold(region, WEEK + 4, 0))
        site.ledger.create(Unit(region, WEEK + 5, 0))
    for week, where in ((WEEK + 4, f"in {region} it lies in cold"), (WEEK + 5, "in hot"), (WEEK + 6, "no such week")):
        with pytest.raises(RefusedError, match=where):
            asked(config, region, week)


def test_nothing_is_asked_when_a_part_of_it_is_not_to_be_had(config: Settings, region: str) -> None:
    week = WEEK + 7
    freeze(config, region, week, ["GLACIER", "DEEP_ARCHIVE"])
    with pytest.raises(RefusedError, match="expedited"):
        asked(config, region, week, speed=Speed.EXPEDITED)
    with opened(config, region, NOW) as site:
        files = frozen_files(site, week)
        assert [info.restore for file in files if (info := site.objects.head(file.path))] == [None, None]
        site.objects.delete(files[1].path)
    with pytest.raises(DamagedError, match="not in the bucket"):
        asked(config, region, week)


@pytest.fixture
def run(config: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name, value in as_environment(config).items():
        monkeypatch.setenv(name, value)

    def run(*words: str, code: int = 0) -> Any:
        assert main(words) == code, capsys.readouterr().err
        shown = capsys.readouterr().out
        return json.loads(shown) if "--json" in words else shown

    return run


def test_the_command_tells_first_and_then_asks(run: Run, config: Settings, region: str) -> None:
    week, now = WEEK + 8, NOW.isoformat()
    freeze(config, region, week, ["GLACIER", "GLACIER"])
    words = ("restore", weeks.label(week), "--now", now, "--speed", "standard", "--days", "3")
    text = run(*words, "--dry-run")
    assert "2 to be asked for" in text
    assert "would cost $0.00010" in text
    assert "all there by 2026-03-02 15:30 UTC" in text
    assert run(*words, "--json")["regions"][region]["asked"] == 2
    text = run(*words)
    assert "2 under way already" in text
    assert "the first copy goes at 2026-03-06 00:00 UTC" in text
    later = run(*words[:3], (NOW + 5 * HOUR).isoformat(), "--dry-run", "--days", "1", "--json")
    assert (later["dry_run"], later["regions"][region]["restored"]) == (True, 2)


def test_a_refusal_of_the_job_is_the_commands(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", weeks.label(WEEK + 50), "--now", NOW.isoformat()]) == 2
    assert "is frozen" in capsys.readouterr().err
