"""Objects in S3 or anything that speaks its protocol; the one importer of boto3.

The client computes the SHA-256 and sends it as the object's checksum, so that S3 refuses bytes that differ, and as
metadata, so that stores that keep no checksums still tell it.
"""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import IO, TYPE_CHECKING, Any, NoReturn

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError, ParamValidationError

from core import archive
from core.archive import Speed
from core.errors import BlockedError, FirnError, OutcomeUnknownError, RefusedError
from core.lifecycle import Rule
from core.settings import Objects as ObjectSettings
from stores.lifecycles import rule_of
from stores.objects import (
    STANDARD,
    AlreadyExistsError,
    Capabilities,
    FrozenObjectError,
    ListedObject,
    NotFoundError,
    ObjectInfo,
    PreconditionFailedError,
    Restore,
    RestoreUnderWayError,
    changed_bytes,
    check_key,
    check_range,
    is_reserved,
    sha256_of,
    sha256_of_file,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_SHA256 = "firn-sha256"
_CHUNK_BYTES = 8 * 1024 * 1024
# What a store without lifecycles answers, too.
_NO_RULES = ("NoSuchLifecycleConfiguration", "NotImplemented", "MethodNotAllowed")
_MAX_PUT_BYTES = 5 * 1024**3
_EXPIRES_AT = re.compile(r'expiry-date="([^"]+)"')
S3_CAPABILITIES = Capabilities(
    durable=True, checks_upload=True, archives=True, delays=True, refreezes=True, attests=True
)


def connect(settings: ObjectSettings, read_timeout_seconds: float = 60.0) -> "S3Client":
    """Keys left empty come from boto3's own chain; a set endpoint is addressed by path."""
    return boto3.client(
        "s3",
        region_name=settings.region,
        endpoint_url=settings.endpoint or None,
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=settings.secret_key.reveal() or None,
        config=Config(
            connect_timeout=5,
            read_timeout=read_timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": 3},
            s3={"addressing_style": "path" if settings.endpoint else "auto"},
        ),
    )


def ensure_bucket(client: "S3Client", bucket: str) -> None:
    """Makes the bucket if it is missing; whether it is ours is the marker's to say."""
    region = client.meta.region_name
    where: Any = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as fault:
        if _status(fault) != 404:
            raise RefusedError(
                f"bucket {bucket} cannot be opened ({_code(fault)})", "check its name, its region and the credentials"
            ) from None
        _make_bucket(client, bucket, where)
    except BotoCoreError as fault:
        raise _no_answer(bucket, fault) from fault


def _make_bucket(client: "S3Client", bucket: str, where: Any) -> None:
    try:
        client.create_bucket(Bucket=bucket, **where)
    except client.exceptions.BucketAlreadyOwnedByYou:
        return  # another of our processes was faster
    except ClientError as fault:
        raise RefusedError(
            f"bucket {bucket} does not exist and cannot be made ({_code(fault)})", "make it, or choose another prefix"
        ) from fault


class S3Objects:
    def __init__(self, client: "S3Client", bucket: str, capabilities: Capabilities = S3_CAPABILITIES) -> None:
        self._client = client
        self._bucket = bucket
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def put(self, key: str, data: bytes, *, if_absent: bool = False, storage_class: str = STANDARD) -> ObjectInfo:
        return self._put(key, data, len(data), sha256_of(data), if_absent, storage_class)

    def put_file(
        self, key: str, file: IO[bytes], *, if_absent: bool = False, storage_class: str = STANDARD
    ) -> ObjectInfo:
        """One PUT, so the checksum is that of the whole object; S3 takes up to 5 GiB so."""
        size_bytes = file.seek(0, os.SEEK_END)
        if size_bytes > _MAX_PUT_BYTES:
            raise RefusedError(f"object {key} is larger than one PUT may be", "make smaller files (layout.shard_bytes)")
        sha256 = sha256_of_file(file)
        file.seek(0)
        return self._put(key, file, size_bytes, sha256, if_absent, storage_class)

    def _put(
        self, key: str, body: bytes | IO[bytes], size_bytes: int, sha256: str, if_absent: bool, storage_class: str
    ) -> ObjectInfo:
        check_key(key)
        request: dict[str, Any] = {
            "Bucket": self._bucket,
            "Key": key,
            "Body": body,
            "ContentLength": size_bytes,
            "ChecksumAlgorithm": "SHA256",
            "ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode(),
            "Metadata": {_SHA256: sha256},
            "StorageClass": storage_class,
        }
        if if_absent:
            request["IfNoneMatch"] = "*"
        answer = _write(key, lambda: self._client.put_object(**request))
        kept = _checksum(answer)
        if (kept or sha256) != sha256:
            raise changed_bytes(key)
        etag = answer["ETag"].strip('"')
        return ObjectInfo(key, size_bytes, sha256, etag, storage_class, _answered_at(answer), kept is not None)

    def get(self, key: str, start: int | None = None, length: int | None = None) -> bytes:
        first, count = check_range(start, length)
        if start is None and length is None:
            return self._get_whole(check_key(key))
        # No range says "nothing": one byte is asked for, so that a missing or frozen object is told all the same.
        last = "" if count is None else str(first + max(count, 1) - 1)
        try:
            return self._fetch(check_key(key), Range=f"bytes={first}-{last}")[1][:count]
        except _RangePastEndError:
            return b""

    def _get_whole(self, key: str) -> bytes:
        answer, data = self._fetch(key, ChecksumMode="ENABLED")
        written = _checksum(answer) or _noted(answer)
        if written is not None and written != sha256_of(data):
            raise changed_bytes(key)
        return data

    def _fetch(self, key: str, **request: Any) -> tuple[Any, bytes]:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **request)
            return answer, answer["Body"].read()
        except FlexibleChecksumError:
            raise changed_bytes(key) from None
        except (ClientError, BotoCoreError) as fault:
            _raise_read(key, fault)

    def head(self, key: str) -> ObjectInfo | None:
        """An object that another engine wrote without a SHA-256 is read whole, if it can be read now."""
        answer = self._head(key)
        return self._info(key, answer) if answer else None

    def attest(self, key: str) -> ObjectInfo | None:
        """S3 keeps the checksum that it found at the upload, and compares its bytes with it by itself."""
        return self.head(key)

    def restore(self, key: str, speed: Speed, days: int) -> ObjectInfo:
        answer = self._head(key)
        if answer is None:
            raise NotFoundError(key)
        archive.retrieval(answer.get("StorageClass", STANDARD), speed)
        copy, until = _restore(answer), archive.expires_at(_answered_at(answer), days)
        # S3 would move the end of a copy forward, too.
        if copy and copy.expires_at and copy.expires_at >= until:
            return self._info(key, answer)
        request: Any = {"Days": days, "GlacierJobParameters": {"Tier": speed.capitalize()}}
        _write(key, lambda: self._client.restore_object(Bucket=self._bucket, Key=key, RestoreRequest=request))
        return self._info(key, self._head(key) or answer)

    def _head(self, key: str) -> Any:
        """None where there is no object."""
        try:
            return self._client.head_object(Bucket=self._bucket, Key=check_key(key), ChecksumMode="ENABLED")
        except ClientError as fault:
            if _status(fault) == 404:
                return None
            _raise_read(key, fault)
        except BotoCoreError as fault:
            _raise_read(key, fault)

    def _info(self, key: str, answer: Any) -> ObjectInfo:
        kept = _checksum(answer)
        return ObjectInfo(
            key,
            answer["ContentLength"],
            kept or _noted(answer) or self._hash(key),
            answer["ETag"].strip('"'),
            answer.get("StorageClass", STANDARD),
            answer["LastModified"],
            kept is not None,
            _restore(answer),
        )

    def _hash(self, key: str) -> str:
        """Empty for a frozen object."""
        digest = hashlib.sha256()
        try:
            for chunk in self._client.get_object(Bucket=self._bucket, Key=key)["Body"].iter_chunks(_CHUNK_BYTES):
                digest.update(chunk)
        except (ClientError, BotoCoreError) as fault:
            with suppress(FrozenObjectError):
                _raise_read(key, fault)
            return ""
        return digest.hexdigest()

    def list(self, prefix: str) -> Iterator[ListedObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        try:
            for page in pages:
                for found in page.get("Contents", ()):
                    if not is_reserved(found["Key"]):
                        storage_class = found.get("StorageClass", STANDARD)
                        yield ListedObject(found["Key"], found["Size"], storage_class, found["LastModified"])
        except (ClientError, BotoCoreError) as fault:
            _raise_read(prefix, fault)

    def delete(self, key: str, *, if_etag: str | None = None) -> None:
        check_key(key)
        if if_etag is None:
            _write(key, lambda: self._client.delete_object(Bucket=self._bucket, Key=key))
            return
        # S3-compatible stores may not know conditional deletes: look first, and let those that do close the gap.
        info = self.head(key)
        if info is None:
            raise NotFoundError(key)
        if info.etag != if_etag:
            raise PreconditionFailedError(key)
        _write(key, lambda: self._client.delete_object(Bucket=self._bucket, Key=key, IfMatch=f'"{if_etag}"'))

    def lifecycle(self) -> Sequence[Rule]:
        try:
            answer = self._client.get_bucket_lifecycle_configuration(Bucket=self._bucket)
        except ClientError as fault:
            if _code(fault) in _NO_RULES:
                return ()
            _raise_read(f"{self._bucket}: s3:GetLifecycleConfiguration", fault)
        except BotoCoreError as fault:
            raise _no_answer(self._bucket, fault) from fault
        return [rule_of(told) for told in answer.get("Rules", ())]

    def settle(self, key: str) -> None:
        check_key(key)


class _RangePastEndError(Exception):
    pass


def _checksum(answer: Any) -> str | None:
    """Hex: what the store keeps, if it is of the whole object and not of the checksums of its parts ("…-3")."""
    kept = answer.get("ChecksumSHA256", "")
    is_whole = kept and "-" not in kept and answer.get("ChecksumType") != "COMPOSITE"
    return base64.b64decode(kept).hex() if is_whole else None


def _noted(answer: Any) -> str | None:
    """Hex, as our own metadata has it."""
    noted: str | None = answer.get("Metadata", {}).get(_SHA256)
    return noted


def _answered_at(answer: Any) -> datetime:
    """By the store's own clock."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def _restore(answer: Any) -> Restore | None:
    header = answer.get("Restore")
    if header is None:
        return None
    until = _EXPIRES_AT.search(header)
    return Restore('ongoing-request="true"' in header, parsedate_to_datetime(until[1]) if until else None)


def _write(key: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ParamValidationError as fault:
        raise RefusedError(f"object {key} was refused before it was sent", "check storage class and key") from fault
    except ClientError as fault:
        _raise_write(key, fault)
    except BotoCoreError as fault:
        raise _unknown(key, type(fault).__name__) from fault


def _raise_write(key: str, fault: ClientError) -> NoReturn:
    status, code = _status(fault), _code(fault)
    if code == "GlacierExpeditedRetrievalNotAvailable":
        raise BlockedError(
            f"the object store has no expedited restores to give for {key} now", "ask again, or at another speed"
        ) from None
    if code == "RestoreAlreadyInProgress" and not _is_repeat(fault):
        raise RestoreUnderWayError(key) from None
    if status >= 500 or code == "RestoreAlreadyInProgress":
        raise _unknown(key, code) from fault
    if status == 412 and fault.operation_name == "PutObject":
        if _is_repeat(fault):
            raise _unknown(key, code) from fault
        raise AlreadyExistsError(key) from None
    if status == 412:
        raise PreconditionFailedError(key) from None
    if status == 409:
        raise BlockedError(f"another write of object {key} is under way", "run the same again") from fault
    _raise_read(key, fault)


def _is_repeat(fault: ClientError) -> bool:
    """boto3 repeats a request whose answer was lost; the repeat may then meet its own first try."""
    return bool(fault.response["ResponseMetadata"].get("RetryAttempts"))


def _raise_read(key: str, fault: ClientError | BotoCoreError) -> NoReturn:
    if not isinstance(fault, ClientError):
        raise _no_answer(key, fault) from fault
    code = _code(fault)
    if code == "InvalidRange":
        raise _RangePastEndError from None
    if code in ("NoSuchKey", "404"):
        raise NotFoundError(key) from None
    if code == "InvalidObjectState":
        raise FrozenObjectError(key) from None
    if _status(fault) >= 500 or code in ("SlowDown", "RequestTimeout"):
        raise _no_answer(key, fault) from fault
    raise RefusedError(f"the object store refused {key} ({code})", "check credentials, bucket and key") from fault


def _status(fault: ClientError) -> int:
    return fault.response["ResponseMetadata"]["HTTPStatusCode"]


def _code(fault: ClientError) -> str:
    return fault.response["Error"]["Code"]


def _unknown(key: str, reason: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"whether object {key} was written, deleted or asked for is unknown ({reason})",
        "look at the object, then decide",
    )


def _no_answer(key: str, fault: Exception) -> FirnError:
    return BlockedError(
        f"the object store did not answer for {key} ({type(fault).__name__})",
        "check the endpoint, then run the same again",
    )
