"""Writes small objects to S3 in a quarter of the processor time that boto3 takes: serving writes every image it judges.

boto3 says where a bucket is and whose credentials count; the request is signed by botocore and sent over a connection
that stays open. Whatever is not the plain case (a proxy, a redirect, any answer but 200) is left to boto3.
"""

import http.client
import os
import ssl
import threading
import time
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

_SECONDS = 30.0
_IDLE_SECONDS = 5.0  # after which a server may have closed the connection
_held = threading.local()


def quick_put(client: Any, bucket: str, key: str, data: bytes, content_type: str | None) -> bool:
    """Write the object and return whether that is sure; if not, boto3 must try.

    `client` is boto3's S3 client. One connection is kept for each thread and server.
    """
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest

    if getproxies():
        return False
    base = _base(client, bucket)
    headers = {"Content-Type": content_type} if content_type else {}
    signed = AWSRequest("PUT", f"{base}/{quote(key, safe='/~')}", data=data, headers=headers)
    credentials = client._request_signer._credentials  # refreshes those of an IAM role by itself
    if credentials is None:
        return False
    S3SigV4Auth(credentials.get_frozen_credentials(), "s3", client.meta.region_name).add_auth(signed)
    parts = urlsplit(str(signed.url))
    connection = _connection(parts.scheme, parts.netloc)
    try:
        connection.request("PUT", parts.path, body=data, headers=dict(signed.headers))
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return False
    if answer.status != 200:
        connection.close()
        return False
    _held.used = time.monotonic()
    return True


def _base(client: Any, bucket: str) -> str:
    """Return the address of the bucket, by boto3's own rules, which it takes a while to go through."""
    known: dict[tuple[int, str], str] = _held.__dict__.setdefault("bases", {})
    made_for = (id(client), bucket)
    if made_for not in known:
        signed = client.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "key"})
        known[made_for] = signed.partition("?")[0].removesuffix("/key")
    return known[made_for]


def _connection(scheme: str, netloc: str) -> http.client.HTTPConnection:
    made_for = (os.getpid(), scheme, netloc)
    connection: http.client.HTTPConnection | None = getattr(_held, "connection", None)
    if connection is None or _held.made_for != made_for:
        if scheme == "https":
            trusted = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
            context = ssl.create_default_context(cafile=trusted or _authorities())
            connection = http.client.HTTPSConnection(netloc, timeout=_SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(netloc, timeout=_SECONDS)
        _held.connection, _held.made_for, _held.used = connection, made_for, time.monotonic()
    if time.monotonic() - _held.used > _IDLE_SECONDS:
        connection.close()  # opened anew by the next request
    return connection


def _authorities() -> str:
    import certifi

    return certifi.where()
