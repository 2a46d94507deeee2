"""Whole columns of a week's two tables become the canonical rows that row by row they become."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import rows
from core.joined import joined
from core.overlay import Row, canonical
from schemas.tables import ID, INSTANT
from tests import strategies

EDIT = pa.struct([pa.field("0", ID), pa.field("1", pa.binary())])
_MESSAGES: list[tuple[str, Any]] = [
    ("conversation_id", ID), ("message_id", ID), ("sender_id", pa.int64()), ("message_type", pa.int8()),
    ("body", pa.binary()), ("media_ref", pa.string()), ("reply_to", ID), ("edit", EDIT), ("deleted", pa.bool_()),
    ("server_ts", INSTANT),
]  # fmt: skip
_REACTIONS: list[tuple[str, Any]] = [*_MESSAGES[:2], ("user_id", pa.int64()), ("reaction", EDIT)]
MESSAGES, REACTIONS = pa.schema(_MESSAGES), pa.schema(_REACTIONS)


def stored(row: Row) -> dict[str, Any]:
    """As the table of messages has it: where there is an edit, under it the body of before."""
    edit = None if row.edit_id is None else {"0": row.edit_id, "1": row.body}
    body = b"of before" if edit else row.body
    found = {name: getattr(row, name) for name in MESSAGES.names if name not in {"edit", "body"}}
    return found | {"edit": edit, "body": body, "deleted": row.deleted or None}


def reacted(row: Row) -> Iterator[dict[str, Any]]:
    for one in row.reactions:
        key = {"conversation_id": row.conversation_id, "message_id": row.message_id, "user_id": one.user_id}
        yield key | {"reaction": {"0": one.event_id, "1": one.reaction}}


some_rows = st.lists(strategies.rows, max_size=12, unique_by=lambda row: row.key)


@given(some_rows, st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)), st.randoms(use_true_random=False))
def test_tables_become_the_rows_that_they_hold(held: list[Row], lone: set[int], deleted: set[int], chance: Any) -> None:
    """Some rows are reactions without their message; of some messages the deletion came over all that was there."""
    held = [Row(*row.key, reactions=row.reactions) if at in lone else row for at, row in enumerate(held)]
    held = [row for at, row in enumerate(held) if row.reactions or at not in lone]
    held = [replace(row, deleted=True) if at in deleted and row.is_message else row for at, row in enumerate(held)]
    messages = [stored(row) for row in held if row != Row(*row.key, reactions=row.reactions) or not row.reactions]
    reactions = [one for row in held for one in reacted(row)]
    chance.shuffle(messages)
    chance.shuffle(reactions)
    whole = joined(pa.Table.from_pylist(messages, MESSAGES), pa.Table.from_pylist(reactions, REACTIONS))
    assert list(rows.from_batch(whole)) == sorted(map(canonical, held), key=lambda row: row.key)


def test_a_reaction_without_its_event_is_not_whole() -> None:
    cell = {"0": None, "1": b"r"}
    lone = {"conversation_id": bytes(16), "message_id": bytes(16), "user_id": 1, "reaction": cell}
    with pytest.raises(ValueError, match="without its event"):
        joined(MESSAGES.empty_table(), pa.Table.from_pylist([lone], REACTIONS))
