"""The quick way to S3: whatever a server answers, it says whether the object is sure to be there, and goes on."""

import socket
import threading
from collections.abc import Callable, Iterator

import boto3
import pytest

from pipelines.storage.quick_put import quick_put

OK = b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Takes whole requests and answers each with the next of `answers`; closes after one of them that is empty."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            with connected:
                while (request := self._request(connected)) and (answer := self.answers.pop(0)):
                    self.requests.append(request)
                    connected.sendall(answer)

    def _request(self, connected: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := connected.recv(1 << 16)):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(next(line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")))
        while len(body) < length:
            body += connected.recv(1 << 16)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def put(server: Server) -> Callable[..., bool]:
    client = boto3.client(
        "s3", endpoint_url=server.address, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
    )
    return lambda kind="image/png": quick_put(client, "bucket", "a key", b"data", kind)


def test_quick_put_when_answered_then_the_next_goes_over_the_same_connection(server, put):
    server.answers = [OK, OK]
    assert put()
    assert put()
    assert server.connections == 1
    head, _, body = server.requests[1].partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /bucket/a%20key HTTP/1.1\r\n")
    assert body == b"data"
    assert head.lower().count(b"\r\nhost:") == 1
    assert b"AWS4-HMAC-SHA256" in head


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Slow Down\r\nContent-Length: 4\r\n\r\nlate",
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        b"220 smtp.example.com ESMTP\r\n\r\n",
        b"x" * (70 << 10),
        b"",
    ],
)
def test_quick_put_when_the_answer_is_not_200_then_it_is_not_sure_and_the_next_is(server, put, answer):
    server.answers = [answer, OK]
    assert not put()
    assert put()


def test_quick_put_when_the_server_closes_after_its_answer_then_begins_anew(server, put):
    server.answers = [OK.replace(b"ETag: x", b"Connection: close"), OK]
    assert put()
    assert put()
    assert server.connections == 2


def test_quick_put_when_a_header_would_break_the_request_then_it_is_not_sent(server, put):
    assert not put("image/png\r\nx-amz-acl: public-read")
    assert server.requests == []


def test_quick_put_when_the_address_has_capitals_or_a_password_then_the_host_is_as_it_was_signed(server):
    address = server.address.replace("127.0.0.1", "user:secret@LocalHost")
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    server.answers = [OK]
    assert quick_put(boto3.client("s3", endpoint_url=address, **keys), "bucket", "a key", b"data", None)
    lines = server.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line for line in lines if line.lower().startswith(b"host:")] == [
        b"Host: localhost:" + server.address.rpartition(":")[2].encode()
    ]
    assert b"secret" not in server.requests[0]


def test_quick_put_when_there_is_a_proxy_then_it_is_left_to_boto3(server, put, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.answers = [OK]
    assert not put()
    assert server.requests == []
    monkeypatch.delenv("HTTP_PROXY")
    assert not put()  # asked once for a client
