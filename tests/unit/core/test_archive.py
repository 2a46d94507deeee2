"""The price of freezing and of bringing back, and when a restored copy goes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.archive import (
    CLASSES,
    GIB,
    KIB,
    MAX_DAYS,
    FreezeVerdict,
    Speed,
    copies_dollars,
    early_deletion_dollars,
    expires_at,
    freeze_verdict,
    is_archive,
    money,
    named,
    restore_quote,
    retrieval,
    sized,
)
from core.errors import RefusedError
from tests.strategies import instants

MIB = 1024 * KIB
ARCHIVES = [name for name in CLASSES if is_archive(name)]
OFFERED = [(name, speed) for name in ARCHIVES for speed in CLASSES[name].retrievals]
classes = st.sampled_from(sorted(CLASSES))
sizes = st.integers(0, 2**40)
months = st.integers(0, 240)


def test_two_classes_are_archives() -> None:
    assert ARCHIVES == ["GLACIER", "DEEP_ARCHIVE"]
    assert not is_archive("INTELLIGENT_TIERING")


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "STANDARD_IA"])
def test_a_large_file_pays_and_a_small_one_does_not(storage_class: str) -> None:
    assert freeze_verdict([256 * MIB], storage_class, 24).pays
    assert not freeze_verdict([10 * KIB], storage_class, 24).pays


@pytest.mark.parametrize(
    ("size", "over", "pays"),
    [(2.6 * MIB, 1, True), (1.5 * MIB, 1, False), (280 * KIB, 12, True), (150 * KIB, 12, False)],
)
def test_deep_archive_breaks_even_near_the_published_sizes(size: float, over: int, pays: bool) -> None:
    """2.4 MB in a month and 208 KB in a year, where the index costs no PUT: ours does, a tenth more."""
    assert freeze_verdict([int(size)], "DEEP_ARCHIVE", over).pays is pays


def test_the_cost_is_the_sum_of_its_parts() -> None:
    verdict = freeze_verdict([GIB, 100 * KIB], "GLACIER", 10)
    overhead = 2 * (32 * KIB * 0.0036 + 8 * KIB * 0.023) * 10 / GIB
    assert verdict.costs_dollars == pytest.approx(2 * (0.03 + 0.005) / 1000 + overhead)
    assert verdict.saves_dollars == pytest.approx((GIB + 100 * KIB) / GIB * (0.023 - 0.0036) * 10)
    billed_but_not_there = (128 - 100) * KIB * 0.004 * 10 / GIB
    instant = freeze_verdict([GIB, 100 * KIB], "GLACIER_IR", 10)
    assert instant.costs_dollars == pytest.approx(2 * (0.02 + 0.005) / 1000 + billed_but_not_there)


def test_nothing_and_standard_never_pay() -> None:
    assert not freeze_verdict([], "GLACIER", 240).pays
    assert not freeze_verdict([GIB], "STANDARD", 240).pays


def test_the_sentence_has_the_figures() -> None:
    one = FreezeVerdict(1, 12_595, 24, 0.0000712, 0.00000569)
    assert one.sentence == ("freezing 1 object of 12.3 KiB costs $0.000071 and saves $0.0000057 over 24 months")
    many = FreezeVerdict(2, 3 * GIB, 1, 0.5, 1774)
    assert many.sentence == ("freezing 2 objects of 3.0 GiB together costs $0.50 and saves $1,774.00 over 1 month")


@given(classes, st.lists(sizes, min_size=1, max_size=4), st.integers(0, 2**40), months)
def test_a_larger_object_saves_no_less_and_pays_no_later(
    storage_class: str, before: list[int], more: int, over: int
) -> None:
    small = freeze_verdict(before, storage_class, over)
    large = freeze_verdict([before[0] + more, *before[1:]], storage_class, over)
    assert large.saves_dollars >= small.saves_dollars
    assert large.costs_dollars <= small.costs_dollars
    assert large.pays or not small.pays


@given(classes, st.lists(sizes, max_size=4), months, months)
def test_a_longer_stay_saves_no_less_and_pays_no_later(
    storage_class: str, held: list[int], over: int, more: int
) -> None:
    short, long = (freeze_verdict(held, storage_class, length) for length in (over, over + more))
    assert long.saves_dollars >= short.saves_dollars
    assert long.costs_dollars >= short.costs_dollars
    assert long.pays or not short.pays


@given(classes, st.lists(sizes, max_size=4), st.lists(sizes, max_size=4), months)
def test_verdicts_add_up(storage_class: str, these: list[int], those: list[int], over: int) -> None:
    parts = [freeze_verdict(held, storage_class, over) for held in (these, those)]
    whole = freeze_verdict(these + those, storage_class, over)
    assert whole.costs_dollars == pytest.approx(sum(part.costs_dollars for part in parts), rel=1e-9, abs=1e-15)
    assert whole.saves_dollars == pytest.approx(sum(part.saves_dollars for part in parts), rel=1e-9, abs=1e-15)


def test_an_unknown_class_is_refused_with_the_known_ones() -> None:
    for call in (
        lambda: freeze_verdict([1], "ICE", 1),
        lambda: restore_quote([1], "ICE", Speed.BULK),
        lambda: named("glacier"),
    ):
        with pytest.raises(RefusedError, match="STANDARD, STANDARD_IA, GLACIER_IR, GLACIER, DEEP_ARCHIVE"):
            call()


def test_the_worked_example_of_re_post() -> None:
    """15 million objects, 100 TB: $1,774 at standard speed; the requests alone are $150,000 when expedited."""
    request = restore_quote([0], "GLACIER", Speed.STANDARD).dollars
    size = restore_quote([100 * 1024 * GIB], "GLACIER", Speed.STANDARD).dollars - request
    assert 15_000_000 * request + size == pytest.approx(1774)
    assert 15_000_000 * restore_quote([0], "GLACIER", Speed.EXPEDITED).dollars == pytest.approx(150_000)


@pytest.mark.parametrize(
    ("storage_class", "speed", "wait"),
    [
        ("GLACIER", Speed.EXPEDITED, timedelta(minutes=5)),
        ("GLACIER", Speed.STANDARD, timedelta(hours=5)),
        ("GLACIER", Speed.BULK, timedelta(hours=12)),
        ("DEEP_ARCHIVE", Speed.STANDARD, timedelta(hours=12)),
        ("DEEP_ARCHIVE", Speed.BULK, timedelta(hours=48)),
    ],
)
def test_a_quote_tells_the_wait(storage_class: str, speed: Speed, wait: timedelta) -> None:
    assert restore_quote([GIB], storage_class, speed).ready_after == wait


@given(st.sampled_from(OFFERED), st.lists(sizes, max_size=4), sizes)
def test_a_quote_grows_with_what_is_asked(offered: tuple[str, Speed], held: list[int], more: int) -> None:
    assert restore_quote([*held, more], *offered).dollars >= restore_quote(held, *offered).dollars


@pytest.mark.parametrize("storage_class", ARCHIVES)
def test_faster_is_dearer(storage_class: str) -> None:
    by_wait = sorted(CLASSES[storage_class].retrievals, key=lambda speed: retrieval(storage_class, speed).delay)
    prices = [restore_quote([256 * MIB], storage_class, speed).dollars for speed in by_wait]
    assert prices == sorted(prices, reverse=True)
    assert len(set(prices)) == len(prices)


def test_a_speed_that_is_not_offered_is_refused() -> None:
    with pytest.raises(RefusedError, match="choose standard or bulk"):
        restore_quote([1], "DEEP_ARCHIVE", Speed.EXPEDITED)
    with pytest.raises(RefusedError, match="nothing has to be restored"):
        restore_quote([1], "GLACIER_IR", Speed.BULK)


def test_copies_cost_standard_while_they_stay() -> None:
    assert copies_dollars([GIB, GIB], 15) == pytest.approx(0.023)


def test_a_copy_goes_at_midnight() -> None:
    """The user guide's example: ready on 15 October 10:30 for three days, gone on 19 October 0:00."""
    assert expires_at(datetime(2012, 10, 15, 10, 30, tzinfo=UTC), 3) == datetime(2012, 10, 19, tzinfo=UTC)
    assert expires_at(datetime(2012, 10, 15, tzinfo=UTC), 3) == datetime(2012, 10, 18, tzinfo=UTC)


