"""One contract for every object store: memory, directory, S3."""

import hashlib
import io
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from core.errors import BlockedError, DamagedError, OutcomeUnknownError, RefusedError
from core.settings import Objects as ObjectSettings
from stores.buckets import claim, open_objects
from stores.directory import DirectoryObjects
from stores.objects import (
    MARKER_KEY,
    AlreadyExistsError,
    NotFoundError,
    ObjectInfo,
    Objects,
    PreconditionFailedError,
)
from stores.s3 import S3Objects, connect, ensure_bucket
from tests.behaviour.conftest import MOTO, s3_settings

BODY = b"ciphertext" * 100


def test_what_was_put_is_what_is_got(objects: Objects) -> None:
    told = objects.put("lake/a/b.parquet", BODY)
    assert objects.get("lake/a/b.parquet") == BODY
    found = objects.head("lake/a/b.parquet")
    assert found is not None
    assert (found.key, found.size_bytes, found.storage_class) == ("lake/a/b.parquet", len(BODY), "STANDARD")
    assert found.sha256 == told.sha256 == hashlib.sha256(BODY).hexdigest()
    assert found.etag == told.etag
    assert found.modified_at.utcoffset() is not None


def test_a_file_is_put_whole_with_its_hash_and_class(objects: Objects) -> None:
    local = io.BytesIO(BODY * 3000)
    local.seek(7)
    told = objects.put_file("frozen/x", local, storage_class="GLACIER_IR")
    found = objects.head("frozen/x")
    assert found is not None
    assert not local.closed
    assert (found.sha256, found.storage_class) == (told.sha256, "GLACIER_IR")
    assert found.sha256 == hashlib.sha256(BODY * 3000).hexdigest()
    assert objects.get("frozen/x") == BODY * 3000


def test_an_empty_object_is_an_object(objects: Objects) -> None:
    objects.put("empty", b"")
    assert objects.get("empty") == b""
    assert [found.size_bytes for found in objects.list("empty")] == [0]


def test_a_later_put_replaces_bytes_class_and_etag(objects: Objects) -> None:
    first = objects.put("k", b"one", storage_class="GLACIER")
    second = objects.put("k", b"two!")
    assert objects.get("k") == b"two!"
    found = objects.head("k")
    assert found is not None
    assert (found.etag, found.storage_class) == (second.etag, "STANDARD")
    assert second.etag != first.etag


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE", "GLACIER_IR"])
def test_the_storage_class_survives(objects: Objects, storage_class: str) -> None:
    objects.put("frozen/y", BODY, storage_class=storage_class)
    assert [found.storage_class for found in objects.list("frozen/")] == [storage_class]
    found = objects.head("frozen/y")
    assert found is not None
    assert found.storage_class == storage_class


def test_put_if_absent_leaves_what_is_there(objects: Objects) -> None:
    objects.put("k", b"first", if_absent=True)
    with pytest.raises(AlreadyExistsError, match="k already exists"):
        objects.put("k", b"second", if_absent=True)
    assert objects.get("k") == b"first"


def test_put_if_absent_has_one_winner(objects: Objects) -> None:
    for turn in range(5):
        key = f"race/{turn}"
        barrier = threading.Barrier(4)

        def put(data: bytes, key: str = key, barrier: threading.Barrier = barrier) -> bytes | None:
            barrier.wait()
            try:
                objects.put(key, data, if_absent=True)
            except AlreadyExistsError:
                return None
            return data

        with ThreadPoolExecutor(4) as pool:
            winners = [data for data in pool.map(put, [b"a", b"b", b"c", b"d"]) if data]
        assert winners == [objects.get(key)]


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, 4, b"0123"),
        (3, 4, b"3456"),
        (8, 10, b"89"),
        (10, 5, b""),
        (99, 5, b""),
        (4, None, b"456789"),
        (None, 3, b"012"),
        (2, 0, b""),
    ],
)
def test_a_range_is_what_there_is_of_it(
    objects: Objects, start: int | None, length: int | None, expected: bytes
) -> None:
    objects.put("digits", b"0123456789")
    assert objects.get("digits", start, length) == expected


def test_a_negative_range_is_refused(objects: Objects) -> None:
    objects.put("digits", b"0123456789")
    with pytest.raises(RefusedError):
        objects.get("digits", -1, 2)


def test_a_missing_object_is_told_apart(objects: Objects) -> None:
    assert objects.head("nowhere/at/all") is None
    with pytest.raises(NotFoundError, match="nowhere/at/all"):
        objects.get("nowhere/at/all")
    with pytest.raises(NotFoundError):
        objects.get("nowhere/at/all", 0, 3)
    with pytest.raises(NotFoundError):
        objects.get("nowhere/at/all", 0, 0)
    objects.delete("nowhere/at/all")
    with pytest.raises(NotFoundError):
        objects.delete("nowhere/at/all", if_etag="x")


