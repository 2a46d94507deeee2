"""Settings: all faults at once, the environment over the file, endpoints where none is configured, no secret shown."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import settings
from core.errors import RefusedError
from core.settings import Secret, Settings, load, parse, redacted, with_endpoints

ENDPOINTS = {"cassandra": ["127.0.0.1", 1234], "kafka": "127.0.0.1:9", "redis": "redis://127.0.0.1:8"}
SECRET = "hunter2"


def test_nothing_configured_is_the_default() -> None:
    found = parse({})
    assert found.regions == ("us", "eu")
    assert found.state_dir == Path(".firn").absolute()
    assert found.tiers == settings.Tiers(7, 30, 365, 1)


def test_every_fault_is_named_at_once() -> None:
    document: dict[str, Any] = {
        "colour": "red",
        "kafka": {"partitions": "many", "colour": 1},
        "tiers": {"hot_days": True, "warm_days": 1.5},
        "redis": "redis://127.0.0.1",
        "clocks": {"lease_seconds": "soon"},
        "objects": {"url": {"nested": "x"}, "region": 5},
        "regions": [1],
    }
    with pytest.raises(RefusedError) as caught:
        parse(document, {"FIRN_SPARK__COLOUR": "red"})
    for fault in (
        "colour is not a setting",
        "kafka.colour is not a setting",
        "spark.colour is not a setting",
        "kafka.partitions must be int",
        "tiers.hot_days must be int",
        "tiers.warm_days must be int",
        "[redis] must be a table",
        "clocks.lease_seconds must be float",
        "objects.url must be str",
        "objects.region must be str",
        "regions must be",
    ):
        assert fault in caught.value.what


def test_what_a_job_may_just_be_writing_is_never_purged() -> None:
    with pytest.raises(RefusedError, match=r"maintenance\.orphan_hours must be at least 1"):
        parse({"maintenance": {"orphan_hours": 0}})
    assert parse({"maintenance": {"orphan_hours": 1}}).maintenance.orphan_hours == 1


def test_a_fault_never_shows_the_value() -> None:
    with pytest.raises(RefusedError) as caught:
        parse({"hot": {"port": SECRET}, "objects": SECRET})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "path", "wanted"),
    [
        ("FIRN_TIERS__HOT_DAYS", "3", "tiers.hot_days", 3),
        ("FIRN_CLOCKS__GATE_SECONDS", "1.5", "clocks.gate_seconds", 1.5),
        ("FIRN_REGIONS", "us,ap", "regions", ("us", "ap")),
        ("FIRN_HOT__CONTACT_POINTS", "a,b", "hot.contact_points", ("a", "b")),
        ("FIRN_OBJECTS__URL", "", "objects.url", ""),
        ("FIRN_STATE_DIR", "/elsewhere", "state_dir", Path("/elsewhere")),
        ("FIRN_HOT__PASSWORD", SECRET, "hot.password", Secret(SECRET)),
    ],
)
def test_the_environment_wins(variable: str, value: str, path: str, wanted: object) -> None:
    document = {
        "state_dir": "here",
        "regions": ["eu"],
        "tiers": {"hot_days": 9},
        "hot": {"contact_points": ["z"]},
        "objects": {"url": "s3://x"},
    }
    found: Any = parse(document, {variable: value, "FIRN_SETTINGS": "x", "HOME": "y"})
    for name in path.split("."):
        found = getattr(found, name)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize("variable", ["FIRN_REGIONS__X", "FIRN_STATE_DIR__X"])
def test_a_variable_for_a_section_that_is_none_is_a_fault(variable: str) -> None:
    with pytest.raises(RefusedError, match=r"is not a setting|must be"):
        parse({"regions": ["us"], "state_dir": "here"}, {variable: "1"})


def test_relative_paths_are_taken_from_the_file(tmp_path: Path) -> None:
    assert parse({"state_dir": "state"}, base=tmp_path).state_dir == tmp_path / "state"


def test_endpoints_fill_what_is_not_configured() -> None:
    filled = with_endpoints(parse({}), ENDPOINTS)
    assert (filled.hot.contact_points, filled.hot.port) == (("127.0.0.1",), 1234)
    assert filled.warm == filled.hot
    assert (filled.kafka.bootstrap, filled.redis.url) == ("127.0.0.1:9", "redis://127.0.0.1:8")
    assert filled.objects.url == f"file:{filled.state_dir / 'objects'}"


def test_endpoints_leave_what_is_configured() -> None:
    document = {
        "hot": {"contact_points": ["hot-1"]},
        "kafka": {"bootstrap": "k:1"},
        "redis": {"url": "redis://r"},
        "objects": {"url": "s3://firn-"},
    }
    configured = parse(document)
    filled = with_endpoints(configured, ENDPOINTS)
    assert filled.warm.contact_points == ("127.0.0.1",)
    assert (filled.hot, filled.kafka) == (configured.hot, configured.kafka)
    assert (filled.redis, filled.objects) == (configured.redis, configured.objects)
    assert with_endpoints(filled, ENDPOINTS) == filled


def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("FIRN_")]:
        monkeypatch.delenv(name)


def test_a_file_is_loaded_with_what_the_stack_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "firn.toml").write_text('state_dir = "s"\n[tiers]\nhot_days = 2\n')
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "endpoints.json").write_text(json.dumps(ENDPOINTS))
    without_settings(monkeypatch)
    monkeypatch.setenv("FIRN_SETTINGS", str(tmp_path / "firn.toml"))
    monkeypatch.setenv("FIRN_TIERS__WARM_DAYS", "5")
    found = load()
    assert (found.tiers.hot_days, found.tiers.warm_days) == (2, 5)
    assert found.kafka.bootstrap == "127.0.0.1:9"


def test_no_file_is_fine_unless_one_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert load().state_dir == tmp_path / ".firn"
    monkeypatch.setenv("FIRN_SETTINGS", str(tmp_path / "none.toml"))
    with pytest.raises(RefusedError, match="does not exist"):
        load()


def test_a_broken_file_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "firn.toml").write_text("a = \n")
    with pytest.raises(RefusedError, match="line 1"):
        load(tmp_path / "firn.toml")


def test_a_region_must_be_configured() -> None:
    assert Settings().require_region("us") == "us"
    with pytest.raises(RefusedError, match="'mars' is not one of us, eu"):
        Settings().require_region("mars")


@given(st.text(min_size=4).filter(lambda text: "*" not in text))
def test_a_secret_never_prints(text: str) -> None:
    secret = Secret(text)
    for shown in (str(secret), repr(secret), f"{secret}", f"{secret!r}", f"{secret:>1}", f"{[secret]}"):
        assert shown.strip("'[] ") == "***"
    assert secret.reveal() == text


def test_settings_print_without_their_secrets() -> None:
    found = parse({"hot": {"password": SECRET}, "objects": {"secret_key": SECRET, "access_key": "id"}})
    assert SECRET not in repr(found)
    plain = redacted(found)
    assert SECRET not in json.dumps(plain)
    assert plain["objects"]["access_key"] == "id"
    assert plain["hot"]["password"] == "***"
