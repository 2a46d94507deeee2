"""What a storage class costs, whether it can be read at once, and how long the others wait: the price of freezing.

Dollars, Amazon S3 in us-east-1, as gathered in November 2026 from its price list, its user guide (archive retrieval
options) and AWS re:Post ("s3-manage-data-retrieval"); look them up again before a bill depends on them. A gigabyte is
2^30 bytes, as on the bill. The delays are the longest that the class promises.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum

from core.errors import RefusedError

KIB = 1024
GIB = 1024**3
DAYS_PER_MONTH = 30
MAX_DAYS = 3650
_DAY = timedelta(days=1)


class Speed(StrEnum):
    EXPEDITED = "expedited"
    STANDARD = "standard"
    BULK = "bulk"


@dataclass(frozen=True)
class Retrieval:
    """What bringing objects back costs and how long it takes."""

    delay: timedelta
    dollars_per_1000: float
    dollars_per_gib: float


@dataclass(frozen=True)
class StorageClass:
    """`minimum_bytes` are billed even for less; `overhead_bytes` come on top of each object, at the rate of this class,
    and `standard_overhead_bytes` at that of STANDARD; an object that goes before `minimum_days` is billed for them.
    """

    name: str
    is_readable_at_once: bool
    gib_month_dollars: float
    put_dollars_per_1000: float
    read_dollars_per_gib: float = 0.0
    minimum_bytes: int = 0
    minimum_days: int = 0
    overhead_bytes: int = 0
    standard_overhead_bytes: int = 0
    retrievals: Mapping[Speed, Retrieval] = field(default_factory=dict)


def _archive(
    name: str, gib_month_dollars: float, put_dollars: float, days: int, retrievals: Mapping[Speed, Retrieval]
) -> StorageClass:
    return StorageClass(
        name,
        False,
        gib_month_dollars,
        put_dollars,
        minimum_days=days,
        overhead_bytes=32 * KIB,
        standard_overhead_bytes=8 * KIB,
        retrievals=retrievals,
    )


STANDARD = StorageClass("STANDARD", True, 0.023, 0.005)
CLASSES = {
    one.name: one
    for one in (
        STANDARD,
        StorageClass("STANDARD_IA", True, 0.0125, 0.01, 0.01, minimum_bytes=128 * KIB, minimum_days=30),
        StorageClass("GLACIER_IR", True, 0.004, 0.02, 0.03, minimum_bytes=128 * KIB, minimum_days=90),
        _archive(
            "GLACIER",
            0.0036,
            0.03,
            90,
            {
                Speed.EXPEDITED: Retrieval(timedelta(minutes=5), 10.0, 0.03),
                Speed.STANDARD: Retrieval(timedelta(hours=5), 0.05, 0.01),
                Speed.BULK: Retrieval(timedelta(hours=12), 0.0, 0.0),
            },
        ),
        _archive(
            "DEEP_ARCHIVE",
            0.00099,
            0.05,
            180,
            {
                Speed.STANDARD: Retrieval(timedelta(hours=12), 0.10, 0.02),
                Speed.BULK: Retrieval(timedelta(hours=48), 0.025, 0.0025),
            },
        ),
    )
}


@dataclass(frozen=True)
class FreezeVerdict:
    """Over `months`, against leaving the same objects in STANDARD. `costs_dollars`: the PUT of each object and of its
    index, overhead, and bytes that are billed but not there.
    """

    objects: int
    size_bytes: int
    months: int
    costs_dollars: float
    saves_dollars: float

    @property
    def pays(self) -> bool:
        return self.saves_dollars > self.costs_dollars

    @property
    def sentence(self) -> str:
        size = f"{sized(self.size_bytes)}{' together' if self.objects > 1 else ''}"
        return (
            f"freezing {counted(self.objects)} of {size} costs {money(self.costs_dollars)} "
            f"and saves {money(self.saves_dollars)} over {self.months} month{'' if self.months == 1 else 's'}"
        )


@dataclass(frozen=True)
class Quote:
    """`dollars` for requests and bytes; what the restored copies cost while they stay is `copies_dollars` to say."""

    dollars: float
    ready_after: timedelta


def named(storage_class: str) -> StorageClass:
    if storage_class not in CLASSES:
        raise RefusedError(
            f"{storage_class!r} is not a storage class that firn knows", f"use one of {', '.join(CLASSES)}"
        )
    return CLASSES[storage_class]


def is_archive(storage_class: str) -> bool:
    """Whether its objects refuse to be read until they are restored. A class that firn does not know is read."""
    known = CLASSES.get(storage_class)
    return known is not None and not known.is_readable_at_once


def retrieval(storage_class: str, speed: Speed) -> Retrieval:
    """RefusedError where nothing has to be restored, or not at this speed."""
    chosen = named(storage_class)
    if chosen.is_readable_at_once:
        raise RefusedError(
            f"{storage_class} is no archive class: nothing has to be restored", "read the object as it is"
        )
    if speed not in chosen.retrievals:
        raise RefusedError(
            f"{storage_class} is not restored at the speed {speed}", f"choose {' or '.join(chosen.retrievals)}"
        )
    return chosen.retrievals[speed]


def freeze_verdict(sizes_bytes: Iterable[int], storage_class: str, months: int) -> FreezeVerdict:
    """What freezing them together brings. Bringing them back, or deleting them early, would cost on top.

    The index of an object is put beside it in STANDARD, so that it can be read at any time.
    """
    chosen, sizes = named(storage_class), list(sizes_bytes)
    puts = len(sizes) * (chosen.put_dollars_per_1000 + STANDARD.put_dollars_per_1000) / 1000
    missing = sum(max(chosen.minimum_bytes - size, 0) for size in sizes)
    of_class = missing + len(sizes) * chosen.overhead_bytes
    of_standard = len(sizes) * chosen.standard_overhead_bytes
    extra = of_class * chosen.gib_month_dollars + of_standard * STANDARD.gib_month_dollars
    saved = sum(sizes) * (STANDARD.gib_month_dollars - chosen.gib_month_dollars)
    return FreezeVerdict(len(sizes), sum(sizes), months, puts + extra * months / GIB, saved * months / GIB)


def restore_quote(sizes_bytes: Iterable[int], storage_class: str, speed: Speed) -> Quote:
    chosen, sizes = retrieval(storage_class, speed), list(sizes_bytes)
    dollars = len(sizes) * chosen.dollars_per_1000 / 1000 + sum(sizes) / GIB * chosen.dollars_per_gib
    return Quote(dollars, chosen.delay)


def copies_dollars(sizes_bytes: Iterable[int], days: int) -> float:
    """What restored copies cost while they stay: STANDARD's rate, beside the object in its class."""
    return sum(sizes_bytes) / GIB * STANDARD.gib_month_dollars * days / DAYS_PER_MONTH


