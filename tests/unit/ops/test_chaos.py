"""What chaos plans, and where its proxy sees the end of a request."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.moves import MOVES
from ops.chaos.proxy import Harm, Protocol, Requests
from ops.chaos.trials import PHASES, Fate, one_per_kind, spread_over, trials, wire_trials

STEPS = ["unit changed", "file put", "file put", "unit changed"]
chunks = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def test_each_step_meets_each_fate_once() -> None:
    found = list(trials(PHASES[0], STEPS))
    assert len(found) == len(set(found)) == len(STEPS) * len(Fate)
    assert {(one.step, one.nth) for one in found} == {(step, nth) for step in STEPS for nth in (1, 2)}


def test_a_quick_look_has_one_of_each_kind() -> None:
    found = one_per_kind(list(trials(PHASES[0], STEPS)))
    assert [(one.step, one.nth) for one in found if one.fate is Fate.KILLED_AFTER] == [(s, 1) for s in STEPS[:2]]


def test_the_phases_are_a_week_s_life() -> None:
    assert [phase.days for phase in PHASES] == sorted(phase.days for phase in PHASES)
    assert [phase.job for phase in PHASES].count("move") == len(MOVES)
    assert all(after.job == "drop" for before, after in pairwise(PHASES) if before.job == "move")


@given(st.integers(0, 500), st.integers(1, 100))
def test_what_is_chosen_is_spread_evenly(count: int, at_most: int) -> None:
    chosen = spread_over(count, at_most)
    assert len(chosen) == min(count, at_most)
    assert all(1 <= number <= count for number in chosen)
    gaps = [b - a for a, b in pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert not chosen or chosen[-1] == count


def test_every_reply_is_lost_once() -> None:
    found = list(wire_trials(PHASES[0], {Protocol.CQL: 5, Protocol.KAFKA: 0}, 24))
    assert [one.nth for one in found if one.harm is Harm.REPLY_LOST] == [1, 2, 3, 4, 5]
    assert {one.harm for one in found} == set(Harm)


def frame(opcode: int, body: bytes) -> bytes:
    return struct.pack(">BBhBI", 5, 0, 1, opcode, len(body)) + body


def segment(payload: bytes, header_bytes: int) -> bytes:
    return len(payload).to_bytes(3, "little").ljust(header_bytes, b"\0") + payload + bytes(4)


def http(body: bytes) -> bytes:
    return b"PUT /x HTTP/1.1\r\nContent-Length: %d\r\nHost: a\r\n\r\n" % len(body) + body


MESSAGES = {
    "kafka": (Protocol.KAFKA, [struct.pack(">i", size) + bytes(size) for size in (0, 1, 300)]),
    "http": (Protocol.HTTP, [http(b""), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", http(b"x\r\n\r\ny" * 20)]),
    "cql": (Protocol.CQL, [frame(5, b""), frame(1, b"plain"), segment(b"ab" * 60, 6), segment(b"", 6)]),
    "cql, compressed": (Protocol.CQL, [frame(5, b""), frame(1, b"COMPRESSION"), segment(b"ab" * 60, 8)]),
}


@pytest.mark.parametrize("name", MESSAGES)
@given(sizes=chunks)
def test_requests_are_cut_where_they_end(name: str, sizes: list[int]) -> None:
    """However the network cuts them."""
    protocol, messages = MESSAGES[name]
    requests, data = Requests(protocol), b"".join(messages)
    found: list[bytes] = []
    while data:
        size, *sizes = [*sizes, 7]
        found += requests.cut(data[:size])
        data = data[size:]
    assert found == messages
