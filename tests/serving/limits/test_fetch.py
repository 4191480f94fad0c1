"""Fetching from real HTTP and S3 servers that behave, and from some that do not."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.config.project import Project
from pipelines.storage.s3 import Storage
from serving.limits.fetch import Fetcher
from serving.refusals import Refusal

OWN = Project(name="line", bucket="own")
IMAGE = b"\x89PNG\r\n\x1a\n" + b"pixels" * 100


class Site(BaseHTTPRequestHandler):
    """A web server with every bad habit, one a path."""

    protocol_version = "HTTP/1.1"
    elsewhere = ""

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Answer as the path says."""
        path = self.path.partition("?")[0]
        getattr(self, "at_" + path.strip("/").replace("-", "_").replace(".", "_"))()

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send one plain answer."""
        self.send_response(status)
        for name, value in ({"Content-Type": "image/png", "Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def at_good_png(self) -> None:
        """The image; only to a client that names this host."""
        assert self.headers["Host"].startswith(("127.0.0.1:", "localhost:")), self.headers["Host"]
        self.reply(200, IMAGE)

    def at_untyped(self) -> None:
        """The image, of a server that does not know what it is."""
        self.reply(200, IMAGE, **{"Content-Type": "application/octet-stream"})

    def at_page(self) -> None:
        """A web page."""
        self.reply(200, b"<html>", **{"Content-Type": "text/html; charset=utf-8"})

    def at_missing(self) -> None:
        """Nothing."""
        self.reply(404)

    def at_broken(self) -> None:
        """A failing server."""
        self.reply(500)

    def at_here(self) -> None:
        """A redirect that is fine."""
        self.reply(302, Location="/good.png")

    def at_round(self) -> None:
        """A redirect without an end."""
        self.reply(302, Location="/round")

    def at_inside(self) -> None:
        """A redirect to a host that nobody allowed."""
        self.reply(302, Location=self.elsewhere)

    def at_file(self) -> None:
        """A redirect to another scheme."""
        self.reply(302, Location="file:///etc/passwd")

    def at_nowhere(self) -> None:
        """A redirect that is no address."""
        self.reply(302, Location="http://[::1/x.png")

    def at_zipped(self) -> None:
        """Compressed, perhaps a bomb."""
        self.reply(200, b"\x1f\x8b", **{"Content-Encoding": "gzip"})

    def at_huge(self) -> None:
        """More than allowed, announced."""
        self.reply(200, b"", **{"Content-Length": "999999999999"})

    def at_endless(self) -> None:
        """More than allowed, in chunks, without an end."""
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(100_000):
                self.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        except OSError:
            self.server.cut = True  # type: ignore[attr-defined]

    def at_short(self) -> None:
        """Ends before its length."""
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(IMAGE)
        self.close_connection = True

    def at_drip(self) -> None:
        """A byte now and then: no single read is slow."""
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", "5000")
        self.end_headers()
        try:
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.1)
        except OSError:
            pass


@pytest.fixture
def site() -> Iterator[str]:
    """Run the site and return its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetcher(site: str) -> Fetcher:
    """May fetch from the site, 200 kB within a second."""
    return Fetcher(200_000, 1.0, frozenset({site}))


@pytest.mark.parametrize("path", ["good.png", "good.png?signature=a%2Fb", "untyped", "here"])
def test_fetch_when_host_is_allowed_then_image(fetcher: Fetcher, site: str, path: str):
    assert fetcher.fetch(f"http://{site}/{path}", OWN) == IMAGE


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("page", 415, "not an image"),
        ("missing", 404, "no such image"),
        ("broken", 424, "answered 500"),
        ("round", 424, "more than 5 redirects"),
        ("file", 424, "leads to an address that cannot be used"),
        ("nowhere", 424, "leads to an address that cannot be used"),
        ("zipped", 415, "compressed"),
        ("huge", 413, "has more than"),
        ("endless", 413, "has more than"),
        ("short", 424, "ended after"),
        ("drip", 424, "too slow"),
    ],
)
def test_fetch_when_server_misbehaves_then_told_why(fetcher: Fetcher, site: str, path: str, status: int, words: str):
    began = time.monotonic()
    with pytest.raises(Refusal, match=words) as refused:
        fetcher.fetch(f"http://{site}/{path}?token=secret", OWN)
    assert refused.value.status == status
    assert "secret" not in str(refused.value)
    assert time.monotonic() - began < 3