def test_a_listing_is_sorted_by_whole_keys(objects: Objects) -> None:
    keys = ["a/b/c", "a-b", "a/b-c", "a.b", "a/b/d", "é/x", "b", "a/z", "aa/x", "Z"]
    for key in keys:
        objects.put(key, b"x")
    assert [found.key for found in objects.list("")] == sorted(keys, key=str.encode)
    assert [found.key for found in objects.list("a/b")] == ["a/b-c", "a/b/c", "a/b/d"]
    assert [found.key for found in objects.list("a/b/")] == ["a/b/c", "a/b/d"]
    assert [found.key for found in objects.list("none/")] == []


def test_a_conditional_delete_spares_a_changed_object(objects: Objects) -> None:
    seen = objects.put("media/hash", b"one")
    objects.put("media/hash", b"two")
    with pytest.raises(PreconditionFailedError):
        objects.delete("media/hash", if_etag=seen.etag)
    assert objects.get("media/hash") == b"two"
    now = objects.head("media/hash")
    assert now is not None
    objects.delete("media/hash", if_etag=now.etag)
    assert objects.head("media/hash") is None


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a//b", "a/", "../a", "a/../b", "./a", "a\\b", "a\x00b", "a\nb", ".firn-lock", "x" * 256, "a/" * 600],
)
def test_keys_that_leave_the_bucket_or_fit_no_store_are_refused(objects: Objects, key: str) -> None:
    with pytest.raises(RefusedError, match="cannot be an object key"):
        objects.put(key, b"x")
    with pytest.raises(RefusedError, match="cannot be an object key"):
        objects.head(key)


def test_settle_is_harmless(objects: Objects) -> None:
    objects.put("lake/t/_delta_log/0.json", b"{}")
    objects.settle("lake/t/_delta_log/0.json")


def test_an_empty_bucket_is_claimed_once_and_for_one_region(objects: Objects) -> None:
    claim(objects, "bucket", "us")
    claim(objects, "bucket", "us")
    assert list(objects.list("")) == []
    with pytest.raises(RefusedError, match="belongs to region 'us'"):
        claim(objects, "bucket", "eu")


def test_a_foreign_bucket_is_refused(objects: Objects) -> None:
    objects.put("somebody/elses", b"x")
    with pytest.raises(RefusedError, match="not firn's"):
        claim(objects, "bucket", "us")
    assert objects.head(MARKER_KEY) is None


# What only one of them can show.


def test_regions_have_buckets_of_their_own(endpoint: str, tmp_path: Path) -> None:
    for settings in (ObjectSettings(url=f"file:{tmp_path}"), s3_settings(endpoint, f"s3://{secrets.token_hex(4)}-")):
        here, there = open_objects(settings, "us"), open_objects(settings, "eu")
        here.put("lake/x", b"x")
        assert there.head("lake/x") is None
        assert open_objects(settings, "us").get("lake/x") == b"x"


@pytest.mark.parametrize("url", ["", "file:", "s3://", "s3://a/b", "ftp://x", "/tmp/x"])
def test_a_url_that_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(RefusedError, match=r"objects\.url"):
        open_objects(ObjectSettings(url=url), "us")


