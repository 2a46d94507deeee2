"""The services, regions and sessions that tests share: one stack and one Spark for a run, one region for a module."""

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from core import settings
from core.settings import Clocks, Layout, Settings
from lakehouse.session import spark_session
from ops import jars, stack
from ops.java import find_java
from ops.regions import prepare, remove
from ops.services import as_environment
from stores.objects import place
from tests import checker as checking
from tests.client import Client
from tests.unsealing import key_in

ROOT = Path(__file__).parent.parent
# Short, so that a gate takes a second; long enough that a busy machine keeps its leases.
CLOCKS = Clocks(ledger_age_seconds=0.4, longest_read_seconds=2.0, lease_seconds=8.0, gate_seconds=30.0)
# Small, so that a few hundred messages make several shards and row groups.
LAYOUT = Layout(copy_shards=2, shard_bytes=50_000, row_group_bytes=20_000)
STOP_SECONDS = 20.0
STARTED = pytest.StashKey[Settings]()  # the stack, when it did not run before


def pytest_configure() -> None:
    """A worker of pytest-xdist says that its screen is narrow, where there is none."""
    os.environ.pop("COLUMNS", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests first, with sockets closed: what is quick to find is found before a stack is started."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "unit"):
            item.add_marker("disable_socket")
        elif "stack_settings" in getattr(item, "fixturenames", ()) or "integration" in item.path.parts:
            item.add_marker("services")
    items.sort(key=lambda item: item.get_closest_marker("disable_socket") is None)


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="session")
def stack_settings(request: pytest.FixtureRequest) -> Settings:
    """The stack of the working copy, which is started if it does not run; the end of the run leaves it as it was."""
    found = settings.load()
    was_running = any(one.state == "running" for one in stack.status(found))
    ready = stack.up(found, quiet, consumers=False)
    if not was_running:
        request.config.stash[STARTED] = ready
    return ready


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker started others may still use: it is for the whole run to stop it."""
    if getattr(node, "workeroutput", {}).get("started"):
        node.config.stash[STARTED] = settings.load()


def pytest_sessionfinish(session: pytest.Session) -> None:
    started = session.config.stash.get(STARTED, None)
    if started and hasattr(session.config, "workeroutput"):
        session.config.workeroutput["started"] = True
    elif started:
        stack.down(started, quiet)


@pytest.fixture(scope="session")
def spark(stack_settings: Settings) -> Iterator[SparkSession]:
    java = find_java(stack_settings.state_dir, os.environ)
    jars.fetch("lake", stack_settings.state_dir, java, quiet)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(java.home))
        logging.getLogger("py4j").setLevel(logging.ERROR)  # it says goodbye after pytest has closed the streams
        with spark_session(stack_settings, "firn tests", delta=True) as session:
            session.sparkContext.setLogLevel("OFF")
            yield session


@pytest.fixture(scope="module")
def region() -> str:
    """A name of its own for each module: keyspaces, topics and bucket follow it."""
    return f"t{secrets.token_hex(5)}"


@pytest.fixture(scope="module")
def config(stack_settings: Settings, region: str) -> Iterator[Settings]:
    """The settings of a prepared region; everything of it is removed at the end."""
    chosen = replace(stack_settings, regions=(region,), layout=LAYOUT, clocks=CLOCKS)
    try:
        prepare(chosen, region)
        yield chosen
    finally:
        remove(chosen, region)


@pytest.fixture(scope="module")
def client(config: Settings, region: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(config, region, tmp_path_factory.mktemp("client") / "acknowledged.ndjson")


@pytest.fixture(scope="module")
def checker(config: Settings, client: Client) -> Iterator[checking.Checker]:
    cassandra, key = (config.hot.contact_points[0], config.hot.port), key_in(config.vault.wrapping_key.reveal())
    where = checking.Place(*cassandra, client.region, bucket(config, client.region), key)
    with checking.opened(where, client.log) as opened:
        yield opened


@pytest.fixture(scope="module")
def consumer(config: Settings, region: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The region's consumer, in a process of its own, as the stack runs it. It must end well when it is told to."""
    log = tmp_path_factory.mktemp("consumer") / "log"
    command = [sys.executable, "-m", "serving.consumer", "--region", region]
    with log.open("w") as output:
        environment = os.environ | as_environment(config)
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=ROOT)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    assert process.returncode == 0, log.read_text()[-2000:]


def bucket(config: Settings, region: str) -> Path:
    directory = place(config.objects, region).directory
    assert directory is not None, "these tests look into the bucket's files: configure a directory"
    return directory
