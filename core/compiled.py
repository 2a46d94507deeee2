"""What is compiled: loops over the bytes of whole columns, by numba, at their first call.

A compiled function is kept on disk and known to be stale by the date of its own file alone: so it calls compiled
functions of its own file only, and this one's.
"""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
_SCRATCH = "firn-kernels"
_WORD: Any = numba.types.uintp
# By name, so that the loader finds it in the process: a kernel with a raw pointer in it could not be cached.
memcpy: Any = numba.types.ExternalFunction("memcpy", _WORD(_WORD, _WORD, _WORD))


def kernel(function: Kernel) -> Kernel:
    """Compiled at the first call and kept on disk: beside this file, else in the user's cache or NUMBA_CACHE_DIR; where
    none can be written, in a folder of the machine's scratch that is this user's alone; else in memory only."""
    try:
        return cast(Kernel, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # no place to keep it: a worker without a home, say
        scratch = private_scratch(Path(tempfile.gettempdir()))
        if scratch is None:
            return cast(Kernel, numba.njit(nogil=True)(function))
        config: Any = numba.config
        config.CACHE_DIR = str(scratch)
        return cast(Kernel, numba.njit(cache=True, nogil=True)(function))


def private_scratch(folder: Path) -> Path | None:
    """A folder that nobody else may write to: what is cached there is code, and will be run."""
    place = folder / f"{_SCRATCH}-{os.getuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError:
        return None
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return place if mine else None
