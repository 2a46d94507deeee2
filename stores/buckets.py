"""Opens the one bucket of a region, and makes sure that it is ours before a byte is written."""

from core.errors import RefusedError
from core.settings import Objects as ObjectSettings
from stores.directory import DirectoryObjects
from stores.objects import MARKER_KEY, AlreadyExistsError, NotFoundError, Objects, place
from stores.s3 import S3Objects, connect, ensure_bucket


def open_objects(settings: ObjectSettings, region: str) -> Objects:
    """Makes a missing bucket, claims an empty one; RefusedError if it is another's or another region's."""
    where = place(settings, region)
    if where.directory is not None:
        return claim(DirectoryObjects(where.directory), where.bucket, region)
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
