"""Errors say what to do, leave with their own exit code, and survive a trip between processes."""

import errno
import pickle
from itertools import permutations

import pytest

from core import errors
from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError, RefusedError, gravest, no_space
from serving.intake import UnknownWeekError
from stores.cassandra import MissingTableError

KINDS = (RefusedError, BlockedError, DamagedError, OutcomeUnknownError)


@pytest.mark.parametrize("kind", [FirnError, *KINDS, MissingTableError, UnknownWeekError])
def test_what_happened_and_what_to_do(kind: type[FirnError]) -> None:
    fault = kind("it broke", "mend it")
    assert str(fault) == "it broke\n  do: mend it"
    again = pickle.loads(pickle.dumps(fault))
    assert (type(again), again.what, again.do, again.exit_code) == (kind, "it broke", "mend it", kind.exit_code)


def test_each_kind_has_an_exit_code_of_its_own() -> None:
    codes = [FirnError.exit_code, *(kind.exit_code for kind in KINDS)]
    assert codes == [1, 2, 3, 4, 5]
    assert MissingTableError.exit_code == BlockedError.exit_code


def test_the_picture_shows_the_tree() -> None:
    names = {kind.__name__ for kind in FirnError.__subclasses__() if kind.__module__ == "core.errors"}
    assert names == {kind.__name__ for kind in KINDS}
    assert all(f"── {name}" in (errors.__doc__ or "") for name in names)


@pytest.mark.parametrize("kinds", list(permutations((*KINDS, MissingTableError, FirnError), 3)))
def test_of_several_faults_the_gravest_is_told(kinds: tuple[type[FirnError], ...]) -> None:
    order = (DamagedError, OutcomeUnknownError, BlockedError)
    told = gravest([kind("it broke", "mend it") for kind in kinds])
    wanted = next((kind for kind in order if any(issubclass(found, kind) for found in kinds)), kinds[0])
    assert isinstance(told, wanted)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_of_ours(number: int) -> None:
    found = no_space(OSError(number, "no space"), "bucket firn-us")
    assert found is not None
    assert found.what == "no space is left on the disk of bucket firn-us"


def test_another_fault_of_the_system_is_not() -> None:
    assert no_space(OSError(errno.EIO, "input/output error"), "a task") is None
