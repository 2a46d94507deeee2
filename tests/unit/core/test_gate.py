"""The gate opens only when every partition is read up to its end by a consumer that knew the route."""

from hypothesis import given
from hypothesis import strategies as st

from core import gate
from core.gate import PartitionState, blocking

OFFSETS = st.integers(0, 20)
ROUTES = st.integers(0, 5)
states = st.builds(
    PartitionState,
    topic=st.sampled_from(["messages.us.direct", "messages.us.group"]),
    partition=st.integers(0, 3),
    start=OFFSETS,
    end=OFFSETS,
    committed=st.none() | OFFSETS,
    route=st.none() | ROUTES,
)


def passes(state: PartitionState, route: int) -> bool:
    """The rule once more, as the design words it."""
    if state.committed is None or state.route is None:
        return False
    return state.committed >= state.start and state.committed >= state.end and state.route >= route


@given(st.lists(states, min_size=1, max_size=8), ROUTES)
def test_one_sentence_per_partition_that_does_not_pass(found: list[PartitionState], route: int) -> None:
    sentences = blocking(found, route)
    shut = [state for state in found if not passes(state, route)]
    assert len(sentences) == len(shut)
    for sentence, state in zip(sentences, shut, strict=True):
        assert sentence.startswith(f"{state.topic}/{state.partition}: ")


@given(st.lists(states, min_size=1, max_size=8), ROUTES)
def test_a_higher_route_never_opens_a_shut_gate(found: list[PartitionState], route: int) -> None:
    assert len(blocking(found, route + 1)) >= len(blocking(found, route))


@given(states, st.integers(1, 20), ROUTES)
def test_a_gap_is_named_with_its_offsets(state: PartitionState, width: int, route: int) -> None:
    committed = state.committed or 0
    broken = PartitionState(state.topic, state.partition, committed + width, state.end, committed, route)
    (sentence,) = blocking([broken], route)
    assert "log was truncated before it was read" in sentence
    assert f"offsets {committed}..{committed + width - 1} are gone" in sentence


def test_no_partition_proves_nothing() -> None:
    assert blocking([], 0)


@given(ROUTES)
def test_a_route_comes_back_from_its_metadata(route: int) -> None:
    assert gate.route_in(gate.metadata(route)) == route


@given(
    st.none() | st.text(max_size=30) | st.sampled_from(['{"route": true}', '{"route": "3"}', "[1]", "7", "null", "{}"])
)
def test_other_metadata_has_no_route(text: str | None) -> None:
    assert gate.route_in(text) is None
