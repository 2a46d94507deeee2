"""Length-prefixed values come back as they were, and nothing else is taken for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.encoding import field, fields, number, number_in


@given(st.lists(st.none() | st.binary(max_size=40)))
def test_fields_come_back(values: list[bytes | None]) -> None:
    assert fields(b"".join(map(field, values))) == values


@given(st.none() | st.integers(-(2**63), 2**63 - 1))
def test_numbers_come_back(value: int | None) -> None:
    (found,) = fields(number(value))
    assert number_in(found) == value


@given(st.lists(st.binary(min_size=1, max_size=8), min_size=1), st.data())
def test_bytes_that_end_early_are_refused(values: list[bytes], data: st.DataObject) -> None:
    encoded = b"".join(map(field, values))
    ends = {0}
    for value in values:
        ends.add(max(ends) + 5 + len(value))
    cut = data.draw(st.sampled_from(sorted(set(range(len(encoded))) - ends)))
    with pytest.raises(ValueError, match="field"):
        fields(encoded[:cut])


@pytest.mark.parametrize("data", [b"\x02\x00\x00\x00\x00", b"\xff" * 8])
def test_what_is_no_field_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="field"):
        fields(data)


def test_a_number_has_eight_bytes() -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        number_in(b"1234")
