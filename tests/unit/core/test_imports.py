"""The rules of an import: whose column is whose, what goes where, which rows are the same."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core import imports, weeks
from core.errors import RefusedError
from core.imports import CONFLICT, KEPT, MARK, NEVER_EDITED, REPEATED, Destination, judged
from core.moves import COLD_FROZEN, HOT_WARM, WARM_COLD, State, Unit, born_cold
from core.settings import Tiers

PLAIN = imports.parse_map([])
NOW = datetime(2026, 3, 2, tzinfo=UTC)
WEEK = weeks.of_instant(NOW)
GOOD: dict[str, pa.DataType] = {
    "conversation": pa.string(),
    "sender": pa.int32(),
    "sent_at": pa.timestamp("ms"),
    "body": pa.binary(),
}
REACTION: dict[str, pa.DataType] = {"user": pa.int64(), "reaction": pa.string(), "at": pa.timestamp("us", "UTC")}


def schema(**changes: pa.DataType | None) -> pa.Schema:
    chosen: Mapping[str, pa.DataType | None] = GOOD | changes
    return pa.schema({name: kind for name, kind in chosen.items() if kind is not None})


def reactions(**changes: pa.DataType | None) -> pa.DataType:
    fields: Mapping[str, pa.DataType | None] = REACTION | changes
    return pa.list_(pa.struct([pa.field(name, kind) for name, kind in fields.items() if kind is not None]))


def test_columns_keep_their_names_or_are_mapped() -> None:
    found = imports.parse_map(["conversation=stream+topic", "id=source_id"])
    assert found.theirs["conversation"] == ("stream", "topic")
    assert found.theirs["id"] == ("source_id",)
    assert found.theirs["sender"] == ("sender",)
    assert imports.used(["stream", "topic", "sender", "other"], found) == {
        "conversation": ("stream", "topic"),
        "sender": ("sender",),
    }


def test_a_map_is_spelled_in_one_way() -> None:
    """It is part of an import's name."""
    assert str(imports.parse_map(["id=x", "body=y"])) == str(imports.parse_map(["body=y", "id=x", "sender=sender"]))
    assert str(imports.parse_map(["id=x"])) != str(imports.parse_map(["id=y"]))


@pytest.mark.parametrize(
    ("specs", "faults"),
    [
        (["sender"], ["'sender' is not ours=theirs"]),
        (["sender="], ["'sender=' is not ours=theirs"]),
        (["conversation=a+"], ["'conversation=a+' is not ours=theirs"]),
        (["author=x"], ["'author' is no column"]),
        (["id=a", "id=b"], ["id is mapped twice"]),
        (["sender=a+b"], ["sender cannot be joined"]),
        (["author=x", "sender"], ["'author' is no column", "'sender' is not"]),
    ],
)
def test_every_fault_of_a_map_is_told(specs: list[str], faults: list[str]) -> None:
    with pytest.raises(RefusedError) as refused:
        imports.parse_map(specs)
    assert all(fault in refused.value.what for fault in faults)


