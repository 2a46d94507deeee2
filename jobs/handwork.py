"""What operators do by hand is noted before it is done, and confirmed after."""

from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import BlockedError
from core.ledger import Audited
from stores.ledger import Ledger


@contextmanager
def noted(ledger: Ledger, entry: Audited) -> Iterator[None]:
    """An entry that stays unconfirmed was asked for and failed, or its process died in just that moment."""
    if not ledger.note(entry):
        raise BlockedError("the audit has another entry of this name", "run the same command again")
    yield
    ledger.confirm(entry)
