"""Where things lie under the bucket of a region, and how an engine that opens the lake itself gets there."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from core.errors import RefusedError
from core.settings import Objects as ObjectSettings
from stores.objects import RESERVED_PREFIX, place

LAKE = "lake/"
FROZEN = "frozen/"
INDEX = "index/"
RUNS = "runs/"
DATA_SUFFIX = ".parquet"
INDEX_SUFFIX = ".arrow"
_ATTEMPT = re.compile(r"[0-9a-z]{1,40}")
_NAMES = (
    re.compile(r"lake/messages/s(\d{3,})/week=(\d+)/shard=\d{5,}/(\d{8,})-[0-9a-z]{1,40}\.parquet"),
    re.compile(r"lake/frozen/s(\d{3,})/week=(\d+)/generation=\d+/(\d{8,})-[0-9a-z]{1,40}\.parquet"),
    re.compile(r"frozen/messages/s(\d{3,})/week=(\d+)/shard=\d{5,}/\d{3,}-(\d{8,})-[0-9a-z]{1,40}\.parquet"),
    re.compile(r"runs/s(\d{3,})/week=(\d+)/()[0-9a-z]{1,40}\.parquet"),
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


# Under which lies all that firn needs to find again: no rule of a store may reach into one.
HOMES = (LAKE, FROZEN, INDEX, RUNS, RESERVED_PREFIX)


@dataclass(frozen=True)
class Placed:
    """The unit that an object belongs to; `epoch` is that of the lease it was written under, None for a run."""

    week: int
    slice: int
    epoch: int | None


def placed(key: str) -> Placed | None:
    """None for a key that no job of ours gives to a data file, a frozen object, a manifest or a run."""
    for names in _NAMES:
        if found := names.fullmatch(key):
            return Placed(int(found[2]), int(found[1]), int(found[3]) if found[3] else None)
    return None


def table_root(slice_number: int) -> str:
    return f"{LAKE}messages/s{slice_number:03d}"


def frozen_table_root(slice_number: int) -> str:
    return f"{LAKE}frozen/s{slice_number:03d}"


def quarantine_root() -> str:
    return f"{LAKE}quarantine"


def partition_path(week: int, shard: int) -> str:
    return f"week={week}/shard={shard:05d}"


def frozen_key(slice_number: int, week: int, generation: int, shard: int, epoch: int, attempt: str) -> str:
    """Of a frozen object: no table's root holds it, so that no engine tries to read it."""
    place = f"{FROZEN}messages/s{slice_number:03d}/{partition_path(week, shard)}"
    return f"{place}/{generation:03d}-{epoch:08d}-{_checked(attempt)}{DATA_SUFFIX}"


def run_key(slice_number: int, week: int, name: str) -> str:
    return f"{RUNS}s{slice_number:03d}/week={week}/{_checked(name)}{DATA_SUFFIX}"


def data_path(week: int, shard: int, epoch: int, attempt: str) -> str:
    """Relative to the table root, as the Delta log and the pointers hold it."""
    return f"{partition_path(week, shard)}/{epoch:08d}-{_checked(attempt)}{DATA_SUFFIX}"


def data_key(slice_number: int, week: int, shard: int, epoch: int, attempt: str) -> str:
    return f"{table_root(slice_number)}/{data_path(week, shard, epoch, attempt)}"


def index_key(key: str) -> str:
    """Of the data file or frozen object under `key`; it lies outside of any table, so that no engine takes it for data.

    That of a frozen object is readable at any time.
    """
    if not (key.startswith((LAKE, FROZEN)) and key.endswith(DATA_SUFFIX)):
        raise RefusedError(f"{key} is not the key of a data file", f"give a key like {LAKE}…{DATA_SUFFIX}")
    return INDEX + key.removeprefix(LAKE).removesuffix(DATA_SUFFIX) + INDEX_SUFFIX


def data_key_of(key: str) -> str:
    """Whose index lies under `key`; what is no index is its own."""
    if not (key.startswith(INDEX) and key.endswith(INDEX_SUFFIX)):
        return key
    name = key.removeprefix(INDEX).removesuffix(INDEX_SUFFIX) + DATA_SUFFIX
    return name if name.startswith(f"{FROZEN}messages/") else LAKE + name


def prefixes(slice_number: int) -> tuple[str, ...]:
    """Under which lies all that jobs write of a slice's units, and nothing of a table's log."""
    cut = f"s{slice_number:03d}/week="
    homes = (f"{LAKE}messages/", f"{LAKE}frozen/", f"{FROZEN}messages/", RUNS)
    return *(home + cut for home in homes), f"{INDEX}messages/{cut}", f"{INDEX}{FROZEN}messages/{cut}"


def _checked(attempt: str) -> str:
    if not _ATTEMPT.fullmatch(attempt):
        raise RefusedError(f"{attempt!r} cannot be an attempt", "use 1 to 40 lower-case letters and digits")
    return attempt


def table_uri(settings: ObjectSettings, region: str, root: str, scheme: str = "s3") -> str:
    """A directory for the directory store, else `scheme`://bucket/root (Spark's own scheme is s3a)."""
    where = place(settings, region)
    return str(where.directory / root) if where.directory else f"{scheme}://{where.bucket}/{root}"


def storage_options(settings: ObjectSettings) -> dict[str, str]:
    """Holds the secret in clear, for delta-rs to take: never print it. Empty for the directory store."""
    if not settings.url.startswith("s3:"):
        return {}
    options = {
        "aws_region": settings.region,
        "aws_access_key_id": settings.access_key,
        "aws_secret_access_key": settings.secret_key.reveal(),
        "aws_endpoint_url": settings.endpoint,
        # Without it delta-rs would commit by a plain put, and of two writers both would win.
        "aws_conditional_put": "etag",
        "aws_virtual_hosted_style_request": "false" if settings.endpoint else "true",
        "aws_allow_http": str(urlsplit(settings.endpoint).hostname in _LOOPBACK).lower(),
    }
    return {name: value for name, value in options.items() if value}
