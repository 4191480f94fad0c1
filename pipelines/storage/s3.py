"""S3, by boto3: the only place that talks to it.

Uses the standard `AWS_*` variables and only what AWS, SeaweedFS, moto and localbucket all do: no DeleteObjects, no
user metadata, no conditional delete. Clients are made once for each process, since boto3 clients do not survive a fork.
boto3 is imported when it is first needed: that takes half a second, which a starting server does not have.
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
_lock = threading.Lock()
_clients: dict[tuple[int, str], Any] = {}


@dataclass(frozen=True)
class StoredObject:
    """One line of a listing; `size` in bytes, `etag` without quotes, `modified` with its time zone."""

    key: str
    size: int
    etag: str
    modified: datetime


def _client() -> Any:
    import boto3
    from botocore.config import Config

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    made_for = (os.getpid(), endpoint)
    with _lock:
        if made_for not in _clients:
            _clients[made_for] = boto3.session.Session().client(
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
        return _clients[made_for]


@cache
def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    # One thread a transfer: callers run several transfers side by side already.
    return TransferConfig(multipart_threshold=32 << 20, multipart_chunksize=32 << 20, use_threads=False)


def split_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key.

    Raises:
        StorageError: it is not such an address.
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
    """One bucket. Every method raises NotFound for what is not there and StorageError for anything else."""

    bucket: str

    @contextmanager
    def _told(self, act: str, key: str) -> Iterator[None]:
        """Turn botocore's errors into ours, with the address and what to do."""
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
        with self._told("read", key):
            return bytes(_client().get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def put(self, key: str, data: bytes, content_type: str | None = None) -> str:
        """Write the object, whether or not it is there, and return its URI."""
        extra = {"ContentType": content_type} if content_type else {}
        with self._told("write", key):
            _client().put_object(Bucket=self.bucket, Key=key, Body=data, **extra)
        return self.uri(key)

    def put_small(self, key: str, data: bytes, content_type: str | None = None) -> None:
        """Write a small object as `put` does, in less processor time."""
        with self._told("write", key):
            client = _client()
        if not quick_put(client, self.bucket, key, data, content_type):
            self.put(key, data, content_type)

    def put_new(self, key: str, data: bytes, content_type: str | None = None) -> bool:
        """Write the object unless it is there already; return whether it was written (`If-None-Match: *`)."""
        from botocore.exceptions import ClientError

        extra = {"ContentType": content_type} if content_type else {}
        with self._told("write", key):
            try:
                _client().put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*", **extra)
            except ClientError as error:
                if str(error.response.get("Error", {}).get("Code")) in {"PreconditionFailed", "412"}:
                    return False
                raise
        return True

    def upload(self, path: Path, key: str, content_type: str | None = None) -> str:
        """Write a file's content, in parts where it is large, and return the URI."""
        extra = {"ContentType": content_type} if content_type else None
        with self._told("write", key):
            _client().upload_file(str(path), self.bucket, key, ExtraArgs=extra, Config=_transfer())
        return self.uri(key)

    def download(self, key: str, path: Path, progress: Callable[[int], None] | None = None) -> Path:
        """Write the object to `path`, which appears only when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
        try:
            with self._told("read", key):
                _client().download_file(self.bucket, key, str(partial), Config=_transfer(), Callback=progress)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def stat(self, key: str) -> StoredObject:
        """Return what a listing says of the object, as it is now."""
        with self._told("look up", key):
            found = _client().head_object(Bucket=self.bucket, Key=key)
            return StoredObject(key, int(found["ContentLength"]), found["ETag"].strip('"'), found["LastModified"])

    def size(self, key: str) -> int:
        """Return the object's size in bytes."""
        return self.stat(key).size

    def exists(self, key: str) -> bool:
        """Return whether the object is there; only "not found" means no."""
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[StoredObject]:
        """List what begins with `prefix`, in order of key, page by page."""
        extra = {"StartAfter": start_after} if start_after else {}
        with self._told("list", prefix):
            pages = _client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, **extra)
            for page in pages:
                for item in page.get("Contents", []):
                    yield StoredObject(item["Key"], item["Size"], item["ETag"].strip('"'), item["LastModified"])

    def copy(self, source: str, target: str) -> str:
        """Copy one object within the bucket and return the copy's URI."""
        with self._told("copy", source):
            _client().copy_object(Bucket=self.bucket, Key=target, CopySource={"Bucket": self.bucket, "Key": source})
        return self.uri(target)

    def delete(self, key: str) -> None:
        """Delete the object; one that is not there is no error."""
        with self._told("delete", key):
            _client().delete_object(Bucket=self.bucket, Key=key)

    def url(self, key: str, seconds: int = 604_800) -> str:
        """Return an address that opens the object without credentials for `seconds` (at most 7 days)."""
        with self._told("sign", key):
            return str(
                _client().generate_presigned_url(
                    "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=min(seconds, 604_800)
                )
            )

    def ensure_bucket(self) -> None:
        """Create the bucket unless it is there."""
        from botocore.exceptions import ClientError

        with self._told("create", ""):
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
