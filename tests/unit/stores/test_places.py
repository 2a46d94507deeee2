"""Where a region's objects lie."""

from pathlib import Path

import pytest

from core.errors import RefusedError
from core.settings import Objects as ObjectSettings
from stores.objects import Place, check_key, place


def test_a_directory_holds_one_folder_per_region() -> None:
    assert place(ObjectSettings(url="file:/data/objects"), "us") == Place("firn-us", Path("/data/objects/firn-us"))
    assert place(ObjectSettings(url="file:///data/objects"), "eu").directory == Path("/data/objects/firn-eu")


def test_a_prefix_and_a_region_make_a_bucket() -> None:
    assert place(ObjectSettings(url="s3://firn-"), "eu") == Place("firn-eu")


@pytest.mark.parametrize("key", ["lake/a", "a", ".firn-bucket", "week=1/shard=00002/é.parquet", "a..b/..c"])
def test_keys_that_any_store_can_hold(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", [".firn-other", ".firn-temporary/x", "a/../b", "a\x7f"])
def test_keys_that_are_the_stores_own_or_unsafe(key: str) -> None:
    with pytest.raises(RefusedError):
        check_key(key)