@pytest.mark.parametrize(
    "good",
    [
        schema(),
        schema(body=None, body_bytes=pa.int64()),
        schema(conversation=pa.int64(), id=pa.large_string(), media=pa.list_(pa.int32())),
        schema(conversation=pa.binary(16), body=pa.string_view()),
        schema(conversation=pa.dictionary(pa.int32(), pa.string()), media=pa.large_list(pa.string())),
        schema(sender=pa.uint64(), sent_at=pa.timestamp("ns", "Europe/Vienna")),
        schema(id=pa.null(), media=pa.null(), edited_at=pa.null(), deleted=pa.null(), reactions=pa.null()),
        schema(edited_at=pa.timestamp("s"), deleted=pa.bool_(), reactions=reactions()),
        schema(reactions=reactions(at=None, reaction=pa.binary())),
        schema(other=pa.float64()),
    ],
)
def test_good_columns(good: pa.Schema) -> None:
    assert imports.wrong_columns(good, PLAIN) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (schema(sender=None), "sender is missing"),
        (schema(body=None), "body is missing, and so is body_bytes"),
        (schema(sender=pa.float64()), "sender is double, not a 64-bit number"),
        (schema(sender=pa.null()), "sender is null"),
        (schema(sent_at=pa.string()), "sent_at is string, not an instant"),
        (schema(sent_at=pa.date32()), "sent_at is date32"),
        (schema(conversation=pa.float32()), "conversation is float"),
        (schema(body=pa.int64()), "body is int64"),
        (schema(body_bytes=pa.float64()), "body_bytes is double"),
        (schema(id=pa.binary()), "id is binary"),
        (schema(media=pa.list_(pa.list_(pa.string()))), "media is list"),
        (schema(edited_at=pa.int64()), "edited_at is int64"),
        (schema(deleted=pa.int8()), "deleted is int8"),
        (schema(reactions=pa.list_(pa.string())), "reactions is list"),
        (schema(reactions=reactions(user=None)), "reactions is list"),
        (schema(reactions=reactions(user=pa.string())), "reactions is list"),
        (schema(reactions=reactions(at=pa.string())), "reactions is list"),
        (pa.schema([*schema(), pa.field("sender", pa.int64())]), "sender is there twice"),
    ],
)
def test_a_wrong_column_is_told(wrong: pa.Schema, told: str) -> None:
    (found,) = imports.wrong_columns(wrong, PLAIN)
    assert told in found


def test_all_wrong_columns_are_told_at_once() -> None:
    without = schema(conversation=None, sender=None, sent_at=None, body=pa.int8(), id=pa.bool_())
    assert len(imports.wrong_columns(without, PLAIN)) == 5


def test_what_a_person_named_must_be_there() -> None:
    named = imports.parse_map(["media=files", "conversation=a+b", "body_bytes=size"])
    found = imports.wrong_columns(schema(), named)
    assert "files is missing (for media)" in found
    assert "a is missing (for conversation)" in found
    assert "size is missing (for body_bytes)" in found
    joined = schema(conversation=None, a=pa.float64(), b=pa.int8(), files=pa.string(), size=pa.int8())
    assert imports.wrong_columns(joined, named) == [f"a is double, not {imports.KINDS['conversation']}"]


# Where a week's rows go


def at_rest(move: Any, state: State) -> Unit:
    return Unit("us", WEEK, 0, move=move, state=state)


@pytest.mark.parametrize(
    ("unit", "first_week", "to"),
    [
        (at_rest(HOT_WARM, State.OPEN), WEEK, Destination.KAFKA),
        (at_rest(HOT_WARM, State.SEALED), WEEK, Destination.KAFKA),
        (at_rest(WARM_COLD, State.VERIFIED), WEEK, Destination.KAFKA),
        (at_rest(WARM_COLD, State.SWITCHED), WEEK, Destination.RUNS),
        (at_rest(WARM_COLD, State.DROPPED), WEEK, Destination.RUNS),
        (at_rest(COLD_FROZEN, State.DROPPED), WEEK, Destination.RUNS),
        (born_cold("us", WEEK, 0), WEEK, Destination.RUNS),
        (None, WEEK + 1, Destination.RUNS),
        (None, WEEK, None),
        (None, WEEK - 1, None),
        (None, None, None),
    ],
)
def test_the_ledger_says_where_a_week_goes(unit: Unit | None, first_week: int | None, to: Destination | None) -> None:
    assert imports.destination(WEEK, unit, first_week, NOW, Tiers()) is to


@given(st.integers(0, 200))
def test_before_a_region_has_begun_age_decides(age_weeks: int) -> None:
    is_cold = NOW - weeks.end(WEEK - age_weeks) >= timedelta(days=Tiers().warm_days)
    expected = Destination.RUNS if is_cold else None
    assert imports.destination(WEEK - age_weeks, None, None, NOW, Tiers()) is expected


# Which rows are the same


