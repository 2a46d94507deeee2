"""The whole way on Spark executors that are processes of their own: an executor dies in the middle of a task, a driver
dies and is started again elsewhere; nothing is missing and nothing is there twice.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from core import weeks
from core.settings import Settings
from jobs import weeks as week_tables
from ops.java import find_java
from ops.services import as_environment
from tests.checker import Checker
from tests.client import Client, amended, sent, until
from tests.conftest import ROOT, quiet

START = datetime(2025, 3, 3, tzinfo=UTC)  # a Monday
WEEK = weeks.of_instant(START)
MASTER = "local-cluster[2,1,1024]"  # workers, cores and MB of each
CONVERSATIONS, DAYS = 40, 6
EXECUTOR = "CoarseGrainedExecutorBackend"
JOB_SECONDS = 180
BODY = b"ciphertext" * 100
DRIVER = """
import json, sys
from datetime import datetime
from core import settings
from jobs import drop, fold, move, shell
from lakehouse.session import spark_session
from quality import run as quality
config, week = settings.load(), int(sys.argv[1])
jobs = {
    "move": lambda now: move.run(spark, config, now, config.regions, [week], shell.say),
    "judge": lambda now: quality.run(config, now, config.regions, [week], shell.say),
    "drop": lambda now: drop.run(spark, config, now, config.regions, [week], True, shell.say),
    "fold": lambda now: fold.run(spark, config, now, config.regions, [week], shell.say),
}
with spark_session(config, "firn whole way") as spark:
    for job, now in json.loads(sys.argv[2]):
        jobs[job](datetime.fromisoformat(now))
"""


@dataclass(frozen=True)
class Cluster:
    config: Settings
    client: Client
    checker: Checker
    java_home: str

    def start(self, elsewhere: Path, *jobs: tuple[str, datetime]) -> "subprocess.Popen[str]":
        """A driver in a working folder, home and scratch space of its own, with nothing but the settings."""
        elsewhere.mkdir()
        given = as_environment(replace(self.config, spark=replace(self.config.spark, master=MASTER)))
        own = {"HOME": str(elsewhere), "TMPDIR": str(elsewhere), "PYTHONPATH": str(ROOT), "JAVA_HOME": self.java_home}
        wrapping_key = {"FIRN_VAULT__WRAPPING_KEY": self.config.vault.wrapping_key.reveal()}
        order = json.dumps([(job, now.isoformat()) for job, now in jobs])
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(WEEK), order],
            cwd=elsewhere,
            env=os.environ | given | own | wrapping_key,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, driver: "subprocess.Popen[str]") -> None:
        _, said = driver.communicate(timeout=JOB_SECONDS)
        assert driver.returncode == 0, said[-2000:]

    def check(self, move: str, state: str) -> None:
        self.client.wait_until_consumed()
        report = self.checker.report()
        assert report.faults == ()
        assert report.digest == report.expected_digest
        assert self.checker.states()[WEEK] == (move, state)


@pytest.fixture(scope="module")
def cluster(config: Settings, client: Client, checker: Checker, consumer: None, stack_settings: Settings) -> Cluster:
    week_tables.run(config, START + timedelta(days=7), (client.region,), quiet)
    client.send(
        sent(one, START + timedelta(days=day, hours=9), day, BODY)
        for one in range(CONVERSATIONS)
        for day in range(DAYS)
    )
    client.wait_until_consumed()
    java = find_java(stack_settings.state_dir, os.environ)
    patient = replace(config, frozen=replace(config.frozen, horizon_months=12_000))
    return Cluster(patient, client, checker, str(java.home))


def executors(driver: "subprocess.Popen[str]") -> list[psutil.Process]:
    return [one for one in psutil.Process(driver.pid).children(recursive=True) if EXECUTOR in command_of(one)]


def command_of(process: psutil.Process) -> str:
    """Nothing for one that has just ended."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def at_work(driver: "subprocess.Popen[str]") -> psutil.Process | None:
    """An executor whose Python worker is in a task."""
    for executor in executors(driver):
        with suppress(psutil.NoSuchProcess):
            if any("pyspark.daemon" in command_of(one) for one in executor.children(recursive=True)):
                return executor
    return None


def test_the_whole_way_on_a_cluster_that_loses_processes(cluster: Cluster, tmp_path: Path) -> None:
    first = START + timedelta(days=7 + 8)
    driver = cluster.start(tmp_path / "a", ("move", first))
    until(lambda: at_work(driver), "no executor begins to work", JOB_SECONDS)
    victim = at_work(driver)
    assert victim is not None
    victim.send_signal(signal.SIGKILL)
    cluster.finish(driver)
    cluster.check("hot", "switched")

    second = START + timedelta(days=7 + 31)
    driver = cluster.start(tmp_path / "b", ("drop", first + timedelta(days=1)), ("move", second))
    until(lambda: cluster.checker.states()[WEEK] == ("warm", "sealed"), "no second move begins", JOB_SECONDS)
    left = executors(driver)
    driver.kill()
    driver.communicate()
    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == [], "an executor outlives its driver"
    cluster.check("warm", "sealed")

    messages = [sent(one, START + timedelta(days=2, hours=9), 2, BODY) for one in range(9)]
    cluster.client.send(amended(messages, second))
    cluster.client.wait_until_consumed()
    time.sleep(cluster.config.clocks.lease_seconds)
    day, last = timedelta(days=1), START + timedelta(days=7 + 366)
    rest = [
        ("move", second),
        ("judge", second + day),
        ("drop", second + day),
        ("fold", second + 2 * day),
        ("move", last),
    ]
    cluster.finish(cluster.start(tmp_path / "c", *rest, ("move", last)))
    cluster.check("cold", "switched")
