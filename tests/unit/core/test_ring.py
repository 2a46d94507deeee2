"""The ring: cuts are whole, and our token is the driver's token."""

from itertools import pairwise

import numpy as np
import pytest
from cassandra.metadata import Murmur3Token
from hypothesis import given
from hypothesis import strategies as st

from core import ring
from tests.strategies import tokens

cuts = st.integers(0, 12).map(lambda power: 2**power)
small_cuts = st.integers(0, 6).map(lambda power: 2**power)


@given(st.binary(min_size=16, max_size=16))
def test_a_token_is_cassandras(key: bytes) -> None:
    assert ring.token(key) == Murmur3Token.from_key(key).value


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20))
def test_tokens_of_a_column_are_those_of_its_keys(keys: list[bytes]) -> None:
    column = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
    assert ring.tokens(column).tolist() == [ring.token(key) for key in keys]


def test_the_smallest_token_of_a_column_is_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "_hash", lambda k1, _: k1 * 0 + 2**63)
    assert ring.token(bytes(16)) == ring.LAST
    assert ring.tokens(np.zeros((2, 16), np.uint8)).tolist() == [ring.LAST] * 2


@pytest.mark.parametrize("shape", [(16,), (2, 15), (2, 17)])
def test_only_a_column_of_conversation_ids_has_tokens(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        ring.tokens(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("size", [0, 15, 17])
def test_only_a_conversation_id_has_a_token(size: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        ring.token(bytes(size))


@given(cuts)
def test_a_cut_is_contiguous_and_whole(parts: int) -> None:
    ranges = [ring.cut(part, parts) for part in range(parts)]
    assert ranges[0].start == ring.FIRST
    assert ranges[-1].end == ring.LAST
    assert all(one.end == two.start for one, two in pairwise(ranges))
    assert sum(one.end - one.start for one in ranges) == ring.RING - 1


@given(tokens | st.sampled_from([ring.FIRST + 1, -1, 0, 1, ring.LAST]), cuts)
def test_part_of_agrees_with_cut(token: int, parts: int) -> None:
    part = ring.part_of(token, parts)
    assert token in ring.cut(part, parts)


@given(st.lists(tokens | st.sampled_from([ring.FIRST + 1, -1, 0, 1, ring.LAST]), max_size=20), cuts)
def test_parts_of_a_column_are_those_of_its_tokens(column: list[int], parts: int) -> None:
    assert ring.parts_of(np.array(column, np.int64), parts).tolist() == [ring.part_of(one, parts) for one in column]


@given(cuts, st.data())
def test_the_edges_of_a_part_belong_to_one_part(parts: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, parts - 1))
    edge = ring.cut(part, parts).end
    assert ring.part_of(edge, parts) == part
    assert edge == ring.LAST or ring.part_of(edge + 1, parts) == part + 1


@given(tokens, small_cuts, small_cuts)
def test_a_shard_lies_in_its_slice(token: int, slices: int, shards: int) -> None:
    slice_, shard = ring.part_of(token, slices), ring.shard_of(token, slices, shards)
    span, whole = ring.shard_range(slice_, slices, shard, shards), ring.cut(slice_, slices)
    assert token in span
    assert whole.start <= span.start < span.end <= whole.end


@pytest.mark.parametrize(("part", "parts"), [(0, 0), (0, 3), (4, 4), (-1, 4), (0, -2)])
def test_a_part_that_is_none_is_an_error(part: int, parts: int) -> None:
    with pytest.raises(ValueError, match="no part"):
        ring.cut(part, parts)


@given(st.integers(0, 7), st.integers(1, 9), tokens)
def test_a_range_is_split_into_parts_that_are_it(part: int, parts: int, token: int) -> None:
    whole = ring.cut(part, 8)
    split = ring.split(whole, parts)
    assert (split[0].start, split[-1].end) == (whole.start, whole.end)
    assert [token in one for one in split].count(True) == (token in whole)
