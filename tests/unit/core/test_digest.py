"""The digest: the same for the same rows in any order and split, another for any other."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import digest, ids
from core.digest import Digest, Tally
from core.overlay import Reaction, Row
from tests import strategies

GOLDEN = Path(__file__).parents[2] / "golden" / "digest.json"
C, M, E = bytes(range(16)), ids.compose(1_700_000_000_000_000, 1, 2), ids.compose(1_700_000_001_000_000, 3, 4)
WHEN = datetime(2026, 2, 28, 12, 42, 2, 7000, tzinfo=UTC)
FULL = Row(C, M, 7, 1, b"body", "ab12", E, E, False, WHEN, (Reaction(7, E, b"r"), Reaction(8, E, None)))
EXAMPLES = {
    "full": FULL,
    "nothing but a key": Row(C, M),
    "deleted": Row(C, M, sender_id=2**63 - 1, deleted=True, server_ts=WHEN),
    "empty values are not null": Row(C, M, sender_id=0, body=b"", media_ref=""),
    "before 1970": Row(C, M, server_ts=WHEN.replace(year=1969)),
}
some_rows = st.lists(strategies.rows, max_size=8)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_encoding_is_that_of_the_golden_file(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert golden["rows"].keys() == EXAMPLES.keys()
    assert digest.encode(EXAMPLES[name]).hex() == golden["rows"][name]["encoded"]
    assert str(digest.of_rows([EXAMPLES[name]])) == golden["rows"][name]["digest"]


def test_the_digest_of_all_examples_is_that_of_the_golden_file() -> None:
    found = digest.of_rows(EXAMPLES.values())
    assert {"rows": found.rows, "digest": str(found)} == json.loads(GOLDEN.read_text())["all"]


@given(some_rows.flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows))))
def test_any_order_gives_the_same(orders: tuple[list[Row], list[Row]]) -> None:
    assert digest.of_rows(orders[0]) == digest.of_rows(orders[1])


@given(some_rows, st.integers(0, 8))
def test_parts_add_up(rows: list[Row], at: int) -> None:
    assert digest.of_rows(rows[:at]) + digest.of_rows(rows[at:]) == digest.of_rows(rows)
    assert digest.of_rows(rows) + Digest() == digest.of_rows(rows)


@given(strategies.rows)
def test_a_row_twice_is_not_a_row(row: Row) -> None:
    assert digest.of_rows([row, row]) != digest.of_rows([row])
    assert digest.of_rows([row, row]).total != 0


def others(value: Any) -> list[Any]:
    """Values that differ from `value`, as little as can be."""
    match value:
        case None:
            return [b""]
        case bool():
            return [not value]
        case bytes():
            return [value + b"\0", value[:-1], None]
        case str():
            return [value + "x", "", None]
        case int():
            return [value + 1, -value, None]
        case datetime():
            return [value + timedelta(microseconds=1), None]
        case _:
            raise AssertionError(value)


def other_reactions(value: tuple[Reaction, ...]) -> list[tuple[Reaction, ...]]:
    first, second = value
    changed = [
        replace(first, **{field.name: another})
        for field in fields(first)
        for another in others(getattr(first, field.name))
        if another is not None or field.name == "reaction"
    ]
    return [(), (first,), (second,), (second, first), *((another, second) for another in changed)]


@pytest.mark.parametrize("name", [field.name for field in fields(Row)])
def test_any_field_counts(name: str) -> None:
    value: Any = getattr(FULL, name)
    changes: list[Any] = other_reactions(value) if name == "reactions" else others(value)
    if name in ("conversation_id", "message_id"):
        changes.remove(None)
    found = {digest.encode(replace(FULL, **{name: change})) for change in changes}
    assert len(found) == len(changes) > 0
    assert digest.encode(FULL) not in found


@given(strategies.rows, strategies.rows)
def test_two_rows_never_share_an_encoding(a: Row, b: Row) -> None:
    assert (digest.encode(a) == digest.encode(b)) == (a == b)


@given(some_rows, st.integers(0, 8))
def test_a_tally_counts_what_went_through(rows: list[Row], taken: int) -> None:
    """Also when the reader stops early; what was not handed out is not counted."""
    tally = Tally()
    passing = tally.through(rows)
    passed = [row for row, _ in zip(passing, range(taken), strict=False)]
    passing.close()  # type: ignore[attr-defined]
    handed = rows[: min(taken + 1, len(rows))] if taken < len(rows) else rows
    assert passed == rows[:taken]
    assert tally.digest == digest.of_rows(handed)
    assert tally.size_bytes == sum(len(digest.encode(row)) for row in handed)


def test_it_prints_as_32_hex_digits() -> None:
    assert str(Digest(1, 255)) == f"{255:032x}"
