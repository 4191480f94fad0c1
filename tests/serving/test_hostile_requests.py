"""Requests that nobody should send: each gets its own 4xx in one line, and leaves nothing behind."""

import re
from typing import Any

import numpy as np
import requests

from tests.conftest import wait_until
from tests.serving.conftest import Registry, Relay, Server, encoded, until_rows

NO_IMAGES = [
    b"",
    b"not an image",
    b"GIF89a" + b"\0" * 50,
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"\x89PNG\r\n\x1a\n" + b"\0" * 1000,
    b"\xff\xd8\xff\xe0" + b"\0" * 1000,
    b"%PDF-1.7",
    b"PK\x03\x04",
]
NO_JSON = [b"", b"{", b"\xff", b"null", b"[" * 60_000, b"1" * 60_000, b'{"image_url": "http://x"', b"NaN"]
NO_URL: list[Any] = [
    [],
    {},
    "text",
    1,
    {"image_url": None},
    {"image_url": ["http://example.com/x.png"]},
    {"image_url": {"http": "x"}},
    {"image_url": ""},
    {"image_url": "x", "IMAGE_URL": "y"},
    {"url": "http://example.com/x.png"},
    {"image_url": "file:///etc/passwd"},
    {"image_url": "\x00http://example.com"},
]


def test_predict_when_request_is_hostile_then_4xx_with_one_line_and_nothing_recorded(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    server.start(INSPECTLINE_MAX_IMAGE_MB="1").until_version(version)

    def post(data: Any, kind: str | None) -> requests.Response:
        headers = {"Content-Type": kind} if kind else {}
        return requests.post(f"{server.address}/predict", data=data, headers=headers, timeout=30)

    def form(files: Any) -> requests.Response:
        return requests.post(f"{server.address}/predict", files=files, timeout=30)

    bomb, tiny = encoded(np.zeros((8000, 8000, 3), np.uint8)), encoded(np.zeros((16, 16, 3), np.uint8))
    truncated = good_file[: len(good_file) // 2]
    answers = [((400, 422), server.predict(data)) for data in NO_IMAGES]
    answers += [((422,), server.predict(data)) for data in (bomb, tiny, truncated)]
    answers += [((400,), post(data, "application/json")) for data in NO_JSON]
    answers += [
        ((400,), requests.post(f"{server.address}/predict", json=body, timeout=30)) for body in NO_URL if body != []
    ]
    answers += [
        ((413,), server.predict(b"x" * (2 << 20))),
        ((413,), post(iter([b"x" * (1 << 20)] * 3), "image/png")),  # in chunks, its length not told
        ((413,), post(b" " * 700_000, "application/json")),
        ((413,), form({f"field{number}": b"x" for number in range(100)})),
        ((400,), form([("file", b"x")] * 65)),
        ((400,), form({"picture": good_file})),
        ((400,), form({"../../etc/passwd": ("../../x.png", good_file)})),
        ((400,), post(b"------x", "multipart/form-data")),
        ((400,), post(b"", "image/png")),
        ((415,), post({"file": "text"}, "application/x-www-form-urlencoded")),
        ((415,), post(good_file, "text/plain")),
        ((415,), post(good_file, None)),
        ((422,), server.predict_url("http://127.0.0.1:1/x.png")),
        ((422,), server.predict_url("http://169.254.169.254/latest/meta-data/")),
        ((422,), server.predict_url("s3://other/x.png")),
        ((405,), requests.get(f"{server.address}/predict", timeout=30)),
        ((404,), requests.get(f"{server.address}/nothing", timeout=30)),
        ((404,), server.predict(good_file, "/projects/nothing/predict")),
    ]
    for expected, answer in answers:
        assert answer.status_code in expected, answer.text
        assert "\n" not in answer.json()["error"]
        assert len(answer.json()["error"]) < 500
        assert "Traceback" not in answer.text
    assert server.predict(good_file).status_code == 200
    assert len(until_rows(1)) == 1
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


def test_methods_when_rare_or_invented_then_refused_and_no_figures_of_their_own(server: Server):
    server.start()
    for method in ("PROPFIND", "MKCOL", "COPY", "MOVE", "PURGE"):
        for _ in range(4):
            assert requests.request(method, f"{server.address}/predict", timeout=10).status_code == 405
    for number in range(20):  # the parser knows no such methods
        assert requests.request(f"ODD{number}", f"{server.address}/predict", timeout=10).status_code == 400

    def figures() -> str:
        return requests.get(f"{server.address}/metrics", timeout=10).text

    counted = 'inspectline_requests_total{call="none",method="other",status="405"} 20.0'
    wait_until(lambda: counted in figures(), 10, "all requests counted")
    assert not {"ODD", "PROPFIND"} & set(re.findall(r"[A-Z]+", figures()))


def test_calls_when_another_sites_page_makes_them_then_403(server: Server):
    server.start()
    cross = {"Sec-Fetch-Site": "cross-site"}
    for call in ("/models/1/promote", "/models/release", "/predict", "/login", "/retrain"):
        answer = requests.post(server.address + call, headers=cross, timeout=30)
        assert (answer.status_code, "another site" in answer.json()["error"]) == (403, True), call
    assert requests.get(f"{server.address}/status", headers=cross, timeout=10).status_code == 200
    own = requests.post(f"{server.address}/predict", headers={"Sec-Fetch-Site": "same-origin"}, timeout=10)
    assert own.status_code == 503  # no model


def test_status_when_the_registry_and_the_database_are_away_then_no_secret_nor_host_of_theirs(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    server.start().until_version(version)
    server.end()
    secret = registry.address.replace("//", "//someone:topsecret@")
    with Relay(registry.address) as relay:
        server.start(
            MLFLOW_TRACKING_URI=secret.replace(registry.address.rpartition(":")[2], str(relay.port)),
            INSPECTLINE_DATABASE_URL="postgresql+psycopg://hidden_user:topsecret@127.0.0.1:1/hidden_base",
        ).until_version(version)
        relay.down()
        assert server.predict(good_file).status_code == 200
        wait_until(lambda: server.status()["last_poll"]["problem"] is not None, 20, "a failed poll")
        wait_until(lambda: server.status()["journal"]["problem"] is not None, 20, "a failed entry")
    told = requests.get(f"{server.address}/status", timeout=10).text
    server.end()
    assert "topsecret" not in told + server.log.read_text(encoding="utf-8")
    assert "someone" not in told
    assert "hidden" not in told
