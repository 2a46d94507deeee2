"""What is asked of a column follows from its declaration alone."""

import pyarrow as pa
import pytest

from quality.columns import LEAST, MOST, Column, Kind, declared
from schemas.tables import CANONICAL, FROZEN_MANIFEST


def field(name: str, kind: pa.DataType, tags: str) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"tags": tags})])


def test_every_declared_column_is_judged() -> None:
    assert [(column.name, column.kind, column.nullable) for column in declared()] == [
        ("conversation_id", Kind.UUID, False),
        ("message_id", Kind.ORDERED_ID, False),
        ("sender_id", Kind.OTHER, True),
        ("message_type", Kind.NUMBER, True),
        ("body", Kind.CONTENT, True),
        ("media_ref", Kind.CONTENT, True),
        ("reply_to", Kind.ORDERED_ID, True),
        ("edit_id", Kind.ORDERED_ID, True),
        ("deleted", Kind.OTHER, False),
        ("server_ts", Kind.OTHER, True),
        ("reactions.user_id", Kind.OTHER, False),
        ("reactions.event_id", Kind.ORDERED_ID, False),
        ("reactions.reaction", Kind.CONTENT, True),
    ]
    assert {column.name.partition(".")[0] for column in declared()} == set(CANONICAL.names)


def test_every_bound_has_its_column() -> None:
    columns = {column.name: column for column in declared()}
    assert {name: columns[name].most for name in MOST} == MOST
    assert {name: columns[name].least for name in LEAST} == LEAST


@pytest.mark.parametrize(
    ("kind", "tags"), [(pa.string(), "personal"), (pa.binary(), "ciphertext"), (pa.binary(), "subject,ciphertext")]
)
def test_content_without_a_bound_is_no_silent_column(kind: pa.DataType, tags: str) -> None:
    with pytest.raises(KeyError, match="caption"):
        declared(field("caption", kind, tags))


def test_a_new_id_needs_no_bound() -> None:
    assert declared(field("thread", pa.binary(), "personal")) == (Column("thread", Kind.ORDERED_ID, True),)
    assert declared(field("forwarded_id", pa.binary(), "ciphertext")) == (
        Column("forwarded_id", Kind.ORDERED_ID, True),
    )


def test_other_types_are_left_alone() -> None:
    numbers = pa.schema([column for column in FROZEN_MANIFEST if not pa.types.is_string(column.type)])
    assert {column.kind for column in declared(numbers)} == {Kind.OTHER}
