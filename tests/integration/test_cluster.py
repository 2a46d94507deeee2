"""The whole way on Spark executors that are processes of their own: an executor dies in the middle of a task, a driver
dies and is started again elsewhere; nothing is missing and nothing is there twice.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
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
from quality import run as quality
from tests.checker import Checker
from tests.client import Client, amended, sent, until
from tests.conftest import ROOT, quiet

START = datetime(2025, 3, 3, tzinfo=UTC)  # a Monday
WEEK = weeks.of_instant(START)
MASTER = "local-cluster[2,1,1024]"  # workers, cores and MB of each
CONVERSATIONS, DAYS = 40, 6
EXECUTOR = "CoarseGrainedExecutorBackend"
JOB_SECONDS = 150


@dataclass(frozen=True)
class Cluster:
    config: Settings
    client: Client
    checker: Checker
    java_home: str

    def start(self, job: str, now: datetime, elsewhere: Path, *more: str) -> "subprocess.Popen[str]":
        """A driver in a working folder, home and scratch space of its own, with nothing but the settings."""
        elsewhere.mkdir()
        given = as_environment(replace(self.config, spark=replace(self.config.spark, master=MASTER)))
        own = {"HOME": str(elsewhere), "TMPDIR": str(elsewhere), "PYTHONPATH": str(ROOT), "JAVA_HOME": self.java_home}
        wrapping_key = {"FIRN_VAULT__WRAPPING_KEY": self.config.vault.wrapping_key.reveal()}
        options = ["--now", now.isoformat(), "--region", self.client.region, "--week", weeks.label(WEEK), *more]
        return subprocess.Popen(
            [sys.executable, "-m", f"jobs.{job}", *options],
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
        sent(one, START + timedelta(days=day, hours=9), day, b"ciphertext" * 100)
        for one in range(CONVERSATIONS)
        for day in range(DAYS)
    )
    client.wait_until_consumed()
    java = find_java(stack_settings.state_dir, os.environ)
    patient = replace(config, frozen=replace(config.frozen, horizon_months=12_000))
    return Cluster(patient, client, checker, str(java.home))


def executors(driver: "subprocess.Popen[str]") -> list[psutil.Process]:
    return [one for one in psutil.Process(driver.pid).children(recursive=True) if EXECUTOR in words(one)]


def at_work(driver: "subprocess.Popen[str]") -> psutil.Process | None:
    """An executor whose Python worker is in a task."""
    for executor in executors(driver):
        if any("pyspark.daemon" in words(one) for one in executor.children(recursive=True)):
            return executor
    return None


def words(process: psutil.Process) -> str:
    """Nothing of one that has just ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def test_the_whole_way_on_a_cluster_that_loses_processes(cluster: Cluster, tmp_path: Path) -> None:
    now = START + timedelta(days=7 + 8)
    driver = cluster.start("move", now, tmp_path / "a")
    until(lambda: at_work(driver), "no executor begins to work", 90)
    victim = at_work(driver)
    assert victim is not None
    victim.send_signal(signal.SIGKILL)
    cluster.finish(driver)
    cluster.check("hot", "switched")
    cluster.finish(cluster.start("drop", now + timedelta(days=1), tmp_path / "b", "--apply"))
    cluster.check("hot", "dropped")

    now = START + timedelta(days=7 + 31)
    driver = cluster.start("move", now, tmp_path / "c")
    until(lambda: at_work(driver), "no executor begins to work", 90)
    left = executors(driver)
    driver.kill()
    driver.communicate()
    gone_or_ended = psutil.wait_procs(left, timeout=30)
    assert gone_or_ended[1] == [], "an executor outlives its driver"
    messages = [sent(one, START + timedelta(days=2, hours=9), 2, b"ciphertext" * 100) for one in range(9)]
    cluster.client.send(amended(messages, now))
    time.sleep(cluster.config.clocks.lease_seconds)
    cluster.finish(cluster.start("move", now, tmp_path / "d"))
    cluster.check("warm", "switched")
    quality.run(cluster.config, now + timedelta(days=1), (cluster.client.region,), None, quiet)
    cluster.finish(cluster.start("drop", now + timedelta(days=1), tmp_path / "e", "--apply"))
    cluster.finish(cluster.start("fold", now + timedelta(days=2), tmp_path / "f"))
    cluster.check("warm", "dropped")
    cluster.finish(cluster.start("move", START + timedelta(days=7 + 366), tmp_path / "g"))
    cluster.check("cold", "switched")
