"""The one SparkSession builder, and how work is spread over it."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pyspark.sql import SparkSession

from core import settings
from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError, RefusedError, no_space
from lakehouse.site import Site, opened

T = TypeVar("T")
R = TypeVar("R")
_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "2",
}
_BRANCHES = (RefusedError, BlockedError, DamagedError, OutcomeUnknownError, FirnError)
_SUBMITTED = "PYSPARK_GATEWAY_PORT"  # set by spark-submit for the driver it starts
_LOOPBACK = "SPARK_LOCAL_IP"  # where all of Spark's own servers listen, those of executors that are processes too
_LOCAL = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",  # the job says what it does
    "spark.sql.shuffle.partitions": "2",
}


@contextmanager
def spark_session(config: settings.Settings, name: str, *, delta: bool = False) -> Iterator[SparkSession]:
    """`delta` adds the jars that read Delta; a move does without, because delta-rs commits.

    Under spark-submit its master and its configuration stand; else `[spark]` of the settings.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(name)
    chosen = ({} if _SUBMITTED in os.environ else _by_settings(config)) | (_reading_delta(config) if delta else {})
    for key, value in chosen.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


def _by_settings(config: settings.Settings) -> dict[str, str]:
    chosen = {"spark.master": config.spark.master, "spark.driver.memory": config.spark.driver_memory}
    if not config.spark.master.startswith("local"):
        return chosen
    os.environ.setdefault(_LOOPBACK, "127.0.0.1")
    return chosen | _LOCAL


def _reading_delta(config: settings.Settings) -> dict[str, str]:
    jars = f"{config.state_dir / 'jars' / 'lake'}/*"
    return {"spark.driver.extraClassPath": jars, "spark.executor.extraClassPath": jars} | _DELTA


@dataclass(frozen=True)
class Failure:
    """An error on its way out of a task: raised there, Spark would wrap it into one of its own, without its type."""

    kind: type[FirnError]
    what: str
    do: str


def spread(
    spark: SparkSession | None, config: settings.Settings, region: str, work: Callable[[Site, T], R], items: Sequence[T]
) -> list[R | Failure]:
    """`work(site, item)` for each item, somewhere, or the error of ours that it met; in the order of `items`.

    A task opens its stores itself. Without a session all of it is one task, in this process.
    """

    def of_partition(part: Iterable[T]) -> Iterator[R | Failure]:
        mine = list(part)
        try:
            with opened(config, region) as site:
                return iter([_outcome(work, site, item) for item in mine])
        except FirnError as fault:
            return iter([_failure(fault)] * len(mine))

    if not items:
        return []
    if spark is None:
        return list(of_partition(items))
    context = spark.sparkContext
    partitions = min(len(items), max(context.defaultParallelism, 1) * 2)
    return context.parallelize(items, partitions).mapPartitions(of_partition).collect()


def succeeded(outcomes: Iterable[R | Failure]) -> list[R]:
    """Raises the first failure among them."""
    results = []
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            raise outcome.kind(outcome.what, outcome.do)
        results.append(outcome)
    return results


def _outcome(work: Callable[[Site, T], R], site: Site, item: T) -> R | Failure:
    try:
        return work(site, item)
    except FirnError as fault:
        return _failure(fault)
    except OSError as fault:
        if full := no_space(fault, "a task"):
            return _failure(full)
        raise


def _failure(fault: FirnError) -> Failure:
    """As the branch of the tree that it is on: some of its leaves cannot be made from what and do alone."""
    return Failure(next(kind for kind in _BRANCHES if isinstance(fault, kind)), fault.what, fault.do)
