"""The rows of a cold table as other engines give them, without any code of ours, as canonical rows in key order."""

import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_delta
import pyarrow as pa
from deltalake import DeltaTable

from core import settings
from core.errors import RefusedError
from core.settings import Objects as ObjectSettings
from core.settings import Settings
from lakehouse.commit import PartFile, commit, create_table
from lakehouse.paths import data_path
from lakehouse.session import spark_session
from lakehouse.tables import messages_table
from schemas.tables import CANONICAL
from stores.buckets import open_objects
from stores.objects import place

Reader = Callable[[Path], pa.Table]
_WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def readers(without_spark: bool) -> dict[str, Reader]:
    """By name. RefusedError where there is no Java for Spark, or where its jars for Delta are not here yet."""
    found: dict[str, Reader] = {"delta_rs": through_delta_rs, "duckdb": through_duckdb}
    if not without_spark:
        config = settings.load()
        _require_spark(config)
        found["spark"] = lambda root: through_spark(config, root)
    return found


def agreement(readers: dict[str, Reader], data: bytes, rows: pa.Table, week: int) -> dict[str, bool]:
    """Whether each reads just `rows` from a Delta table that has `data` as its one file."""
    with tempfile.TemporaryDirectory() as scratch:
        root = _table(Path(scratch), data, rows.num_rows, week)
        return {name: bool(read(root).equals(rows)) for name, read in readers.items()}


def _table(scratch: Path, data: bytes, rows: int, week: int) -> Path:
    config, path = ObjectSettings(url=f"file:{scratch}"), data_path(week, 0, 1, "bench")
    objects = open_objects(config, "bench")
    table = messages_table(objects, config, "bench", 0)
    create_table(table)
    objects.put(f"{table.root}/{path}", data)
    commit(table, [PartFile(path, len(data), rows, (week, 0))], app_id="bench", number=1, attempt_id="1", now=_WHEN)
    where = place(config, "bench").directory
    assert where is not None, "a directory was asked for"
    return where / table.root


def through_delta_rs(root: Path) -> pa.Table:
    return canonical(pa.table(DeltaTable(str(root)).scan()))


def through_duckdb(root: Path) -> pa.Table:
    """The extension is the packaged one: nothing is downloaded."""
    (file,) = Path(str(duckdb_extension_delta.__file__)).parent.rglob("*.duckdb_extension")
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as engine:
        engine.execute(f"LOAD '{file}'")
        engine.execute("SET TimeZone = 'UTC'")
        return canonical(engine.execute(f"SELECT * FROM delta_scan('{root}')").to_arrow_table())


def _require_spark(config: Settings) -> None:
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise RefusedError("Spark needs Java", "set JAVA_HOME, or leave Spark out with --without-spark")
    if not any((config.state_dir / "jars" / "lake").glob("*.jar")):
        raise RefusedError("the jars that read Delta are not here", "./firn stack up, or use --without-spark")


def through_spark(config: Settings, root: Path) -> pa.Table:
    with spark_session(config, "firn bench", delta=True) as spark:
        spark.sparkContext.setLogLevel("OFF")
        spark.conf.set("spark.sql.session.timeZone", "UTC")
        found: Any = spark.read.format("delta").load(str(root))
        return canonical(found.toArrow())


def canonical(rows: pa.Table) -> pa.Table:
    ordered = rows.select(CANONICAL.names).cast(CANONICAL)
    return ordered.sort_by([("conversation_id", "ascending"), ("message_id", "ascending")]).combine_chunks()
