"""Holding leases: taken once, renewed by a thread for as long as the block runs, given up at its end.

A process that was paused past the end of its lease finds out at `check`, which stands before every irreversible step.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from core.errors import BlockedError, FirnError
from core.ledger import Lease
from stores.ledger import Ledger

_GIVE_UP = timedelta(0)


class Keeper:
    """The leases of one attempt. Real time, because a lease is a promise about processes, not about messages."""

    def __init__(self, ledger: Ledger, holder: str, length: timedelta) -> None:
        self._ledger = ledger
        self._holder = holder
        self._length = length
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()

    def take(self, name: str) -> Lease | None:
        """None while another holds it."""
        lease = self._ledger.take_lease(name, self._holder, _now(), self._length)
        if lease:
            with self._lock:
                self._held[name] = lease
        return lease

    def take_within(self, name: str, seconds: float) -> Lease:
        """Waits for its holder; BlockedError after `seconds`."""
        deadline = time.monotonic() + seconds
        while (lease := self.take(name)) is None:
            if time.monotonic() > deadline:
                raise BlockedError(
                    f"lease {name} is held by another process", "let it finish; then run the same command again"
                )
            time.sleep(0.2)
        return lease

    def check(self, name: str) -> Lease:
        """Asks the ledger; BlockedError when the lease was lost, and then nothing more may be done under it."""
        held, known = self._held.get(name), self._ledger.lease(name)
        if (
            held is None
            or known is None
            or (known.holder, known.epoch) != (held.holder, held.epoch)
            or known.is_free(_now())
        ):
            raise BlockedError(
                f"lease {name} was lost to another process", "nothing of it was undone; run the same command again"
            )
        return held

    def give_up(self, name: str) -> None:
        with self._lock:
            lease = self._held.pop(name, None)
        if lease:
            self._ledger.renew_lease(lease, _now(), _GIVE_UP)

    def renew(self) -> None:
        with self._lock:
            for name, lease in list(self._held.items()):
                renewed = self._ledger.renew_lease(lease, _now(), self._length)
                if renewed:
                    self._held[name] = renewed
                else:
                    del self._held[name]

    def names(self) -> list[str]:
        return list(self._held)


@contextmanager
def keeping(ledger: Ledger, holder: str, length_seconds: float) -> Iterator[Keeper]:
    keeper = Keeper(ledger, holder, timedelta(seconds=length_seconds))
    stop = threading.Event()
    thread = threading.Thread(target=_renew_until, args=(keeper, stop, length_seconds / 3), daemon=True)
    thread.start()
    try:
        yield keeper
    finally:
        stop.set()
        thread.join()
        _give_up_all(keeper, keeper.names())


@contextmanager
def holding(keeper: Keeper, name: str, seconds: float) -> Iterator[Lease]:
    lease = keeper.take_within(name, seconds)
    try:
        yield lease
    finally:
        keeper.give_up(name)


def _renew_until(keeper: Keeper, stop: threading.Event, every_seconds: float) -> None:
    while not stop.wait(every_seconds):
        try:
            keeper.renew()
        except FirnError:
            continue  # a renewal that failed is seen by `check`


def _give_up_all(keeper: Keeper, names: Iterable[str]) -> None:
    for name in names:
        try:
            keeper.give_up(name)
        except FirnError:
            continue  # it runs out by itself


def _now() -> datetime:
    return datetime.now(UTC)
