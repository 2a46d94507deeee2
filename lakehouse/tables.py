"""The Delta tables of a region: where each lies, what columns it has and how it is cut. Nothing here opens one."""

from dataclasses import dataclass, field

import pyarrow as pa

from core.settings import Objects as ObjectSettings
from lakehouse.paths import frozen_table_root, quarantine_root, storage_options, table_root, table_uri
from schemas.tables import CANONICAL, FROZEN_MANIFEST, QUARANTINE
from stores.objects import Objects

Value = int | str


@dataclass(frozen=True)
class TableRef:
    """`partition_by` names the last columns of `schema`; a partition has one live file, or none."""

    objects: Objects
    root: str
    uri: str
    schema: pa.Schema
    partition_by: tuple[str, ...]
    options: dict[str, str] = field(repr=False)

    def partition(self, place: tuple[Value, ...]) -> dict[str, str]:
        """The values of the partition columns as the log spells them."""
        return {name: str(value) for name, value in zip(self.partition_by, place, strict=True)}


def _cut(columns: pa.Schema, **partitions: pa.DataType) -> pa.Schema:
    for name, kind in partitions.items():
        columns = columns.append(pa.field(name, kind, nullable=False))
    return columns


MESSAGES = _cut(CANONICAL, week=pa.int32(), shard=pa.int32())
FROZEN = _cut(FROZEN_MANIFEST, week=pa.int32(), generation=pa.int32())
QUARANTINED = _cut(QUARANTINE, import_id=pa.string())


def messages_table(objects: Objects, settings: ObjectSettings, region: str, slice_number: int) -> TableRef:
    """`objects` is the store of the same region; the table need not exist yet."""
    return _ref(objects, settings, region, table_root(slice_number), MESSAGES, ("week", "shard"))


def frozen_table(objects: Objects, settings: ObjectSettings, region: str, slice_number: int) -> TableRef:
    """The manifest of what is frozen: a row per shard, a file per (week, generation)."""
    return _ref(objects, settings, region, frozen_table_root(slice_number), FROZEN, ("week", "generation"))


def quarantine_table(objects: Objects, settings: ObjectSettings, region: str) -> TableRef:
    """Rows that could not be kept, with reasons: a file per import."""
    return _ref(objects, settings, region, quarantine_root(), QUARANTINED, ("import_id",))


def _ref(
    objects: Objects, settings: ObjectSettings, region: str, root: str, schema: pa.Schema, partition_by: tuple[str, ...]
) -> TableRef:
    uri = table_uri(settings, region, root)
    return TableRef(objects, root, uri, schema, partition_by, storage_options(settings))