def early_deletion_dollars(size_bytes: int, storage_class: str, age: timedelta) -> float:
    """What is billed for an object that goes before its class's shortest stay. Of a class that firn does not know,
    nothing is known."""
    known = CLASSES.get(storage_class, STANDARD)
    missing_days = max(known.minimum_days - age / _DAY, 0)
    of_class = max(size_bytes, known.minimum_bytes) + known.overhead_bytes
    monthly = of_class * known.gib_month_dollars + known.standard_overhead_bytes * STANDARD.gib_month_dollars
    return monthly / GIB * missing_days / DAYS_PER_MONTH


def expires_at(ready_at: datetime, days: int) -> datetime:
    """When a restored copy goes: `days` later, rounded up to midnight UTC."""
    if not 1 <= days <= MAX_DAYS:
        raise RefusedError(f"a restored copy cannot stay for {days} days", f"ask for 1 to {MAX_DAYS} days")
    end = ready_at.astimezone(UTC) + days * _DAY
    midnight = datetime.combine(end, time(), UTC)
    return midnight if end == midnight else midnight + _DAY


def money(dollars: float) -> str:
    """To the cent, or to two digits where a cent is too coarse."""
    if dollars >= 1 or dollars == 0:
        return f"${dollars:,.2f}" if dollars else "$0"
    digits = 2
    while round(dollars * 10**digits) < 10:
        digits += 1
    return f"${dollars:.{digits}f}"


def counted(objects: int) -> str:
    return f"{objects:,} object{'' if objects == 1 else 's'}"


def sized(size_bytes: int) -> str:
    if size_bytes < KIB:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        value /= KIB
        if value < KIB:
            return f"{value:,.1f} {unit}"
    return f"{value / KIB:,.1f} TiB"
