"""Every error a person can meet, as one small tree.

    FirnError
    ├── RefusedError         the request itself is wrong; the same again will fail again
    ├── BlockedError         right request, wrong moment; the same command later goes on
    ├── DamagedError         what is stored is not what was written; nothing was dropped
    └── OutcomeUnknownError  it may or may not have happened; look first, then decide

Each carries what happened and what to do next, and neither ever holds a personal value.
"""

import errno
from collections.abc import Sequence

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class FirnError(Exception):
    exit_code = 1

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what, do)
        self.what = what
        self.do = do

    def as_data(self) -> dict[str, str]:
        """For a JSON line."""
        return {"error": type(self).__name__, "what": self.what, "do": self.do}

    def __str__(self) -> str:
        return f"{self.what}\n  do: {self.do}"


class RefusedError(FirnError):
    exit_code = 2


class BlockedError(FirnError):
    exit_code = 3


class DamagedError(FirnError):
    exit_code = 4


class OutcomeUnknownError(FirnError):
    exit_code = 5


_GRAVEST_FIRST = (DamagedError, OutcomeUnknownError, BlockedError)


def gravest(faults: Sequence[FirnError]) -> FirnError:
    """The one to tell of several: what is damaged before what is unknown, and both before what only has to wait."""
    return next((fault for kind in _GRAVEST_FIRST for fault in faults if isinstance(fault, kind)), faults[0])


def no_space(fault: OSError, where: str) -> BlockedError | None:
    """A full disk as an error of ours; None for any other fault."""
    if fault.errno not in _NO_SPACE:
        return None
    return BlockedError(
        f"no space is left on the disk of {where}", "free some, then run the same command again; nothing was lost"
    )
