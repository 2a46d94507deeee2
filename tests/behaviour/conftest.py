"""The object stores that the suites are run against, and the clock of those that take one."""

import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from core.settings import Objects as ObjectSettings
from core.settings import Secret
from stores.directory import DirectoryObjects
from stores.memory import MemoryObjects
from stores.objects import Capabilities, Objects
from stores.s3 import S3Objects, connect, ensure_bucket

# The double keeps nothing over a restart, believes whatever checksum it is told (but keeps it), restores at once, and
# never freezes again.
MOTO = Capabilities(durable=False, checks_upload=False, archives=True, attests=True)


class ManualClock:
    """Stands still until it is told to go on."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def go(self, length: timedelta) -> None:
        self.now += length


def s3_settings(endpoint: str, url: str = "s3://firn-") -> ObjectSettings:
    return ObjectSettings(url=url, endpoint=endpoint, access_key="key", secret_key=Secret("secret"))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 2, 10, 30, tzinfo=UTC))


@pytest.fixture(params=["memory", "directory", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Objects:
    if request.param == "memory":
        return MemoryObjects(clock)
    if request.param == "directory":
        return DirectoryObjects(tmp_path / "bucket", clock)
    client = connect(s3_settings(request.getfixturevalue("endpoint")))
    bucket = f"firn-{secrets.token_hex(6)}"
    ensure_bucket(client, bucket)
    return S3Objects(client, bucket, MOTO)
