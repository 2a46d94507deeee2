"""The rows of a cold table as other engines give them, without any code of ours, as canonical rows in key order."""

import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_delta
import pyarrow as pa
from deltalake import DeltaTable

from core.errors import RefusedError
from core.settings import Settings
from lakehouse.session import spark_session
from schemas.tables import CANONICAL


def through_delta_rs(root: Path) -> pa.Table:
    return canonical(pa.table(DeltaTable(str(root)).scan()))


def through_duckdb(root: Path) -> pa.Table:
    """The extension is the packaged one: nothing is downloaded."""
    (file,) = Path(str(duckdb_extension_delta.__file__)).parent.rglob("*.duckdb_extension")
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as engine:
        engine.execute(f"LOAD '{file}'")
        engine.execute("SET TimeZone = 'UTC'")
        return canonical(engine.execute(f"SELECT * FROM delta_scan('{root}')").to_arrow_table())


def require_spark(config: Settings) -> None:
    """RefusedError where there is no Java, or where Spark's jars for Delta are not here yet."""
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
