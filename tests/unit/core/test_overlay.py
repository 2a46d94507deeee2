"""Any order, split and repetition of the same events gives one row."""

from dataclasses import replace
from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids
from core.overlay import Reaction, Row, apply, canonical, cell_order, laid_over, merge, merge_all, row_of, visible
from schemas.events import Event, MessageDeleted, MessageEdited, MessageSent, ReactionSet
from tests import strategies

C = bytes(16)
M = ids.compose(5, 0, 0)
histories = strategies.crowded_events((b"\0", b"\1"))
shuffled = strategies.shuffled_in_chunks(histories)


def of_one_row(events: list[Event]) -> list[Row]:
    """The same history, as if it had all happened to one message."""
    return [replace(row_of(event), conversation_id=C, message_id=M) for event in events]


one_row = st.builds(of_one_row, histories)
some_row = st.builds(lambda partial: list(merge_all(partial).values()), one_row.filter(bool)).map(lambda rows: rows[0])


@given(some_row, some_row)
def test_merging_is_commutative(a: Row, b: Row) -> None:
    assert merge(a, b) == merge(b, a)


@given(some_row, some_row, some_row)
def test_merging_is_associative(a: Row, b: Row, c: Row) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(some_row, some_row)
def test_merging_again_changes_nothing(a: Row, b: Row) -> None:
    assert merge(a, a) == a
    assert merge(merge(a, b), b) == merge(a, b)
    assert canonical(a) == a


@given(shuffled)
def test_any_order_and_split_gives_the_same_rows(written: tuple[list[Event], list[list[Event]]]) -> None:
    events, chunks = written
    merged = [row for chunk in chunks for row in merge_all(map(row_of, chunk)).values()]
    assert merge_all(merged) == merge_all(map(row_of, events))


def cell(event_id: bytes, value: bytes | None) -> tuple[int, bytes]:
    """What Cassandra compares, said once more: the write timestamp, then the frozen tuple as it is stored."""
    timeuuid = ids.to_timeuuid(event_id).bytes
    stored = (-1).to_bytes(4, "big", signed=True) if value is None else len(value).to_bytes(4, "big") + value
    return ids.unix_us(event_id), (16).to_bytes(4, "big") + timeuuid + stored


@given(histories.filter(bool))
def test_the_row_is_what_the_events_say(events: list[Event]) -> None:
    """Held against a plainer reading of the rules."""
    here = [replace(event, conversation_id=C, message_id=M) for event in events]
    row = apply(Row(C, M), here)
    sent = [event for event in here if isinstance(event, MessageSent)]
    edits = [event for event in here if isinstance(event, MessageEdited)]
    reactions = [event for event in here if isinstance(event, ReactionSet)]
    assert row.deleted == any(isinstance(event, MessageDeleted) for event in here)
    assert row.is_message == bool(sent)
    editors = (event.user_id for event in edits)
    assert row.sender_id == max((event.sender_id for event in sent), default=max(editors, default=None))
    if row.deleted:
        assert (row.body, row.media_ref, row.edit_id, row.reactions) == (None, None, None, ())
        return
    if edits:
        latest = max(edits, key=lambda event: cell(event.event_id, event.body))
        assert (row.edit_id, row.body) == (latest.event_id, latest.body)
    else:
        assert row.edit_id is None
        assert row.body == max((event.body for event in sent if event.body is not None), default=None)
    by_user = {
        user: max((r for r in reactions if r.user_id == user), key=lambda r: cell(r.event_id, r.reaction))
        for user in sorted({reaction.user_id for reaction in reactions})
    }
    assert row.reactions == tuple(Reaction(user, r.event_id, r.reaction) for user, r in by_user.items())


@given(some_row, one_row)
def test_deleted_is_for_ever(row: Row, more: list[Row]) -> None:
    deleted = merge(row, Row(C, M, deleted=True))
    for partial in more:
        deleted = merge(deleted, partial)
        assert deleted.deleted
        assert (deleted.body, deleted.media_ref, deleted.edit_id, deleted.reactions) == (None, None, None, ())


EARLY, LATE = ids.compose(9, 0, 0), ids.compose(10, 0, 0)


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        ((LATE, b"a"), (EARLY, b"z")),
        ((ids.compose(9, 0, 1), b"a"), (EARLY, b"z")),
        ((EARLY, b"b"), (EARLY, b"a")),
        ((EARLY, b"ab"), (EARLY, b"b")),
        ((EARLY, b""), (EARLY, b"")),
        ((EARLY, None), (EARLY, b"z" * 9)),
    ],
)
def test_the_later_cell_wins_and_ties_go_by_the_stored_bytes(
    winner: tuple[bytes, bytes | None], loser: tuple[bytes, bytes | None]
) -> None:
    assert cell_order(*winner) >= cell_order(*loser)
    edited = merge(Row(C, M, edit_id=loser[0], body=loser[1]), Row(C, M, edit_id=winner[0], body=winner[1]))
    assert (edited.edit_id, edited.body) == winner
    reacted = merge(*(Row(C, M, reactions=(Reaction(7, *value),)) for value in (winner, loser)))
    assert reacted.reactions == (Reaction(7, *winner),)


def test_an_edit_hides_the_first_body_whenever_it_came() -> None:
    message, edit = Row(C, M, 1, 0, b"first"), Row(C, M, 9, edit_id=EARLY, body=b"second")
    assert merge(message, edit) == merge(edit, message) == Row(C, M, 1, 0, b"second", edit_id=EARLY)


def test_an_edit_alone_has_its_author_and_a_message_its_own_sender() -> None:
    edit, other = Row(C, M, 9, edit_id=LATE, body=b"x"), Row(C, M, 2, edit_id=EARLY, body=b"y")
    assert merge(edit, other).sender_id == 9
    assert not merge(edit, other).is_message
    assert merge(edit, Row(C, M, deleted=True)) == Row(C, M, 9, deleted=True)
    for order in permutations([edit, other, Row(C, M, 1, 0, b"first")]):
        assert reduce(merge, order) == Row(C, M, 1, 0, b"x", edit_id=LATE)


@given(histories, histories)
def test_laying_over_is_merging(events: list[Event], amendments: list[Event]) -> None:
    rows, over = merge_all(map(row_of, events)), merge_all(map(row_of, amendments))
    laid = list(laid_over(rows.values(), over))
    assert {row.key: row for row in laid} == merge_all([*rows.values(), *over.values()])
    assert [row.key for row in laid] == [*rows, *(key for key in over if key not in rows)]


@given(histories)
def test_people_see_messages_that_stand(events: list[Event]) -> None:
    rows = merge_all(map(row_of, events)).values()
    seen = list(visible(rows))
    assert [row.key for row in seen] == [row.key for row in rows if row.message_type is not None and not row.deleted]
    assert all(reaction.reaction is not None for row in seen for reaction in row.reactions)
    kept = {(row.key, reaction) for row in seen for reaction in row.reactions}
    assert kept == {(r.key, n) for r in rows if r.is_message for n in r.reactions if n.reaction is not None}