def test_a_directory_object_is_a_plain_file(tmp_path: Path) -> None:
    objects = open_objects(ObjectSettings(url=f"file:{tmp_path}"), "us")
    objects.put("lake/messages/s000/x.parquet", BODY)
    assert (tmp_path / "firn-us/lake/messages/s000/x.parquet").read_bytes() == BODY
    (tmp_path / "firn-us/lake/foreign").write_bytes(b"by an engine")
    found = objects.head("lake/foreign")
    assert found is not None
    assert (found.sha256, found.storage_class) == (hashlib.sha256(b"by an engine").hexdigest(), "STANDARD")
    assert [listed.key for listed in objects.list("")] == ["lake/foreign", "lake/messages/s000/x.parquet"]


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"X" + data[1:], lambda data: data + b"X"])
def test_a_changed_file_is_damage_named_by_its_key(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    objects = DirectoryObjects(tmp_path)
    objects.put("lake/x", BODY)
    (tmp_path / "lake/x").write_bytes(change(BODY))
    with pytest.raises(DamagedError, match="lake/x"):
        objects.get("lake/x")


def test_a_key_cannot_continue_another_in_a_directory(tmp_path: Path) -> None:
    objects = DirectoryObjects(tmp_path)
    objects.put("a/b", b"x")
    for key in ("a/b/c", "a"):
        for if_absent in (True, False):
            with pytest.raises(RefusedError, match="both an object and a folder"):
                objects.put(key, b"y", if_absent=if_absent)
    assert objects.get("a/b") == b"x"


def test_a_file_system_without_attributes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", unsupported)
    with pytest.raises(RefusedError, match="keeps no user attributes"):
        DirectoryObjects(tmp_path)


def test_a_sweep_takes_only_what_the_dead_left(tmp_path: Path) -> None:
    objects = DirectoryObjects(tmp_path)
    left = tmp_path / ".firn-temporary/dead"
    left.write_bytes(b"half")
    with objects._writing() as alive:
        DirectoryObjects(tmp_path)
        assert not left.exists()
        assert Path(alive.name).exists()


def test_a_full_disk_writes_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = DirectoryObjects(tmp_path / "bucket")
    objects.put("k", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BlockedError, match="no space is left on the disk of bucket bucket"):
        objects.put("k", BODY)
    with pytest.raises(BlockedError, match="no space is left on the disk of bucket bucket"):
        objects.put_file("k", io.BytesIO(BODY))
    monkeypatch.undo()
    assert objects.get("k") == b"old"
    assert list((tmp_path / "bucket/.firn-temporary").iterdir()) == []


def test_many_may_open_a_directory_at_once(tmp_path: Path) -> None:
    """A sweep takes what the dead left, never the probe of another opener."""
    with ThreadPoolExecutor(8) as pool:
        opened = [pool.submit(DirectoryObjects, tmp_path) for _ in range(200)]
    for one in opened:
        one.result()
    assert list((tmp_path / ".firn-temporary").iterdir()) == []


def test_a_conditional_delete_never_takes_a_newer_object(tmp_path: Path) -> None:
    """A put that begins after the comparison must wait until the delete is through."""
    with ThreadPoolExecutor(1) as pool:
        puts: list[Future[ObjectInfo]] = []

        class LookedAt(DirectoryObjects):
            def head(self, key: str) -> ObjectInfo | None:
                info = super().head(key)
                puts.append(pool.submit(others.put, key, b"new"))
                wait(puts, timeout=0.3)
                return info

        others, objects = DirectoryObjects(tmp_path / "bucket"), LookedAt(tmp_path / "bucket")
        seen = objects.put("k", b"old")
        objects.delete("k", if_etag=seen.etag)
        assert puts[-1].result(10).size_bytes == 3
    assert others.get("k") == b"new"


WRITER = """
import hashlib, pathlib, random, sys
from stores.directory import DirectoryObjects
objects = DirectoryObjects(pathlib.Path(sys.argv[1]))
random.seed(sys.argv[2])
for number in range(100_000):
    data = random.randbytes(random.choice([10, 5_000, 400_000]))
    key = f"lake/{number % 7}/{sys.argv[2]}-{number}"
    objects.put(key, data, if_absent=number % 2 == 0, storage_class="GLACIER_IR")
    print(key, hashlib.sha256(data).hexdigest(), flush=True)
"""


def test_kill_9_takes_no_acknowledged_object(tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    for turn in range(6):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "bucket"), str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(3 + 7 * turn):
                key, sha256 = writer.stdout.readline().split()
                acknowledged[key] = sha256
            writer.kill()
            for line in writer.stdout.readlines():
                if line.endswith("\n"):
                    key, sha256 = line.split()
                    acknowledged[key] = sha256
    objects = DirectoryObjects(tmp_path / "bucket")
    for key, sha256 in acknowledged.items():
        found = objects.head(key)
        assert found is not None
        assert (found.sha256, found.storage_class) == (sha256, "GLACIER_IR")
    for listed in objects.list(""):
        assert os.getxattr(tmp_path / "bucket" / listed.key, "user.firn.sha256")
        objects.get(listed.key)
    assert list((tmp_path / "bucket/.firn-temporary").iterdir()) == []


def test_s3_tells_the_hash_of_what_an_engine_wrote(endpoint: str) -> None:
    client = connect(s3_settings(endpoint))
    bucket = secrets.token_hex(6)
    ensure_bucket(client, bucket)
    client.put_object(Bucket=bucket, Key="lake/log", Body=b"by an engine")
    found = S3Objects(client, bucket, MOTO).head("lake/log")
    assert found is not None
    assert found.sha256 == hashlib.sha256(b"by an engine").hexdigest()


def test_s3_damage_is_named_by_its_key(endpoint: str) -> None:
    client = connect(s3_settings(endpoint))
    bucket = secrets.token_hex(6)
    ensure_bucket(client, bucket)
    wrong = hashlib.sha256(BODY).hexdigest()
    client.put_object(Bucket=bucket, Key="lake/x", Body=b"other bytes", Metadata={"firn-sha256": wrong})
    with pytest.raises(DamagedError, match="lake/x"):
        S3Objects(client, bucket, MOTO).get("lake/x")


def test_an_answer_that_is_lost_is_unknown_for_writes_and_blocks_reads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = s3_settings(f"http://127.0.0.1:{silent.getsockname()[1]}")
        objects = S3Objects(connect(settings, read_timeout_seconds=0.05), "firn-us")
        with pytest.raises(OutcomeUnknownError, match="lake/x"):
            objects.put("lake/x", b"x", if_absent=True)
        with pytest.raises(OutcomeUnknownError):
            objects.delete("lake/x")
        with pytest.raises(BlockedError):
            objects.get("lake/x")
        with pytest.raises(BlockedError):
            objects.head("lake/x")
