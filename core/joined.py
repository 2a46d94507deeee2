"""Canonical rows from the rows of a week's two CQL tables, as whole columns."""

from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.rows import ID_BYTES, by_key, key_words, sortable_keys
from schemas.tables import CANONICAL

_REACTIONS: Any = CANONICAL.field("reactions").type
_SCALARS = pa.schema([field for field in CANONICAL if field.name != "reactions"])
_BY_USER: Any = [(name, "ascending") for name in ("conversation_id", "message_id", "user_id")]


def joined(messages: pa.Table, reactions: pa.Table) -> pa.Table:
    """In key order. `messages` and `reactions` have the columns of their tables, and each key once; a reaction whose
    message is not there makes a row of its own. ValueError for a reaction without its event."""
    rows = _canonical(messages)
    deleted = sortable_keys(rows.filter(rows.column("deleted")))
    kept = reactions.filter(pa.array(~np.isin(sortable_keys(reactions), deleted))).sort_by(_BY_USER)
    keys = sortable_keys(kept)
    whole = by_key(pa.concat_tables([rows, _alone(kept, keys, sortable_keys(rows))]))
    begins = np.searchsorted(keys, sortable_keys(whole))
    return whole.append_column(CANONICAL.field("reactions"), _lists(kept, np.append(begins, len(keys))))


def _canonical(messages: pa.Table) -> pa.Table:
    """Edits in the place of bodies; of what was deleted only who and when."""
    edit: Any = messages.column("edit")
    deleted: Any = pc.fill_null(cast(Any, messages.column("deleted")), False)
    body = pc.if_else(edit.is_valid(), pc.struct_field(edit, 1), messages.column("body"))
    made: dict[str, Any] = {name: messages.column(name) for name in _SCALARS.names if name in messages.column_names}
    made |= {"body": body, "edit_id": pc.struct_field(edit, 0), "deleted": deleted}
    for name in ("body", "media_ref", "edit_id"):
        made[name] = pc.if_else(deleted, pa.scalar(None, _SCALARS.field(name).type), made[name])
    return pa.table({name: made[name] for name in _SCALARS.names}, schema=_SCALARS)


def _alone(reactions: pa.Table, keys: NDArray[np.bytes_], known: NDArray[np.bytes_]) -> pa.Table:
    """A row of nothing but its key for each message that only reactions know."""
    first = np.unique(keys, return_index=True)[1]
    new = first[~np.isin(keys[first], known)]
    words = key_words(reactions)[new]
    columns: list[Any] = [pa.nulls(len(new), field.type) for field in _SCALARS]
    columns[:2] = [_ids(words[:, :2]), _ids(words[:, 2:])]
    columns[_SCALARS.get_field_index("deleted")] = pa.array(np.zeros(len(new), bool))
    return pa.table(columns, schema=_SCALARS)


def _ids(words: NDArray[np.uint64]) -> Any:
    buffers = [None, pa.py_buffer(words.astype(">u8").tobytes())]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(ID_BYTES), len(words), buffers).cast(pa.binary())


def _lists(reactions: pa.Table, offsets: NDArray[np.int64]) -> Any:
    cell: Any = reactions.column("reaction")
    event: Any = pc.struct_field(cell, 0)
    if event.null_count:
        raise ValueError("a reaction without its event")
    columns = (reactions.column("user_id"), event, pc.struct_field(cell, 1))
    flat = [pa.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks() for column in columns]
    values = pa.StructArray.from_arrays(flat, fields=list(_REACTIONS.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=_REACTIONS)
