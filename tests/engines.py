"""The rows of a cold table as each engine gives them, without any code of ours: by key, in the checker's words."""

from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_delta
import pyarrow as pa
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from tests.checker import Final, Rows, add, finals, parquet_cells

COLUMNS = (
    "conversation_id",
    "message_id",
    "sender_id",
    "message_type",
    "body",
    "media_ref",
    "reply_to",
    "edit_id",
    "deleted",
    "server_ts",
    "reactions",
    "week",
    "shard",
)
Placed = tuple[int, int, Final]


def through_delta_rs(root: Path) -> list[Placed]:
    return placed(pa.table(DeltaTable(str(root)).scan()).select(COLUMNS).to_pylist())


def through_duckdb(root: Path) -> list[Placed]:
    """The extension is the packaged one: nothing is downloaded."""
    (file,) = Path(str(duckdb_extension_delta.__file__)).parent.rglob("*.duckdb_extension")
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as engine:
        engine.execute(f"LOAD '{file}'")
        engine.execute("SET TimeZone = 'UTC'")
        found = engine.execute(f"SELECT {', '.join(COLUMNS)} FROM delta_scan('{root}')")
        return placed(found.to_arrow_table().to_pylist())


def through_spark(spark: SparkSession, root: Path) -> list[Placed]:
    """The time as microseconds: a Python datetime would come in the zone of this machine."""
    columns = [name if name != "server_ts" else "unix_micros(server_ts) AS server_us" for name in COLUMNS]
    found = spark.read.format("delta").load(str(root)).selectExpr(*columns).collect()
    return placed([plain(row.asDict(recursive=True)) for row in found])


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Spark gives bytearrays."""
    reactions = [{name: hashable(value) for name, value in one.items()} for one in row["reactions"] or ()]
    return {name: hashable(value) for name, value in row.items()} | {"reactions": reactions}


def hashable(value: Any) -> Any:
    return bytes(value) if isinstance(value, bytearray) else value


def placed(rows: list[dict[str, Any]]) -> list[Placed]:
    """(week, shard, row), sorted; a row that is there twice comes twice."""
    found = []
    for row in rows:
        one: Rows = {}
        add(one, *parquet_cells(row))
        (final,) = finals(one).values()
        found.append((int(row["week"]), int(row["shard"]), final))
    return sorted(found, key=lambda place: place[2][:2])
