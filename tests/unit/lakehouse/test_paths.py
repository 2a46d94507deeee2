"""Names of files, and how engines find them."""

import pytest

from core.errors import RefusedError
from core.settings import Objects as ObjectSettings
from core.settings import Secret
from lakehouse.paths import (
    Placed,
    data_key,
    data_key_of,
    data_path,
    frozen_key,
    frozen_table_root,
    index_key,
    placed,
    prefixes,
    run_key,
    storage_options,
    table_root,
    table_uri,
)

DIRECTORY = ObjectSettings(url="file:/data")
S3 = ObjectSettings(
    url="s3://firn-",
    endpoint="http://127.0.0.1:9000",
    access_key="key",
    secret_key=Secret("hidden"),
    region="eu-west-1",
)


def test_a_data_file_and_its_index() -> None:
    key = data_key(3, 2913, 17, 42, "0af")
    assert key == "lake/messages/s003/week=2913/shard=00017/00000042-0af.parquet"
    assert key == f"{table_root(3)}/{data_path(2913, 17, 42, '0af')}"
    assert index_key(key) == "index/messages/s003/week=2913/shard=00017/00000042-0af.arrow"


def test_a_frozen_object_lies_outside_of_every_table() -> None:
    key = frozen_key(3, 2913, 1, 17, 42, "0af")
    assert key == "frozen/messages/s003/week=2913/shard=00017/001-00000042-0af.parquet"
    assert index_key(key) == "index/frozen/messages/s003/week=2913/shard=00017/001-00000042-0af.arrow"


@pytest.mark.parametrize("attempt", ["", "../x", "A", "a/b", "a" * 41])
def test_an_attempt_cannot_leave_its_folder(attempt: str) -> None:
    with pytest.raises(RefusedError):
        data_path(1, 1, 1, attempt)


@pytest.mark.parametrize("key", ["downloads/x.parquet", "lake/messages/s000/_delta_log/0.json"])
def test_only_data_files_have_an_index(key: str) -> None:
    with pytest.raises(RefusedError):
        index_key(key)


def test_engines_open_the_directory_or_the_bucket() -> None:
    assert table_uri(DIRECTORY, "us", table_root(0)) == "/data/firn-us/lake/messages/s000"
    assert table_uri(S3, "us", table_root(0)) == "s3://firn-us/lake/messages/s000"
    assert table_uri(S3, "us", table_root(0), "s3a") == "s3a://firn-us/lake/messages/s000"


def test_options_carry_what_a_safe_commit_needs() -> None:
    assert storage_options(DIRECTORY) == {}
    assert storage_options(S3) == {
        "aws_region": "eu-west-1",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "hidden",
        "aws_endpoint_url": "http://127.0.0.1:9000",
        "aws_conditional_put": "etag",
        "aws_virtual_hosted_style_request": "false",
        "aws_allow_http": "true",
    }


def test_plain_http_is_for_loopback_only() -> None:
    away = ObjectSettings(url="s3://firn-", endpoint="http://objects.example:9000")
    assert storage_options(away)["aws_allow_http"] == "false"


def test_a_key_tells_its_unit_and_its_writer() -> None:
    assert placed(data_key(3, 2913, 17, 42, "0af")) == Placed(2913, 3, 42)
    assert placed(frozen_key(3, 2913, 1, 17, 42, "0af")) == Placed(2913, 3, 42)
    assert placed(f"{frozen_table_root(3)}/week=2913/generation=1/00000042-0af.parquet") == Placed(2913, 3, 42)
    assert placed(run_key(3, 2913, "0af")) == Placed(2913, 3, None)
    assert placed(data_key(1000, 2913, 100_000, 10**9, "0af")) == Placed(2913, 1000, 10**9)


@pytest.mark.parametrize(
    "key",
    [
        index_key(data_key(3, 2913, 17, 42, "0af")),
        data_key(3, 2913, 17, 42, "0af") + ".crc",
        "lake/messages/s003/_delta_log/00000000000000000000.json",
        "lake/messages/s003/week=2913/shard=00017/part-00000-0f0e.snappy.parquet",
        "media/0af",
    ],
)
def test_what_is_no_data_file_of_ours_tells_nothing(key: str) -> None:
    assert placed(key) is None


@pytest.mark.parametrize("key", [data_key(3, 2913, 17, 42, "0af"), frozen_key(3, 2913, 1, 17, 42, "0af")])
def test_an_index_leads_back_to_its_file(key: str) -> None:
    assert data_key_of(index_key(key)) == data_key_of(key) == key


def test_all_of_a_slice_lies_under_its_prefixes() -> None:
    keys = [data_key(3, 2913, 17, 42, "0af"), frozen_key(3, 2913, 1, 17, 42, "0af"), run_key(3, 2913, "0af")]
    keys += [*map(index_key, keys[:2]), f"{frozen_table_root(3)}/week=2913/generation=1/00000042-0af.parquet"]
    assert all(key.startswith(prefixes(3)) for key in keys)
    assert not any(key.startswith(prefixes(30)) for key in keys)
    assert not f"{table_root(3)}/_delta_log/_last_checkpoint".startswith(prefixes(3))