def mark(line: int, key: int, content: int, **facts: Any) -> NDArray[np.void]:
    one = np.zeros(1, MARK)
    one["line"], one["key0"], one["content0"], one["has_id"], one["edited_us"] = line, key, content, True, NEVER_EDITED
    for name, value in facts.items():
        one[name] = value
    return one


def verdicts(*marks: NDArray[np.void]) -> dict[int, int]:
    found, judgement = judged(np.concatenate([np.zeros(0, MARK), *marks]))
    return dict(zip(found["line"].tolist(), judgement.tolist(), strict=True))


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([], []),
        ([mark(1, 7, 7)], [KEPT]),
        ([mark(1, 7, 7), mark(2, 8, 7)], [KEPT, KEPT]),
        ([mark(1, 7, 7), mark(2, 7, 7, key1=1)], [KEPT, KEPT]),
        ([mark(1, 7, 7), mark(2, 7, 7), mark(3, 7, 7)], [KEPT, REPEATED, REPEATED]),
        ([mark(1, 7, 7), mark(2, 7, 8)], [CONFLICT, CONFLICT]),
        ([mark(1, 7, 7), mark(2, 7, 7, content1=1)], [CONFLICT, CONFLICT]),
        ([mark(1, 7, 7), mark(2, 7, 7), mark(3, 7, 8), mark(4, 8, 8)], [CONFLICT, CONFLICT, CONFLICT, KEPT]),
        # versions: edited at another time
        ([mark(1, 7, 7), mark(2, 7, 8, edited_us=5)], [KEPT, KEPT]),
        ([mark(1, 7, 7), mark(2, 7, 8, edited_us=5), mark(3, 7, 9, edited_us=6)], [KEPT, KEPT, KEPT]),
        ([mark(1, 7, 7), mark(2, 7, 8, edited_us=5), mark(3, 7, 8, edited_us=5)], [KEPT, KEPT, REPEATED]),
        ([mark(1, 7, 7), mark(2, 7, 8, edited_us=5), mark(3, 7, 9, edited_us=5)], [CONFLICT] * 3),
        ([mark(1, 7, 7), mark(2, 7, 8, edited_us=5, person=1)], [CONFLICT, CONFLICT]),
        ([mark(1, 7, 7), mark(2, 7, 8, edited_us=5, sent_us=1)], [CONFLICT, CONFLICT]),
        ([mark(1, 7, 7), mark(2, 7, 8, edited_us=5, media=1)], [CONFLICT, CONFLICT]),
        # without an id: numbered
        ([mark(n, 7, 7, has_id=False) for n in (1, 2, 3)], [0, 1, 2]),
        ([mark(1, 7, 7, has_id=False), mark(2, 8, 8, has_id=False)], [0, 0]),
    ],
)
def test_verdicts(marks: list[NDArray[np.void]], expected: list[int]) -> None:
    assert verdicts(*marks) == dict(enumerate(expected, 1))


few = st.integers(0, 2)
marks_of_few = st.lists(
    st.builds(
        lambda key, content, edited, person, has_id: (
            mark(0, key, content, edited_us=edited, person=person)
            if has_id
            else mark(0, 100 + content, content, has_id=False)
        ),
        few,
        few,
        st.sampled_from([NEVER_EDITED, 1, 2]),
        st.sampled_from([0, 0, 0, 1]),
        st.booleans(),
    ),
    max_size=12,
)


@given(marks_of_few.flatmap(lambda marks: st.tuples(st.just(marks), st.permutations(range(len(marks))))))
def test_the_order_of_rows_decides_only_which_of_equal_ones_is_kept(case: tuple[list[Any], list[int]]) -> None:
    marks, order = case

    def outcome(numbers: list[int]) -> list[tuple[Any, int]]:
        for line, number in enumerate(numbers):
            marks[number]["line"] = line
        found, judgement = judged(np.concatenate([np.zeros(0, MARK), *(marks[number] for number in numbers)]))
        facts = [name for name in MARK.names or () if name != "line"]
        return sorted(zip(found[facts].tolist(), judgement.tolist(), strict=True))

    assert outcome(list(range(len(marks)))) == outcome(list(order))
