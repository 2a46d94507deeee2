"""What readers go by follows the log, also where another process commits in the very moment of a repair."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest
from deltalake.exceptions import CommitFailedError

from core.ledger import lease_name
from core.moves import WARM_COLD, State, Unit
from core.settings import Objects as ObjectSettings
from lakehouse import commit as committing
from lakehouse.commit import LiveFile, PartFile, StaleCommitError, commit, create_table, fence, latest_version
from lakehouse.paths import data_path
from lakehouse.publish import cold_files, fix_files, messages_of, repair_pointers
from lakehouse.site import Site
from lakehouse.writer import write_cold_file
from stores.buckets import open_objects
from stores.memory_ledger import MemoryLedger
from tests.unit.lakehouse.test_cold_files import batch, row
from tests.unit.lakehouse.test_maintenance import NOW, WEEK

UNIT = Unit("us", WEEK, 0, WARM_COLD, State.SWITCHED, epoch=1, shards=1)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """As much of one as pointers need."""
    store = ObjectSettings(url=f"file:{tmp_path}")
    settings = SimpleNamespace(objects=store)
    made = SimpleNamespace(config=settings, region="us", objects=open_objects(store, "us"), ledger=MemoryLedger("us"))
    create_table(messages_of(cast(Site, made), UNIT))
    return cast(Site, made)


def committed(site: Site, number: int, *replaced: str, attempt: str = "a") -> str:
    """The unit's file, put in the place of those before; nobody has told the pointers yet."""
    table, path = messages_of(site, UNIT), data_path(WEEK, 0, number, attempt)
    rows: list[pa.RecordBatch] = [batch([row(1, one) for one in range(number)])]
    file = write_cold_file(iter(rows), site.objects, f"{table.root}/{path}", 1000)
    part = PartFile(path, file.size_bytes, number, (WEEK, 0), replaced)
    commit(table, [part], app_id=lease_name(UNIT), number=number, attempt_id=path, now=NOW)
    return path


def named(site: Site) -> list[tuple[str, int]]:
    return [(pointer.path, pointer.version) for pointer in cold_files(site, UNIT)]


def test_a_pointer_is_brought_up_to_the_log(site: Site) -> None:
    path = committed(site, 1)
    assert (repair_pointers(site, [UNIT]), named(site)) == (1, [(path, 1)])
    assert repair_pointers(site, [UNIT]) == 0


def test_no_pointer_names_a_file_with_a_later_version(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a one could not be brought forward to what is live in that version."""
    first, live_of = committed(site, 1), committing._live
    later: list[str] = []

    def another_commits(*given: Any) -> dict[str, LiveFile]:
        live = live_of(*given)
        monkeypatch.setattr(committing, "_live", live_of)
        later.append(committed(site, 2, first))
        return live

    monkeypatch.setattr(committing, "_live", another_commits)
    assert (repair_pointers(site, [UNIT]), named(site)) == (1, [(first, 1)])
    assert (repair_pointers(site, [UNIT]), named(site)) == (1, [(later[0], 2)])


def test_what_a_fold_that_stood_still_had_committed_is_named_before_its_files_are_moved(site: Site) -> None:
    path = committed(site, 1)
    mover = replace(UNIT, epoch=2, commits=2)
    fix_files(site, mover, "b", NOW)
    assert named(site) == [(path, 2)]
    with pytest.raises(StaleCommitError):
        committed(site, 1, path, attempt="c")
    fix_files(site, mover, "b", NOW)
    assert latest_version(messages_of(site, UNIT)) == 2


def test_a_commit_that_is_on_its_way_does_not_get_past_a_fence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made from the version before, and finds its place taken."""
    first, table, write = committed(site, 1), messages_of(site, UNIT), committing._write
    fallen: list[bool] = []

    def late(*given: Any) -> None:
        monkeypatch.setattr(committing, "_write", write)
        fence(table, app_id=lease_name(UNIT), number=3, attempt_id="mover", now=NOW)
        try:
            write(*given)
        except CommitFailedError:
            fallen.append(True)
            raise

    monkeypatch.setattr(committing, "_write", late)
    with pytest.raises(StaleCommitError):
        committed(site, 2, first)
    assert fallen == [True]
    assert (latest_version(table), set(committing.live_files(table))) == (2, {first})
