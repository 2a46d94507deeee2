"""Frozen objects on their way back: what bringing them back takes, asking for it, and how long they still wait.

Asking is safe to repeat. What is under way stays so (unless a faster speed overtakes it), and of a copy that is there
the end is only ever put off.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from core import archive
from core.archive import Speed
from core.errors import DamagedError, OutcomeUnknownError
from core.ledger import FrozenFile
from core.moves import frozen_generations
from lakehouse.site import Site
from stores.objects import ObjectInfo, Objects, RestoreUnderWayError

AT_ONCE = 8
T = TypeVar("T")
R = TypeVar("R")


class RestoreState(StrEnum):
    """Of one object or of many; the first that is true of any of them counts."""

    NOT_ASKED = "not asked"
    UNDER_WAY = "under way"
    RESTORED = "restored"


@dataclass(frozen=True)
class Waiting:
    """How long frozen files wait. `ready_at` is the latest and `expires_at` the earliest of theirs, None where the
    store does not tell; files that can be read at any time are `restored`, and never expire."""

    state: RestoreState
    ready_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def sentence(self) -> str:
        match self.state:
            case RestoreState.NOT_ASKED:
                return "frozen, and nobody has asked for it: ./firn restore brings it back"
            case RestoreState.UNDER_WAY:
                when = f", there by {_minute(self.ready_at)}" if self.ready_at else ""
                return f"frozen, and on its way back{when}"
            case RestoreState.RESTORED:
                return f"readable until {_minute(self.expires_at)}" if self.expires_at else "readable"


@dataclass(frozen=True)
class Want:
    """`now` is what expectations count from; the store has a clock of its own."""

    speed: Speed
    days: int
    now: datetime


@dataclass(frozen=True)
class Share:
    """What one object adds to a report. `state` is None where it can be read at any time; `is_asked`: by this call, for
    the first time or to overtake; `is_extended`: its copy is there and stays longer."""

    size_bytes: int
    state: RestoreState | None
    is_asked: bool = False
    is_extended: bool = False
    dollars: float = 0.0
    copies_dollars: float = 0.0
    ready_at: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Report:
    """Of what was asked, or in an estimate would be. `dollars` for requests and retrieval, `copies_dollars` for the
    copies while they stay; `ready_at` is None where all is there, or where the store does not tell."""

    objects: int
    size_bytes: int
    asked: int
    under_way: int
    restored: int
    readable_at_once: int
    dollars: float
    copies_dollars: float
    ready_at: datetime | None
    restored_until: datetime | None


def frozen_files(site: Site, week: int) -> list[FrozenFile]:
    """The files of a week that hold what no other tier does."""
    return [
        file
        for unit in site.ledger.units()
        if unit.week == week and frozen_generations(unit)
        for file in site.ledger.frozen(week, unit.slice)
        if file.generation in frozen_generations(unit)
    ]


def waiting(objects: Objects, files: Sequence[FrozenFile]) -> Waiting:
    """The worst of them: one that nobody asked for says more than all that are there."""
    copies = [info.restore for info in _each(lambda file: _look(objects, file), files) if _is_shut(info)]
    if any(copy is None for copy in copies):
        return Waiting(RestoreState.NOT_ASKED)
    there = [copy for copy in copies if copy]
    expires_at = min((copy.expires_at for copy in there if copy.expires_at), default=None)
    if coming := [copy.ready_at for copy in there if copy.is_ongoing]:
        return Waiting(RestoreState.UNDER_WAY, _latest(coming), expires_at)
    return Waiting(RestoreState.RESTORED, _latest([copy.ready_at for copy in there]), expires_at)


def estimate(objects: Objects, files: Sequence[FrozenFile], want: Want) -> Report:
    """Asks for nothing. RefusedError for a speed or a stay that is not to be had. Where the store does not tell how
    fast a restore under way is, it is counted as one that `want` overtakes, so `dollars` is the most it can be."""
    return _report(_each(lambda file: _expected(_look(objects, file), want), files))


def bring_back(objects: Objects, files: Sequence[FrozenFile], want: Want) -> Report:
    return _report(_each(lambda file: _bring_back(objects, file, want), files))


def _bring_back(objects: Objects, file: FrozenFile, want: Want) -> Share:
    before = _look(objects, file)
    expected = _expected(before, want)
    if not expected.is_asked and not expected.is_extended:
        return expected
    try:
        info = objects.restore(file.path, want.speed, want.days)
    except RestoreUnderWayError:
        return _as_found(_look(objects, file))
    except OutcomeUnknownError:
        info = _look(objects, file)
        if info.restore == before.restore:
            raise
    copy = info.restore
    if copy is None or copy == before.restore:
        return _as_found(info)
    is_there = expected.is_asked and not copy.is_ongoing
    ready_at = copy.ready_at or (want.now if is_there else expected.ready_at)
    return replace(expected, ready_at=ready_at, expires_at=copy.expires_at or expected.expires_at)


def _expected(info: ObjectInfo, want: Want) -> Share:
    """What asking would do, by what a look at the object tells."""
    found = _as_found(info)
    if found.state is None:
        return found
    sizes = [info.size_bytes]
    quote = archive.restore_quote(sizes, info.storage_class, want.speed)
    ready_at, from_now = want.now + quote.ready_after, archive.expires_at(want.now, want.days)
    if found.state is RestoreState.RESTORED:
        if found.expires_at is None or found.expires_at >= from_now:
            return found
        request = archive.restore_quote([0], info.storage_class, want.speed).dollars
        copies = archive.copies_dollars(sizes, (from_now - found.expires_at).days)
        return replace(found, is_extended=True, dollars=request, copies_dollars=copies, expires_at=from_now)
    if found.state is RestoreState.UNDER_WAY and not _overtakes(info, want, ready_at):
        return found
    return Share(
        info.size_bytes,
        RestoreState.UNDER_WAY,
        is_asked=True,
        dollars=quote.dollars,
        copies_dollars=archive.copies_dollars(sizes, want.days),
        ready_at=ready_at,
        expires_at=archive.expires_at(ready_at, want.days),
    )


def _overtakes(info: ObjectInfo, want: Want, ready_at: datetime) -> bool:
    """Not where it would be paid for and come no sooner; the slowest speed overtakes nothing."""
    offered = archive.named(info.storage_class).retrievals
    is_slowest = all(offered[want.speed].delay >= one.delay for one in offered.values())
    comes_at = info.restore.ready_at if info.restore else None
    return not is_slowest and (comes_at is None or ready_at < comes_at)


def _as_found(info: ObjectInfo) -> Share:
    copy = info.restore
    if not _is_shut(info):
        return Share(info.size_bytes, None)
    if copy is None:
        return Share(info.size_bytes, RestoreState.NOT_ASKED)
    state = RestoreState.UNDER_WAY if copy.is_ongoing else RestoreState.RESTORED
    return Share(info.size_bytes, state, ready_at=copy.ready_at, expires_at=copy.expires_at)


def _report(shares: Sequence[Share]) -> Report:
    coming = [share for share in shares if share.state is RestoreState.UNDER_WAY]
    asked = [share for share in shares if share.is_asked]
    return Report(
        objects=len(shares),
        size_bytes=sum(share.size_bytes for share in shares),
        asked=len(asked),
        under_way=len(coming) - len(asked),
        restored=sum(share.state is RestoreState.RESTORED for share in shares),
        readable_at_once=sum(share.state is None for share in shares),
        dollars=sum(share.dollars for share in shares),
        copies_dollars=sum(share.copies_dollars for share in shares),
        ready_at=_latest([share.ready_at for share in coming]),
        restored_until=min((share.expires_at for share in shares if share.expires_at), default=None),
    )


def _look(objects: Objects, file: FrozenFile) -> ObjectInfo:
    info = objects.head(file.path)
    if info is None:
        raise DamagedError(
            f"frozen object {file.path} is in the ledger and not in the bucket",
            "see who may delete there; bring it back from a version or a copy of the bucket",
        )
    return info


def _is_shut(info: ObjectInfo) -> bool:
    """Whether it can be read only while it is restored."""
    return archive.is_archive(info.storage_class)


def _latest(instants: Iterable[datetime | None]) -> datetime | None:
    """None where one of them is not known."""
    known = list(instants)
    return None if None in known else max((when for when in known if when), default=None)


def _minute(when: datetime | None) -> str:
    return f"{when:%Y-%m-%dT%H:%MZ}" if when else ""


def _each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Several at once: each is a request or two, and a week may have many thousand objects."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(work, items))