@given(instants, st.integers(1, MAX_DAYS))
def test_a_copy_stays_its_days_and_less_than_one_more(ready_at: datetime, days: int) -> None:
    gone = expires_at(ready_at, days)
    assert timedelta(days=days) <= gone - ready_at < timedelta(days=days + 1)
    assert gone.time().isoformat() == "00:00:00"
    assert gone.utcoffset() == timedelta()


@pytest.mark.parametrize("days", [0, -1, MAX_DAYS + 1])
def test_a_copy_stays_at_least_a_day_and_not_for_ever(days: int) -> None:
    with pytest.raises(RefusedError, match=f"{days} days"):
        expires_at(datetime(2012, 10, 15, tzinfo=UTC), days)


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (0.0, "$0"),
        (1774.0, "$1,774.00"),
        (0.5, "$0.50"),
        (0.0999, "$0.10"),
        (0.0123, "$0.012"),
        (0.0000712, "$0.000071"),
    ],
)
def test_money_keeps_two_digits(dollars: float, text: str) -> None:
    assert money(dollars) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (12_595, "12.3 KiB"), (3 * GIB, "3.0 GiB"), (2**41, "2.0 TiB")],
)
def test_sizes_are_for_people(size_bytes: int, text: str) -> None:
    assert sized(size_bytes) == text


def test_what_goes_early_is_billed_to_its_shortest_stay() -> None:
    monthly = 0.0036 + (32 * 0.0036 + 8 * 0.023) * KIB / GIB
    assert early_deletion_dollars(GIB, "GLACIER", timedelta()) == pytest.approx(3 * monthly)
    assert early_deletion_dollars(GIB, "GLACIER", timedelta(days=60)) == pytest.approx(monthly)
    assert early_deletion_dollars(1, "GLACIER_IR", timedelta(days=60)) == pytest.approx(0.004 * 128 * KIB / GIB)


@given(sizes, classes, st.timedeltas(timedelta(), timedelta(days=400)))
def test_what_stayed_long_enough_goes_for_nothing(size: int, storage_class: str, age: timedelta) -> None:
    is_early = age < timedelta(days=CLASSES[storage_class].minimum_days)
    assert (early_deletion_dollars(size, storage_class, age) > 0) is is_early
    assert early_deletion_dollars(size, "STANDARD", age) == early_deletion_dollars(size, "OTHER", age) == 0
