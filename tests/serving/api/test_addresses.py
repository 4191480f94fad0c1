"""Hostile and odd addresses: what is fetched, and what is refused."""

import socket
from typing import Any

import pytest

from pipelines.config.project import Project
from serving.api.addresses import judge, never
from serving.limits.fetch import Fetcher
from serving.refusals import Refusal

OWN = Project(name="line", bucket="own")
REFUSED = [
    "http://127.0.0.1/x.png",
    "http://127.1/x.png",
    "http://127.0.0.53:8080/x.png",
    "http://0.0.0.0/x.png",
    "http://0/x.png",
    "http://2130706433/x.png",  # 127.0.0.1 as one decimal number
    "http://0x7f000001/x.png",
    "http://0x7f.0.0.1/x.png",
    "http://0177.0.0.1/x.png",
    "http://017700000001/x.png",
    "http://localhost/x.png",
    "http://LOCALHOST./x.png",
    "http://①②⑦.⓪.⓪.①/x.png",
    "http://10.0.0.7/x.png",
    "http://172.16.0.1/x.png",
    "http://192.168.1.1/x.png",
    "http://100.64.0.1/x.png",
    "http://100.100.100.200/latest/meta-data",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://0xa9fea9fe/latest/meta-data/",  # 169.254.169.254
    "http://2852039166/latest/meta-data/",
    "http://168.63.129.16/machine",
    "http://192.0.0.192/opc/v1",
    "http://198.18.0.1/x.png",
    "http://224.0.0.1/x.png",
    "http://240.0.0.1/x.png",
    "http://255.255.255.255/x.png",
    "http://[::1]/x.png",
    "http://[::]/x.png",
    "http://[0:0:0:0:0:0:0:1]:80/x.png",
    "http://[::ffff:127.0.0.1]/x.png",
    "http://[::ffff:a9fe:a9fe]/x.png",
    "http://[::127.0.0.1]/x.png",
    "http://[64:ff9b::7f00:1]/x.png",
    "http://[64:ff9b:1::1]/x.png",
    "http://[2002:7f00:1::]/x.png",  # 6to4
    "http://[2001:0:7f00:1::80ff:fffe]/x.png",  # Teredo
    "http://[fe80::1]/x.png",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fc00::1]/x.png",
    "http://[fec0::1]/x.png",
    "http://[ff02::1]/x.png",
    "https://127.0.0.1/x.png",
    "HTTP://127.0.0.1/x.png",
]
UNUSABLE = [
    "file:///etc/passwd",
    "ftp://example.com/x.png",
    "gopher://127.0.0.1:6379/_INFO",
    "dict://127.0.0.1:11211/stats",
    "data:image/png;base64,AAAA",
    "jar:http://example.com!/x.png",
    "//example.com/x.png",
    "example.com/x.png",
    "http:///x.png",
    "http://",
    "http://user:secret@example.com/x.png",
    "http://example.com@127.0.0.1/x.png",
    "http://127.0.0.1\\@example.com/x.png",
    "http://exa mple.com/x.png",
    "http://example.com/x.png\r\nHost: 127.0.0.1",
    "http://example.com:99999/x.png",
    "http://example.com:port/x.png",
    "http://[::1/x.png",
    "http://[fe80::1%25eth0]/x.png",
    "http://a..b/x.png",
    "http://" + "a" * 70 + ".com/x.png",
    "http://example.com/" + "x" * 9000,
    "s3://",
    "s3://bucket",
    "s3:///key",
]


@pytest.mark.parametrize("url", REFUSED)
def test_fetch_when_address_is_not_public_then_refused_without_a_connection(url: str, monkeypatch: pytest.MonkeyPatch):
    def connect(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(Refusal) as refused:
        Fetcher(1000, 5).fetch(url, OWN)
    # 424 where the resolver itself knows no such host: just as refused.
    assert refused.value.status in (422, 424), refused.value
    if refused.value.status == 422:
        assert "address" in str(refused.value)


@pytest.mark.parametrize("url", UNUSABLE)
def test_fetch_when_url_is_unusable_then_400_in_one_line(url: str):
    with pytest.raises(Refusal) as refused:
        Fetcher(1000, 5).fetch(url, OWN)
    assert refused.value.status == 400
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"]
)
def test_judge_when_address_is_public_then_nothing_is_wrong(address: str):
    assert judge(address) is None


def test_fetch_when_dns_changes_its_answer_then_the_judged_address_is_connected(monkeypatch: pytest.MonkeyPatch):
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    connected: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    def connect(address: tuple[str, int], **_: Any) -> socket.socket:
        connected.append(address[0])
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(Refusal):
        Fetcher(1000, 5).fetch("http://rebind.example/x.png", OWN)
    assert connected == ["93.184.216.34"]


def test_fetch_when_one_of_several_addresses_is_private_then_refused(monkeypatch: pytest.MonkeyPatch):
    infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
    with pytest.raises(Refusal, match="a private address") as refused:
        Fetcher(1000, 5).fetch("http://both.example/x.png", OWN)
    assert refused.value.status == 422


def test_fetch_when_an_allowed_name_points_to_metadata_then_refused_still(monkeypatch: pytest.MonkeyPatch):
    infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
    assert never("169.254.169.254")
    with pytest.raises(Refusal, match="a metadata address"):
        Fetcher(1000, 5, frozenset({"camera.factory"})).fetch("http://camera.factory/x.png", OWN)
