"""Writes small objects to S3 in a fraction of boto3's processor time: serving writes every image that it judges.

boto3 resolves the bucket's address and the credentials, botocore's public signer signs the request, and urllib3 sends
it over a pooled connection. Anything but a 200 (a proxy, a redirect, an error) is left to boto3, which retries and
explains.
"""

import os
import threading
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

import urllib3

_TIMEOUT = urllib3.Timeout(connect=5.0, read=30.0)  # seconds
_lock = threading.Lock()
_pools: dict[int, urllib3.PoolManager] = {}
_credentials: dict[int, Any] = {}
_bases: dict[tuple[Any, str], str | None] = {}


def quick_put(client: Any, bucket: str, key: str, data: bytes, content_type: str | None) -> bool:
    """Write the object and return whether the server confirmed it; if not, boto3 must try.

    `client` is boto3's S3 client. The credentials are those that boto3 finds by itself. Safe to call from several
    threads.
    """
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest

    base, credentials = _base(client, bucket), _frozen_credentials()
    if base is None or credentials is None:
        return False
    request = AWSRequest("PUT", f"{base}/{quote(key, safe='/~')}", data=data)
    if content_type:
        request.headers["Content-Type"] = content_type
    S3SigV4Auth(credentials, "s3", client.meta.region_name).add_auth(request)
    try:
        answer = _pool().urlopen(
            "PUT", str(request.url), body=data, headers=dict(request.headers), redirect=False, retries=False
        )
    except (urllib3.exceptions.HTTPError, OSError, ValueError):  # ValueError: a header of several lines
        return False
    return answer.status == 200


def _base(client: Any, bucket: str) -> str | None:
    """Return the bucket's address by boto3's own rules, without a login; None behind a proxy.

    Resolving takes a while, so it is done once per client; boto3 itself looks for a proxy when it makes its client.
    """
    with _lock:
        if (client, bucket) not in _bases:
            signed = urlsplit(client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "key"}))
            host = signed.netloc.rpartition("@")[2].lower()
            address = f"{signed.scheme}://{host}{signed.path.removesuffix('/key')}"
            _bases[client, bucket] = None if getproxies() else address
        return _bases[client, bucket]


def _frozen_credentials() -> Any:
    """Return the current credentials; those of an IAM role refresh themselves. None if boto3 finds none."""
    with _lock:
        if os.getpid() not in _credentials:
            import boto3

            _credentials[os.getpid()] = boto3.session.Session().get_credentials()
        credentials = _credentials[os.getpid()]
    return credentials.get_frozen_credentials() if credentials else None


def _pool() -> urllib3.PoolManager:
    """Return this process's connections: a forked process must not share its parent's."""
    with _lock:
        if os.getpid() not in _pools:
            import certifi

            trusted = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
            _pools[os.getpid()] = urllib3.PoolManager(maxsize=8, ca_certs=trusted, timeout=_TIMEOUT)
        return _pools[os.getpid()]
