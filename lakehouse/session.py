"""The one SparkSession builder, and how work is spread over it."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pyspark.sql import SparkSession

from core import settings
from lakehouse.site import Site, opened

T = TypeVar("T")
R = TypeVar("R")
_DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "2",
}
_LOCAL = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "2",
}


@contextmanager
def spark_session(config: settings.Settings, name: str, *, delta: bool = False) -> Iterator[SparkSession]:
    """`delta` adds the jars that read Delta; a move does without, because delta-rs commits."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(name).master(config.spark.master)
    if config.spark.master.startswith("local"):
        for key, value in _LOCAL.items():
            builder = builder.config(key, value)
    if delta:
        jars = config.state_dir / "jars" / "lake"
        builder = builder.config("spark.driver.extraClassPath", f"{jars}/*").config(
            "spark.executor.extraClassPath", f"{jars}/*"
        )
        for key, value in _DELTA.items():
            builder = builder.config(key, value)
    spark = builder.config("spark.driver.memory", config.spark.driver_memory).getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()


def spread(
    spark: SparkSession, config: settings.Settings, region: str, work: Callable[[Site, T], R], items: Sequence[T]
) -> list[R]:
    """`work(site, item)` for each item, somewhere; results in the order of `items`. A task opens its stores itself."""

    def of_partition(part: Iterable[T]) -> Iterator[R]:
        with opened(config, region) as site:
            for item in part:
                yield work(site, item)

    if not items:
        return []
    context = spark.sparkContext
    partitions = min(len(items), max(context.defaultParallelism, 1) * 2)
    return context.parallelize(items, partitions).mapPartitions(of_partition).collect()
