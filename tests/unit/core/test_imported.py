"""What an import makes of a row: ids that anybody can derive, and events that say what the row says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from core import ids, imported, imports, ndjson, ring, weeks
from core.imports import NEVER_EDITED
from core.intake import why_not
from core.overlay import Row, merge_all, row_of
from ops import sample
from schemas.events import decode, encode
from tests.strategies import texts, users

PLAIN = imports.parse_map([])
SOURCE = "archive"
SENT = datetime(2020, 1, 1, 0, 0, 0, 123_456, UTC)
ROW: dict[str, Any] = {"conversation": "a/b", "sender": 7, "sent_at": SENT.isoformat(), "body": "hi", "id": 5}


def batch(*rows: dict[str, Any]) -> Any:
    made = [ndjson.mapped_of(row, PLAIN.theirs) | {"line": line} for line, row in enumerate(rows, 1)]
    return imported.marked(ndjson.as_batch(made), SOURCE)


def canonical(*rows: dict[str, Any], occurrences: Sequence[int] = ()) -> list[Row]:
    numbers = np.array(occurrences or [0] * len(rows), np.int32)
    return list(imported.rows_of(batch(*rows), numbers, SOURCE))


def test_ids_are_those_that_anybody_would_derive() -> None:
    (row,) = canonical(ROW)
    assert row.conversation_id == ids.conversation_uuid(SOURCE, "a/b")
    assert row.message_id == ids.imported_id(SENT, SOURCE, "a/b", "5")
    assert row.server_ts == SENT.replace(microsecond=123_000)
    assert (row.sender_id, row.message_type, row.body, row.media_ref) == (7, 0, b"hi", None)


def test_the_sample_comes_to_the_same_ids() -> None:
    message = next(sample.messages(sample.LAST - timedelta(days=1), sample.LAST))
    numbered = next(row for row in sample._rows(message.server_ts, message.server_ts + timedelta(seconds=1)))
    names = imports.parse_map(["conversation=stream+topic", "id=source_id"])
    values = {"stream": numbered.stream, "topic": numbered.topic, "sender": numbered.sender, "body": "x"}
    record = values | {"sent_at": numbered.sent_at.isoformat(), "source_id": numbered.source_id}
    made = ndjson.as_batch([ndjson.mapped_of(record, names.theirs) | {"line": 1}])
    (row,) = imported.rows_of(imported.marked(made, sample.SOURCE), np.zeros(1, np.int32), sample.SOURCE)
    assert row.key in {one.key for one in map(row_of, sample.messages(message.server_ts, sample.LAST))}


def test_a_row_without_an_id_is_named_by_its_content_and_number() -> None:
    anonymous = {name: value for name, value in ROW.items() if name != "id"}
    rows = canonical(anonymous, anonymous, anonymous | {"body": "ho"}, occurrences=[0, 3, 0])
    content = batch(anonymous)["content"][0].as_py().hex()
    expected = [ids.imported_id(SENT, SOURCE, "a/b", f"{content}/{number}") for number in (0, 3)]
    assert [row.message_id for row in rows[:2]] == expected
    assert len({row.message_id for row in rows}) == 3


def test_an_edit_has_an_id_of_its_own_and_the_body() -> None:
    edited_at = SENT + timedelta(days=1)
    (row,) = canonical(ROW | {"edited_at": edited_at.isoformat()})
    assert row.edit_id == ids.imported_id(edited_at, SOURCE, "a/b", "5/edit")
    assert row.body == b"hi"


def test_a_deleted_row_keeps_who_and_when() -> None:
    full = ROW | {"media": "f", "edited_at": SENT.isoformat(), "reactions": [{"user": 1, "reaction": "+"}]}
    (row,) = canonical(full | {"deleted": True})
    assert (row.sender_id, row.message_type, row.deleted) == (7, 1, True)
    assert (row.body, row.media_ref, row.edit_id, row.reactions) == (None, None, None, ())


def test_of_several_reactions_of_one_person_the_latest_stands() -> None:
    later = (SENT + timedelta(hours=1)).isoformat()
    given_reactions = [{"user": 1, "reaction": "late", "at": later}, {"user": 1, "reaction": "early"}]
    (row,) = canonical(ROW | {"reactions": [*given_reactions, {"user": 0, "reaction": None}]})
    assert [(one.user_id, one.reaction) for one in row.reactions] == [(0, None), (1, b"late")]
    assert ids.instant(row.reactions[1].event_id) == SENT + timedelta(hours=1)
    assert ids.instant(row.reactions[0].event_id) == SENT


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_body_of_which_only_the_size_is_known_is_noise_that_anybody_can_make(size: int) -> None:
    sized = {name: value for name, value in ROW.items() if name != "body"} | {"body_bytes": size}
    (row,) = canonical(sized)
    assert row.body == (blake3(row.message_id).digest(size) if size else b"")
    (edited,) = canonical(sized | {"edited_at": SENT.isoformat()})
    assert edited.edit_id is not None
    assert size == 0 or edited.body == blake3(edited.edit_id).digest(size)


def test_every_value_is_part_of_the_content() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"conversation": "c"},
        {"sender": 8},
        {"sent_at": (SENT + timedelta(microseconds=1)).isoformat()},
        {"body": "ho"},
        {"body": ""},
        {"body": None},
        {"body": None, "body_bytes": 2},
        {"media": "hi"},
        {"body": "", "media": "hi"},
        {"edited_at": SENT.isoformat()},
        {"deleted": True},
        {"reactions": [{"user": 1, "reaction": "x"}]},
        {"reactions": [{"user": 1, "reaction": ""}]},
        {"reactions": [{"user": 1, "reaction": None}]},
        {"reactions": [{"user": 1, "reaction": "x", "at": 10**9}]},
    ]
    contents = batch(*(ROW | change for change in changes))["content"].to_pylist()
    assert len(set(contents)) == len(changes)
    others = [{"user": 2, "reaction": "y"}, {"user": 1, "reaction": "x"}]
    assert len(set(batch(ROW | {"reactions": others}, ROW | {"reactions": others[::-1]})["content"].to_pylist())) == 1
    assert len(set(batch(ROW, ROW | {"id": 6})["content"].to_pylist())) == 1


def test_marks_say_where_a_row_belongs_and_what_it_is() -> None:
    rows = batch(ROW, ROW | {"id": None, "edited_at": SENT.isoformat(), "media": "f"})
    marks = imported.marks_of(rows, 4)
    key = ids.conversation_uuid(SOURCE, "a/b")
    assert marks["slice"].tolist() == [ring.part_of(ring.token(key), 4)] * 2
    assert marks["week"].tolist() == [weeks.of_instant(SENT)] * 2
    assert marks["has_id"].tolist() == [True, False]
    assert marks["edited_us"].tolist()[0] == NEVER_EDITED
    assert marks["media"].tolist()[0] == 0 != marks["media"].tolist()[1]
    assert marks["line"].tolist() == [1, 2]
    assert imported.tokens_of(rows).tolist() == [ring.token(key)] * 2


def edited(row: dict[str, Any], when: datetime) -> dict[str, Any]:
    return row | {"edited_at": max(when, row["sent_at"])}


times = st.datetimes(datetime(1970, 1, 5), datetime(2026, 1, 1), timezones=st.just(UTC))
_dictionaries: Any = st.fixed_dictionaries
records = st.lists(
    _dictionaries(
        {"conversation": texts.filter(bool), "sender": users, "sent_at": times},
        optional={
            "body": texts,
            "body_bytes": st.integers(0, 100),
            "id": texts,
            "media": texts,
            "deleted": st.booleans(),
            "reactions": st.lists(st.fixed_dictionaries({"user": st.integers(0, 3), "reaction": st.none() | texts})),
        },
    ).flatmap(lambda row: st.just(row) | times.map(lambda when: row | {"edited_at": max(when, row["sent_at"])})),
    min_size=1,
    max_size=5,
)


def as_lines(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(row, default=lambda when: when.isoformat())) for row in rows]


@given(records)
def test_the_events_of_a_row_say_what_the_row_says_and_the_consumer_takes_them(rows: list[dict[str, Any]]) -> None:
    for row in canonical(*as_lines(rows)):
        events = list(imported.events_of(row))
        sent_us = ids.unix_us(row.message_id)
        assert [why_not(event, row.conversation_id, max(sent_us, 2**51)) for event in events] == [None] * len(events)
        through_the_log = [decode(encode(event)) for event in events]
        assert merge_all(map(row_of, reversed(through_the_log))) == {row.key: row}
        assert len({(event.event_id, event.user_id) for event in events}) == len(events)


def test_a_row_without_its_message_has_no_events() -> None:
    (row,) = canonical(ROW)
    with pytest.raises(ValueError, match="without its message"):
        next(imported.events_of(replace(row, sender_id=None)))


@given(records)
def test_what_goes_to_quarantine_can_be_imported_again(rows: list[dict[str, Any]]) -> None:
    first = batch(*as_lines(rows))
    again = batch(*(json.loads(imported.as_json(row)) for row in first.to_pylist()))
    for column in ("key", "content", "conversation_id"):
        assert first[column].to_pylist() == again[column].to_pylist()


def test_bytes_that_are_no_text_survive_quarantine() -> None:
    first = batch(ROW | {"body": {"base64": "/wA="}})
    line = imported.as_json(first.to_pylist()[0])
    assert batch(json.loads(line))["body"].to_pylist() == [b"\xff\x00"]


def test_an_id_that_the_source_gave_is_kept() -> None:
    key = bytes(range(16))
    made = [ndjson.mapped_of(ROW, PLAIN.theirs) | {"line": 1}]
    plain = ndjson.as_batch(made)
    at = plain.schema.get_field_index("conversation_id")
    given_id = plain.set_column(at, plain.schema.field(at), pa.array([key], pa.binary(16)))
    assert imported.marked(given_id, SOURCE)["conversation_id"].to_pylist() == [key]
