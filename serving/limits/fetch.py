"""Fetches an image by its URL (http, https or s3) from allowed hosts, within limits of size and time.

S3 objects are read through a presigned URL, so that the same limits apply. A request reads what is its project's own,
and what the project file lists under `read_from`.
"""

import http.client
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from pipelines.config.project import Project
from pipelines.config.s3_addresses import key_problem
from pipelines.errors import NotFound, StorageError
from pipelines.storage.s3 import Storage, split_uri
from serving.api.addresses import judge, never
from serving.limits.pinned_connection import DEFAULT_PORTS, PinnedConnection
from serving.logs import shown
from serving.refusals import Refusal, unavailable

MAX_REDIRECTS = 5
MAX_URL = 8192
_CHUNK = 1 << 16
_SAFE = "/%:@!$&'()*+,;=~-._?"
_NOT_TELLING = {"", "application/octet-stream", "binary/octet-stream", "application/x-octet-stream"}


@dataclass(frozen=True)
class Fetcher:
    """Reads images from URLs sent by clients.

    `max_bytes` and `seconds` bound one fetch as a whole, redirects included. `allowed_hosts` are internal hosts
    (`host` or `host:port`) that may have a private address.
    """

    max_bytes: int
    seconds: float
    allowed_hosts: frozenset[str] = frozenset()
    _resolvers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, "resolve"), repr=False)

    def fetch(self, url: str, project: Project) -> bytes:
        """Return the bytes at `url` for a request of `project`.

        Raises:
            Refusal: 400 for an invalid URL, 404 for a missing image, 413 for a file that is too large, 415 for another
                content type, 422 for an empty file, an S3 key that is not accepted, or a host, bucket or prefix that
                is not allowed, 424 for a server that fails or is too slow.
        """
        deadline = time.monotonic() + self.seconds
        scheme = url.partition(":")[0].lower()
        if scheme == "s3":
            return self._from_s3(url, project, deadline)
        if len(url) > MAX_URL:
            raise Refusal(400, f"image_url has {len(url):,} characters, {MAX_URL:,} are allowed: shorten it")
        parts = _parse(url)
        first = shown(parts.geturl())
        for _ in range(MAX_REDIRECTS + 1):
            addresses = self._resolve(parts, deadline)
            answer = self._get(parts, addresses, deadline, shown_as=shown(parts.geturl()), typed=True)
            if isinstance(answer, bytes):
                return answer
            parts = _redirected(parts, answer, first)
        raise Refusal(424, f"{first}: more than {MAX_REDIRECTS} redirects; give the image's own address")

    def _from_s3(self, uri: str, project: Project, deadline: float) -> bytes:
        try:
            bucket, key = split_uri("s3" + uri[2:])
        except NotFound:
            raise Refusal(400, f"image_url {uri[:200]!r} is no S3 address: write s3://bucket/key") from None
        if problem := key_problem(key):
            raise Refusal(422, f"image_url {uri[:200]!r}: the key {problem}; give the key of an image")
        if not project.may_read(bucket, key):
            own = f"s3://{project.bucket}/{project.name}/"
            remedy = f"project {project.name} reads below {own} and what its file lists under read_from"
            raise Refusal(422, f"image_url {uri[:200]!r} is not allowed: {remedy}")
        try:
            parts = urlsplit(Storage(bucket).url(key, seconds=300))
        except StorageError as error:
            raise unavailable(str(error)) from error
        try:
            answer = self._get(parts, self._lookup(parts, deadline), deadline, shown_as=uri, typed=False)
        except Refusal as refusal:
            if refusal.status == 424:
                raise unavailable(f"S3 does not give {uri} now ({refusal}); try again") from refusal
            raise
        if isinstance(answer, bytes):
            return answer
        raise unavailable(f"S3 answers {uri} with a redirect; have AWS_DEFAULT_REGION and AWS_ENDPOINT_URL set right")

    def _resolve(self, parts: SplitResult, deadline: float) -> list[str]:
        """Return the addresses of a host, each of them checked."""
        host, port = str(parts.hostname), _port(parts)
        bare = f"[{host}]" if ":" in host else host
        named = bool({host, bare, f"{bare}:{port}"} & self.allowed_hosts)
        addresses = self._lookup(parts, deadline)
        for address in addresses:
            wrong = judge(address)
            if wrong and (not named or (never(address) and address != host)):
                remedy = "upload the file"
                if not never(address):
                    remedy += f", or have INSPECTLINE_ALLOWED_HOSTS name {bare}:{port}"
                raise Refusal(422, f"{shown(parts.geturl())}: {host} is {wrong}, not fetched from; {remedy}")
        return addresses

    def _lookup(self, parts: SplitResult, deadline: float) -> list[str]:
        host = str(parts.hostname)
        # In a thread, because the system's resolver has no timeout of its own.
        asked = self._resolvers.submit(socket.getaddrinfo, host, _port(parts), type=socket.SOCK_STREAM)
        try:
            infos = asked.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeout:
            asked.cancel()
            raise _too_slow(shown(parts.geturl()), self.seconds) from None
        except (OSError, UnicodeError):
            raise Refusal(424, f"{shown(parts.geturl())}: no host {host!r} is known; check the address") from None
        return list(dict.fromkeys(str(info[4][0]) for info in infos))

    def _get(
        self, parts: SplitResult, addresses: list[str], deadline: float, *, shown_as: str, typed: bool
    ) -> bytes | str:
        """Return the body, or the target of a redirect. `shown_as` names the address in errors."""
        connection = PinnedConnection(parts.scheme, str(parts.hostname), _port(parts), addresses, deadline)
        target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        try:
            connection.request("GET", target, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
            response = connection.getresponse()
            if response.status in (301, 302, 303, 307, 308) and (location := response.getheader("Location")):
                return location
            return self._body(response, shown_as, typed, connection)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if connection.expired:
                raise _too_slow(shown_as, self.seconds) from error
            reason = " ".join(str(error).split()) or type(error).__name__
            raise Refusal(424, f"{shown_as}: cannot be fetched ({reason}); check the address") from error
        finally:
            connection.end()

    def _body(
        self, response: http.client.HTTPResponse, shown_as: str, typed: bool, connection: PinnedConnection
    ) -> bytes:
        if response.status in (404, 410):
            raise Refusal(404, f"{shown_as}: there is no such image; check the address")
        if response.status != 200:
            raise Refusal(424, f"{shown_as}: its server answered {response.status}; check the address")
        kind = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        if typed and not kind.startswith("image/") and kind not in _NOT_TELLING:
            raise Refusal(415, f"{shown_as}: is {kind[:80]}, not an image; give the address of the image itself")
        if (response.getheader("Content-Encoding") or "identity").lower() != "identity":
            raise Refusal(415, f"{shown_as}: comes compressed; have its server send it plain")
        expected = response.length
        if expected is not None and expected > self.max_bytes:
            raise too_large(shown_as, self.max_bytes)
        data = bytearray()
        while chunk := response.read(_CHUNK):
            data += chunk
            if len(data) > self.max_bytes:
                raise too_large(shown_as, self.max_bytes)
        if connection.expired:
            raise _too_slow(shown_as, self.seconds)
        if expected is not None and len(data) < expected:
            raise Refusal(424, f"{shown_as}: ended after {len(data):,} of {expected:,} bytes; try again")
        if not data:
            raise Refusal(422, f"{shown_as}: the file is empty, 0 bytes; look whether the camera has written it")
        return bytes(data)


def _parse(url: str) -> SplitResult:
    """Parse an http(s) URL; the host is converted to ASCII and lower case."""
    if any(character <= " " or character in "\\\x7f" for character in url):
        raise Refusal(400, "image_url holds spaces, backslashes or control characters: write it percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        raise Refusal(400, "image_url is not a valid address: write http://, https:// or s3://…") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise Refusal(400, f"image_url has the scheme {parts.scheme[:20]!r}: http, https and s3 are allowed")
    if not host or "%" in host:
        raise Refusal(400, "image_url names no host: write http://host/path")
    if "@" in parts.netloc:
        raise Refusal(400, "image_url holds a user name or password: leave them out, or upload the file")
    netloc = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=netloc if port is None else f"{netloc}:{port}", fragment="")


def _redirected(parts: SplitResult, location: str, first: str) -> SplitResult:
    """Parse the target of a redirect; it is checked like any other URL."""
    try:
        return _parse(urljoin(parts.geturl(), location))
    except (ValueError, Refusal) as error:
        raise Refusal(424, f"{first}: leads to an address that cannot be used; give the image's own") from error


def _port(parts: SplitResult) -> int:
    return parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]


def too_large(what: str, max_bytes: int) -> Refusal:
    """Return the 413 for an image of more than `max_bytes` bytes."""
    return Refusal(413, f"{what}: has more than {max_bytes / (1 << 20):g} MB; send a smaller image")


def _too_slow(shown_as: str, seconds: float) -> Refusal:
    return Refusal(424, f"{shown_as}: not there within {seconds:g} s; its server is too slow, upload the file instead")