def test_fetch_when_redirected_to_an_internal_host_then_refused(
    fetcher: Fetcher, site: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Site, "elsewhere", "http://127.0.0.1:1/x.png")
    with pytest.raises(Refusal, match="a loopback address") as refused:
        fetcher.fetch(f"http://{site}/inside", OWN)
    assert refused.value.status == 422


def test_fetch_when_server_never_answers_then_stopped_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        for scheme in ("http", "https"):  # https: the handshake hangs
            began = time.monotonic()
            with pytest.raises(Refusal, match="too slow"):
                Fetcher(1000, 0.5, frozenset({host})).fetch(f"{scheme}://{host}/x.png", OWN)
            assert time.monotonic() - began < 2


def test_fetch_when_nothing_listens_then_424():
    with pytest.raises(Refusal, match="cannot be fetched") as refused:
        Fetcher(1000, 2, frozenset({"127.0.0.1:1"})).fetch("http://127.0.0.1:1/x.png", OWN)
    assert refused.value.status == 424


def test_fetch_when_https_then_certificate_is_checked_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    certificate, key = tmp_path / "site.pem", tmp_path / "site.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_port
    fetcher = Fetcher(200_000, 5, frozenset({"localhost", "127.0.0.1"}))
    try:
        with pytest.raises(Refusal, match="certificate"):
            fetcher.fetch(f"https://localhost:{port}/good.png", OWN)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert fetcher.fetch(f"https://localhost:{port}/good.png", OWN) == IMAGE
        with pytest.raises(Refusal, match="certificate"):
            fetcher.fetch(f"https://127.0.0.1:{port}/good.png", OWN)
    finally:
        server.shutdown()
        server.server_close()


def test_fetch_when_s3_then_limits_hold_there_too(bucket: str):
    own = Project(name="line", bucket=bucket)
    Storage(bucket).put("line/Prüf 1+2&x.png", IMAGE)
    Storage(bucket).put("line/large.png", b"x" * 300_000)
    Storage(bucket).put("line/empty.png", b"")
    fetcher = Fetcher(200_000, 5)
    assert fetcher.fetch(f"s3://{bucket}/line/Prüf 1+2&x.png", own) == IMAGE
    assert fetcher.fetch(f"S3://{bucket}/line/Prüf 1+2&x.png", own) == IMAGE
    for key, status in (("line/large.png", 413), ("line/none.png", 404), ("line/empty.png", 422)):
        with pytest.raises(Refusal) as refused:
            fetcher.fetch(f"s3://{bucket}/{key}", own)
        assert refused.value.status == status
        assert str(refused.value).startswith(f"s3://{bucket}/{key}: ")


def test_fetch_when_s3_is_away_then_503(bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Refusal, match="try again") as refused:
        Fetcher(200_000, 5).fetch(f"s3://{bucket}/line/x.png", Project(name="line", bucket=bucket))
    assert (refused.value.status, refused.value.retry_after) == (503, 5)


@pytest.mark.parametrize(
    "key",
    ["../../secrets.env", "line/../../x.png", "line/../other/x.png", "/etc/passwd", "line//x.png", "line/./x.png"]
    + ["line/" + "x" * 2_000, "line/" + "x" * 20_000, "line/a\x00.png", "line/a\n.png", "line/%2e%2e/other/x.png"]
    + ["other/x.png", "x.png", "line", "line2/x.png"],
)
def test_fetch_when_s3_key_is_odd_or_not_the_projects_then_422_and_s3_is_not_asked(
    key: str, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")  # a request there would be answered with 503
    with pytest.raises(Refusal) as refused:
        Fetcher(1000, 5).fetch(f"s3://{bucket}/{key}", Project(name="line", bucket=bucket))
    assert refused.value.status == 422
    assert len(str(refused.value)) < 500
    assert str(refused.value).isprintable()


def test_fetch_when_the_project_file_lists_a_prefix_then_read_from_there_alone(bucket: str):
    Storage(bucket).put("shared/x.png", IMAGE)
    own = Project(name="line", bucket=bucket)
    listed = Project(name="line", bucket="own", read_from=[f"s3://{bucket}/shared/"])
    fetcher = Fetcher(1000, 5)
    assert fetcher.fetch(f"s3://{bucket}/shared/x.png", listed) == IMAGE
    for project, key in ((own, "shared/x.png"), (listed, "line/x.png"), (listed, "shared/../line/x.png")):
        with pytest.raises(Refusal) as refused:
            fetcher.fetch(f"s3://{bucket}/{key}", project)
        assert refused.value.status == 422
