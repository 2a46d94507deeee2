from dataclasses import replace
from pathlib import Path

import pytest

from core import settings as settings_
from core.errors import RefusedError
from core.settings import Cassandra, Kafka, Layout, Redis, Secret, Settings
from ops import endpoints, processes, services
from ops.java import Java

PORTS = {"cassandra": 1, "cassandra_storage": 2, "cassandra_jmx": 3, "kafka": 4, "kafka_controller": 5, "valkey": 6}


def make(tmp_path: Path) -> Settings:
    return Settings(
        state_dir=tmp_path,
        regions=("fr", "jp"),
        warm=Cassandra(contact_points=("w1", "w2"), datacenter="disks"),
        kafka=Kafka(bootstrap="k:1"),
        layout=Layout(slices=3),
    )


def test_a_consumer_reads_the_settings_of_who_starts_it(tmp_path: Path) -> None:
    settings = make(tmp_path)
    children = services.consumers(settings, ("kafka",), {"FIRN_SETTINGS": "firn.toml"})
    assert [child.argv[-2:] for child in children] == [("--region", "fr"), ("--region", "jp")]
    assert settings_.parse({}, children[0].env) == settings
    assert children[0].env["FIRN_SETTINGS"] == str(Path("firn.toml").absolute())
    assert children[0].after == ("kafka",)


def test_no_secret_reaches_a_plan(tmp_path: Path) -> None:
    settings = replace(make(tmp_path), hot=Cassandra(username="u", password=Secret("hush")))
    assert "hush" not in str(services.as_environment(settings))


def test_acknowledged_means_on_disk_and_dropped_means_gone(tmp_path: Path) -> None:
    services.service("cassandra", Settings(state_dir=tmp_path), Java(tmp_path, 17), PORTS, False)
    yaml = (tmp_path / "run" / "conf" / "cassandra" / "cassandra.yaml").read_text()
    assert "commitlog_sync: batch\n" in yaml
    assert "auto_snapshot: false\n" in yaml
    assert "rpc_address: 127.0.0.1\n" in yaml


def test_the_local_node_is_in_the_datacenter_that_the_settings_name(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, hot=Cassandra(datacenter="ssd"), warm=Cassandra(datacenter="ssd"))
    services.service("cassandra", settings, Java(tmp_path, 17), PORTS, False)
    assert "dc=ssd\n" in (tmp_path / "run" / "conf" / "cassandra" / "rackdc.properties").read_text()


@pytest.mark.parametrize(("major", "expected"), [(17, False), (21, True)])
def test_java_21_is_told_to_allow_a_security_manager(tmp_path: Path, major: int, expected: bool) -> None:
    child = services.service("cassandra", Settings(state_dir=tmp_path), Java(tmp_path, major), PORTS, False)
    assert ("-Djava.security.manager=allow" in child.argv) is expected


def test_what_the_settings_name_is_not_ours(tmp_path: Path) -> None:
    settings = make(tmp_path)
    assert endpoints.local_services(settings) == ("cassandra", "valkey")
    named = replace(settings, hot=settings.warm, redis=Redis("redis://r:1"))
    assert endpoints.local_services(named) == ()


def test_settings_loaded_while_the_stack_ran_are_still_ours(tmp_path: Path) -> None:
    settings = replace(make(tmp_path), kafka=Kafka(), warm=Cassandra())
    every = endpoints.local_services(settings)
    endpoints.remember(settings, every, PORTS)
    loaded = endpoints.with_local(settings)
    assert (loaded.hot.port, loaded.kafka.bootstrap, loaded.redis.url) == (1, "127.0.0.1:4", "redis://127.0.0.1:6")
    assert endpoints.local_services(loaded) == every == ("cassandra", "kafka", "valkey")
    assert endpoints.configured_ports(loaded) == {}
    bare = endpoints.without_local(loaded)
    assert (bare.hot, bare.warm, bare.kafka, bare.redis) == (
        settings.hot,
        settings.warm,
        settings.kafka,
        settings.redis,
    )


def test_a_port_without_contact_points_is_a_wish(tmp_path: Path) -> None:
    assert endpoints.configured_ports(Settings(state_dir=tmp_path, hot=Cassandra(port=9999))) == {"cassandra": 9999}


def test_one_node_is_not_two_datacenters(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, hot=Cassandra(datacenter="ssd"))
    with pytest.raises(RefusedError, match="one datacenter"):
        endpoints.local_services(settings)


def test_only_what_is_local_is_written_down(tmp_path: Path) -> None:
    endpoints.remember(Settings(state_dir=tmp_path), ("valkey",), {"valkey": 6})
    assert processes.read_json(tmp_path / "endpoints.json") == {"redis": "redis://127.0.0.1:6"}
