"""Opens the one bucket of a region, and makes sure that it is ours before a byte is written."""

from datetime import datetime

from core.errors import RefusedError
from core.settings import Objects as ObjectSettings
from stores.directory import DirectoryObjects, real_time
from stores.objects import MARKER_KEY, AlreadyExistsError, NotFoundError, Objects, place
from stores.s3 import S3Objects, connect, ensure_bucket


def open_objects(settings: ObjectSettings, region: str, now: datetime | None = None) -> Objects:
    """Makes a missing bucket, claims an empty one; RefusedError if it is another's or another region's.

    A `now` that is given becomes the clock of a directory store; S3 has its own, which nobody sets.
    """
    where = place(settings, region)
    if where.directory is not None:
        clock = real_time if now is None else lambda: now
        return claim(DirectoryObjects(where.directory, clock), where.bucket, region)
    client = connect(settings)
    ensure_bucket(client, where.bucket)
    return claim(S3Objects(client, where.bucket), where.bucket, region)


def claim(objects: Objects, bucket: str, region: str) -> Objects:
    owner = _owner(objects)
    if owner is None:
        if next(objects.list(""), None) is not None:
            raise RefusedError(
                f"bucket {bucket} holds objects but no {MARKER_KEY}: it is not firn's", "name an empty bucket or ours"
            )
        owner = _mark(objects, region)
    if owner != region:
        raise RefusedError(f"bucket {bucket} belongs to region {owner!r}, not {region!r}", "correct objects.url")
    return objects


def _owner(objects: Objects) -> str | None:
    try:
        return objects.get(MARKER_KEY).decode(errors="replace").strip()
    except NotFoundError:
        return None


def _mark(objects: Objects, region: str) -> str | None:
    try:
        objects.put(MARKER_KEY, f"{region}\n".encode(), if_absent=True)
        return region
    except AlreadyExistsError:
        return _owner(objects)
