import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from core.settings import Settings, Spark, parse
from ops import airflow, ports, processes
from ops.java import Java
from ops.processes import Record


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(airflow, "find_java", lambda *_: Java(tmp_path / "java", 17))
    return parse({"state_dir": str(tmp_path / "state"), "regions": ["north", "south"]})


def test_secrets_are_made_once_and_are_for_the_owner_only(settings: Settings) -> None:
    first, second = airflow.environment(settings), airflow.environment(settings)
    files = list((settings.state_dir / "secrets").iterdir())
    assert first == second
    assert sorted(file.name for file in files) == ["airflow-api", "airflow-fernet", "airflow-jwt"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert len({file.read_text() for file in files}) == 3


def test_two_states_share_no_secret(settings: Settings, tmp_path: Path) -> None:
    other = airflow.environment(replace(settings, state_dir=tmp_path / "other"))
    mine = airflow.environment(settings)
    secret = [name for name in mine if name.endswith(("_SECRET", "_KEY"))]
    assert len(secret) == 3
    assert all(mine[name] != other[name] for name in secret)


def test_all_state_lies_below_the_state_directory(settings: Settings) -> None:
    found = airflow.environment(settings)
    for name in ("AIRFLOW_HOME", "AIRFLOW__LOGGING__BASE_LOG_FOLDER", "SPARK_CONF_DIR", "FIRN_STATE_DIR"):
        assert Path(found[name]).is_relative_to(settings.state_dir), name
    assert found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{settings.state_dir}/airflow/airflow.db"
    assert found["FIRN_REGIONS"] == "north,south"


@pytest.mark.parametrize("master", ["local[2]", "yarn", "spark://master.example:7077"])
def test_spark_goes_where_the_settings_say(settings: Settings, master: str) -> None:
    there = replace(settings, spark=Spark(master=master))
    connection = json.loads(airflow.environment(there)["AIRFLOW_CONN_SPARK_DEFAULT"])
    assert connection == {"conn_type": "spark", "host": master, "extra": {"deploy-mode": "client"}}
    bound = "spark.driver.bindAddress 127.0.0.1" in airflow._spark_defaults(there)
    assert bound is master.startswith("local"), "a cluster's executors must reach the driver"


def test_one_port_stands_in_all_three_places_and_on_loopback(settings: Settings) -> None:
    assert "AIRFLOW__API__PORT" not in airflow.environment(settings)
    ports.choose(settings.state_dir, [airflow.PORT], {airflow.PORT: 12345})
    found = airflow.environment(settings)
    assert found["AIRFLOW__API__PORT"] == "12345"
    assert found["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:12345"
    assert found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:12345/execution/"


def test_nothing_runs_in_a_new_state(settings: Settings) -> None:
    said: list[str] = []
    assert set(airflow.status(settings).values()) == {"stopped"}
    airflow.down(settings, said.append)
    assert said == ["airflow: stopped 0 processes"]


def test_a_stranger_with_the_same_pid_is_not_ours(settings: Settings) -> None:
    processes.write_record(settings.state_dir, "airflow-scheduler", Record(os.getpid(), "another boot:1"))
    airflow.down(settings, lambda _: None)  # would end this very test run
    assert airflow.status(settings)["scheduler"] == "stopped"
