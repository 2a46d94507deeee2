"""Ids keep time order in our bytes, in Cassandra's TIMEUUID, and through both."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core import ids
from tests.strategies import clocks, instants, nodes, ordered_ids, texts

MICROSECONDS = st.integers(0, 2**51)


def timeuuid_order(value: UUID) -> tuple[int, tuple[int, ...]]:
    """Cassandra's TimeUUIDType: by timestamp, then by the low half as signed bytes."""
    return value.time, tuple(byte - 256 if byte > 127 else byte for byte in value.bytes[8:])


@given(MICROSECONDS, clocks, nodes)
def test_the_instant_comes_back(unix_us: int, clock: int, node: int) -> None:
    composed = ids.compose(unix_us, clock, node)
    assert ids.unix_us(composed) == unix_us
    assert ids.instant(composed) == ids.UNIX_EPOCH + timedelta(microseconds=unix_us)
    assert ids.is_ordered_id(composed)


@given(ordered_ids)
def test_a_timeuuid_says_the_same_and_comes_back(ordered: bytes) -> None:
    timeuuid = ids.to_timeuuid(ordered)
    assert timeuuid.version == 1
    assert timeuuid.variant == "specified in RFC 4122"
    assert ids.UNIX_EPOCH + timedelta(microseconds=(timeuuid.time - ids.GREGORIAN_TICKS) / 10) == ids.instant(ordered)
    assert ids.from_timeuuid(timeuuid) == ordered


@given(instants, st.integers(0, 2), clocks, nodes, clocks, nodes)
def test_byte_order_is_cassandras_order(
    when: datetime, later_us: int, clock: int, node: int, other_clock: int, other_node: int
) -> None:
    unix_us = (when - ids.UNIX_EPOCH) // timedelta(microseconds=1)
    one, two = ids.compose(unix_us, clock, node), ids.compose(unix_us + later_us, other_clock, other_node)
    assert (one < two) == (timeuuid_order(ids.to_timeuuid(one)) < timeuuid_order(ids.to_timeuuid(two)))
    assert later_us == 0 or one < two


@given(st.binary(max_size=20))
def test_what_is_no_ordered_id_is_not_taken_for_one(value: bytes) -> None:
    if ids.is_ordered_id(value):
        assert ids.from_timeuuid(ids.to_timeuuid(value)) == value


def test_one_wrong_bit_of_version_variant_or_order_shows() -> None:
    good = ids.compose(1_700_000_000_000_000, 5, 9)
    for place, bit in ((6, 0x10), (8, 0x40), (8, 0x80), *((place, 0x80) for place in range(9, 16))):
        bad = bytearray(good)
        bad[place] ^= bit
        assert not ids.is_ordered_id(bytes(bad)), (place, bit)


@given(instants, texts, texts, texts)
def test_an_imported_row_has_one_id(when: datetime, source: str, conversation: str, own: str) -> None:
    first = ids.imported_id(when, source, conversation, own)
    assert first == ids.imported_id(when, source, conversation, own)
    assert ids.instant(first) == when
    assert ids.is_ordered_id(first)
    assert ids.imported_id(when, source, conversation, own + "x") != first


@given(texts, texts)
def test_a_conversation_id_is_a_uuid_of_version_8(source: str, conversation: str) -> None:
    value = UUID(bytes=ids.conversation_uuid(source, conversation))
    assert (value.version, value.variant) == (8, "specified in RFC 4122")


def test_known_ids_never_change() -> None:
    when = datetime(2026, 2, 28, 12, 42, 2, tzinfo=UTC)
    assert ids.imported_id(when, "archive", "1/2", "3").hex() == "1f114a2e128c6900bc7c770a0e09647e"
    assert ids.conversation_uuid("archive", "1/2").hex() == "affd802ca69d8bd2b8aab1aba40587d2"
