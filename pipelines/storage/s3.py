"""Access S3 through boto3; the only module that does.

Configured by the standard `AWS_*` variables. Restricted to operations that AWS, SeaweedFS, moto and localbucket all
support: no DeleteObjects, no user metadata, no conditional delete. Clients are cached per process, since boto3 clients
do not survive a fork. boto3 is imported lazily, since the import takes half a second of a server's start.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.errors import NotFound, StorageError
from pipelines.storage.quick_put import quick_put

_MISSING = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_FOLDER_SERVERS = ("LocalBucket", "rclone", "VERSITYGW")  # how servers of folders name themselves
_lock = threading.Lock()
_clients: dict[tuple[int, str], Any] = {}


@dataclass(frozen=True)
class StoredObject:
    """One entry of a listing.

    Attributes:
        key: the object's key.
        size: size in bytes.
        etag: entity tag without quotes.
        modified: time of the last modification, time-zone aware.
    """

    key: str
    size: int
    etag: str
    modified: datetime


def _client() -> Any:
    import boto3
    from botocore.config import Config

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    owner = (os.getpid(), endpoint)
    with _lock:
        if owner not in _clients:
            _clients[owner] = boto3.session.Session().client(
                "s3",
                config=Config(
                    retries={"mode": "standard", "max_attempts": 5},
                    connect_timeout=5,
                    read_timeout=60,
                    max_pool_connections=32,
                    signature_version="s3v4",
                    s3={"addressing_style": "path" if endpoint else "auto"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        return _clients[owner]


@cache
def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    # One thread per transfer, since callers run several transfers concurrently.
    return TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=32 << 20, use_threads=False)


def split_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key.

    Raises:
        NotFound: it is not an S3 URI.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise NotFound(f"{uri!r} is not an S3 address: write s3://bucket/key")
    return bucket, key


def read_uri(uri: str) -> bytes:
    """Return the bytes of the object at `s3://bucket/key`."""
    bucket, key = split_uri(uri)
    return Storage(bucket).get(key)


@dataclass(frozen=True)
class Storage:
    """One bucket. Methods raise NotFound for a missing object or bucket, and StorageError for any other failure.

    Attributes:
        bucket: name of the bucket.
    """

    bucket: str

    @contextmanager
    def _translated_errors(self, act: str, key: str) -> Iterator[None]:
        """Translate botocore's errors into StorageError and NotFound, with the URI and what to do."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise NotFound(f"{self.uri(key)} is not there ({act})") from error
            raise StorageError(f"S3 refused to {act} {self.uri(key)}: {error}") from error
        except (BotoCoreError, Boto3Error) as error:
            raise StorageError(
                f"S3 could not {act} {self.uri(key)}: {error}; check AWS_ENDPOINT_URL and AWS_*"
            ) from error

    def uri(self, key: str) -> str:
        """Return `s3://bucket/key`."""
        return f"s3://{self.bucket}/{key}"

    def get(self, key: str) -> bytes:
        """Return the object's bytes."""
        with self._translated_errors("read", key):
            return bytes(_client().get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def put(self, key: str, data: bytes, content_type: str | None = None) -> str:
        """Write the object, overwriting an existing one, and return its URI."""
        extra = {"ContentType": content_type} if content_type else {}
        with self._translated_errors("write", key):
            _client().put_object(Bucket=self.bucket, Key=key, Body=data, **extra)
        return self.uri(key)

    def put_small(self, key: str, data: bytes, content_type: str | None = None) -> None:
        """Write a small object as `put` does, with less CPU time."""
        with self._translated_errors("write", key):
            client = _client()
        if not quick_put(client, self.bucket, key, data, content_type):
            self.put(key, data, content_type)

    def put_new(self, key: str, data: bytes, content_type: str | None = None) -> bool:
        """Write the object unless it exists (`If-None-Match: *`); return whether it was written."""
        from botocore.exceptions import ClientError

        extra = {"ContentType": content_type} if content_type else {}
        with self._translated_errors("write", key):
            try:
                _client().put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*", **extra)
            except ClientError as error:
                if str(error.response.get("Error", {}).get("Code")) in {"PreconditionFailed", "412"}:
                    return False
                raise
        return True

    def upload(self, path: Path, key: str, content_type: str | None = None) -> str:
        """Upload a file, in parts if it is large, and return the object's URI."""
        extra = {"ContentType": content_type} if content_type else None
        with self._translated_errors("write", key):
            _client().upload_file(str(path), self.bucket, key, ExtraArgs=extra, Config=_transfer())
        return self.uri(key)

    def download(self, key: str, path: Path, progress: Callable[[int], None] | None = None) -> Path:
        """Download the object atomically to `path` and return it; `progress` (default None) receives byte counts."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            with self._translated_errors("read", key):
                _client().download_file(self.bucket, key, str(partial), Config=_transfer(), Callback=progress)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def stat(self, key: str) -> StoredObject:
        """Return the object's current size, ETag and modification time."""
        with self._translated_errors("look up", key):
            head = _client().head_object(Bucket=self.bucket, Key=key)
            return StoredObject(key, int(head["ContentLength"]), head["ETag"].strip('"'), head["LastModified"])

    def size(self, key: str) -> int:
        """Return the object's size in bytes."""
        return self.stat(key).size

    def exists(self, key: str) -> bool:
        """Return whether the object exists; errors other than "not found" are raised."""
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix`, ordered by key, optionally after the key `start_after`."""
        extra = {"StartAfter": start_after} if start_after else {}
        with self._translated_errors("list", prefix):
            pages = _client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, **extra)
            for page in pages:
                for item in page.get("Contents", []):
                    yield StoredObject(item["Key"], item["Size"], item["ETag"].strip('"'), item["LastModified"])

    def serves_folder(self) -> bool:
        """Return whether the server serves a folder of files, which people change without it.

        Such a server lists files while they are being written, and deletes a folder with its last file.
        """
        with self._translated_errors("look up", ""):
            answer = _client().head_bucket(Bucket=self.bucket)
        return str(answer["ResponseMetadata"]["HTTPHeaders"].get("server", "")).startswith(_FOLDER_SERVERS)

    def copy(self, source: str, target: str) -> str:
        """Copy one object within the bucket and return the copy's URI."""
        with self._translated_errors("copy", source):
            _client().copy_object(Bucket=self.bucket, Key=target, CopySource={"Bucket": self.bucket, "Key": source})
        return self.uri(target)

    def delete(self, key: str) -> None:
        """Delete the object; a missing one is no error."""
        with self._translated_errors("delete", key):
            _client().delete_object(Bucket=self.bucket, Key=key)

    def url(self, key: str, seconds: int = 604_800) -> str:
        """Return a presigned URL of the object, valid for `seconds` (default and maximum: 7 days)."""
        with self._translated_errors("sign", key):
            return str(
                _client().generate_presigned_url(
                    "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=min(seconds, 604_800)
                )
            )

    def ensure_bucket(self) -> None:
        """Create the bucket unless it exists."""
        from botocore.exceptions import ClientError

        with self._translated_errors("create", ""):
            try:
                _client().head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if str(error.response.get("Error", {}).get("Code")) not in _MISSING:
                    raise
                region = _client().meta.region_name
                place = (
                    {}
                    if region in (None, "us-east-1")
                    else {"CreateBucketConfiguration": {"LocationConstraint": region}}
                )
                try:
                    _client().create_bucket(Bucket=self.bucket, **place)
                except ClientError as race:
                    if race.response.get("Error", {}).get("Code") not in {
                        "BucketAlreadyOwnedByYou",
                        "BucketAlreadyExists",
                    }:
                        raise
