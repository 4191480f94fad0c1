"""Requests of real clients that are refused with what to do, or taken, over a real connection."""

import base64
import gzip
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from pipelines.storage.s3 import Storage
from tests.conftest import Projects
from tests.serving.conftest import Registry, Server, until_rows

JSON = {"Content-Type": "application/json"}


def post(server: Server, path: str, data: Any, **headers: str) -> requests.Response:
    return requests.post(server.address + path, data=data, headers=headers, timeout=30)


def refused(answer: requests.Response, *statuses: int) -> str:
    """Return the line with which an answer refuses."""
    assert answer.status_code in statuses, answer.text
    message = answer.json()["error"]
    assert "\n" not in message
    assert len(message) < 500
    return str(message)


def test_json_when_a_name_stands_twice_at_any_depth_then_400(server: Server, registry: Registry):
    server.start().until_version(registry.register())
    bodies = [
        '{"image_url": "http://a/x.png", "image_url": "http://b/x.png"}',
        '{"image_url": "http://a/x.png", "image\\u005furl": "http://b/x.png"}',
        '{"image_url": {"a": 1, "a": 2}}',
        '{"image_urls": [{"b": {"a": 1, "a": 1}}]}',
    ]
    for body in bodies:
        for path in ("/predict", "/retrain", "/anomaly"):
            assert "more than once" in refused(post(server, path, body, **JSON), 400)
    label = '{"sha256": "ab", "label": "good", "label": "anomaly"}'
    assert "label" in refused(post(server, "/annotations", label, **JSON), 400)
    login = '{"name": "a", "password": "x", "password": "y"}'
    for method, path in (("POST", "/login"), ("POST", "/users"), ("PATCH", "/users/a")):
        answer = requests.request(method, server.address + path, data=login, headers=JSON, timeout=30)
        assert "password" in refused(answer, 400)
    for body in ('{"image_url": NaN}', "[" * 60_000, '{"image_url": ' + "1" * 6000 + "}", ""):
        refused(post(server, "/predict", body, **JSON), 400)


def test_cursor_when_forged_then_400(server: Server, registry: Registry, good_file: bytes):
    server.start().until_version(registry.register())
    for _ in range(3):
        assert server.predict(good_file).ok
    until_rows(3)

    def page(**query: str) -> requests.Response:
        return requests.get(f"{server.address}/predictions", params=query, timeout=30)

    def cursor(content: Any) -> str:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    given = page(limit="1").json()["next"]
    assert page(limit="1", cursor=given).ok
    now = datetime.now(UTC).isoformat()
    forged = [
        cursor([moment, 5])
        for moment in (
            "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00", "2026-01-01", "", None, 7,
            "2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00Z", [], {},
        )
    ]  # fmt: skip
    forged += [cursor([now, number]) for number in (0, -1, 2**63, 10**300, 1.5, True, "5", None, [], float("inf"))]
    forged += [cursor(content) for content in ([], [now], [now, 1, 2], {}, {"a": 1, "b": 2}, "ab", 5, None, b"\xff")]
    forged += ["x", "=", "é", "%00", "AAAA", f"{given}=", f"{given}A", f" {given[:5]}!{given[5:]}", cursor(b"[" * 300)]
    for text in forged:
        assert "cursor" in refused(page(cursor=text), 400), text
    for name in ("since", "until"):
        for text in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
            assert name in refused(page(**{name: text}), 400)
    for text in ("x", "-1", "1" * 30, "1.5", "²"):
        refused(requests.get(f"{server.address}/models", params={"cursor": text}, timeout=30), 400)


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def part(name: str, content: bytes = b"x", *, file: str = "", more: bytes = b"") -> bytes:
    named = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{file}"' if file else "")
    return named.encode() + more + b"\r\n\r\n" + content


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def test_form_when_beyond_a_limit_then_413_that_names_it(server: Server, registry: Registry, good_file: bytes):
    server.start(INSPECTLINE_MAX_IMAGE_MB="1").until_version(registry.register())
    long_header = b"\r\nX-Long: " + b"x" * 300_000
    cases = [
        ("80 parts", form(*[part("file", good_file[:100], file="x.png")] * 200)),
        ("80 parts", form(*[part(f"field{number}") for number in range(200)])),
        ("header", form(part("file", good_file, file="x.png", more=long_header))),
        ("header", form(part("file", good_file, file="x" * 20_000))),
        ("header", form(part("x" * 300_000))),
        ("header", b"--b\r\nContent-Disposition: " + b"x" * 900_000),
        ("text", form(part("group", b"x" * 300_000), part("file", good_file, file="x.png"))),
        ("INSPECTLINE_MAX_REQUEST_MB", form(part("file", b"x" * (4 << 20), file="x.png"))),
    ]
    for path in ("/predict", "/retrain", "/anomaly"):
        for named, body in cases:
            message = refused(post(server, path, body, **FORM), 413)
            assert named in message, (named, message)
            assert ("MAX_REQUEST" in message) == ("MAX_REQUEST" in named)
    assert server.predict(good_file).ok


def test_form_when_broken_then_400_that_says_how(server: Server, registry: Registry, good_file: bytes):
    server.start().until_version(registry.register())
    whole = form(part("file", good_file, file="x.png"))
    nameless = form(b'Content-Disposition: form-data; filename="x.png"\r\n\r\n' + good_file)
    for body in (
        whole[:-20], nameless, b"", b"--b", form(b"\r\n\r\nx"), form(b"X: y\r\n\r\nx"), form(part("")),
        form(part("file", good_file, file="x.png"), b'Content-Disposition: form-data; name="\xff"\r\n\r\nx'),
    ):  # fmt: skip
        assert "form" in refused(post(server, "/predict", body, **FORM), 400)
    assert "boundary" in refused(post(server, "/predict", whole, **{"Content-Type": "multipart/form-data"}), 400)
    latin = form(part("file", good_file, file="x.png"), part("group", "Prüf".encode("latin-1")))
    assert "group" in refused(post(server, "/retrain", latin, **FORM), 400)
    assert post(server, "/predict", whole, **FORM).ok


def test_upload_when_empty_then_said(server: Server, registry: Registry, good_file: bytes):
    server.start().until_version(registry.register())
    for path in ("/predict", "/retrain", "/anomaly"):
        for name in ("file", "image"):
            answer = requests.post(server.address + path, files={name: ("cell.png", b"")}, timeout=30)
            assert "empty" in refused(answer, 400)
        assert "empty" in refused(post(server, path, b"", **{"Content-Type": "image/png"}), 400)
        assert "empty" in refused(post(server, path, io.BytesIO(b""), **{"Content-Type": "image/png"}), 400)
    files = [("file", ("1.png", good_file)), ("file", ("2.png", b""))]
    both = requests.post(f"{server.address}/predict", files=files, timeout=30).json()["predictions"]
    assert "is_anomaly" in both[0]
    assert (both[1]["status"], "empty" in both[1]["error"]) == (400, True)
    fields = {"sha256": "0" * 64, "label": "anomaly"}
    mask = {"mask": ("mask.png", b"")}
    answer = requests.post(f"{server.address}/annotations", data=fields, files=mask, timeout=30)
    assert "mask" in refused(answer, 400)


def test_content_encoding_when_any_but_identity_then_415_for_every_call(
    server: Server, registry: Registry, good_file: bytes
):
    server.start().until_version(registry.register())
    rules = requests.get(f"{server.address}/openapi.json", timeout=10).json()["paths"]
    calls = [(method, path) for path, item in rules.items() for method in item if method in ("post", "patch", "put")]
    assert len(calls) > 10
    for method, path in calls:
        for coding in ("gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "made-up"):
            body = gzip.compress(b'{"image_url": "http://a/x.png"}')
            address = server.address + path.replace("{project}", registry.project).replace("{version}", "1")
            answer = requests.request(
                method, address, data=body, headers=JSON | {"Content-Encoding": coding}, timeout=30
            )
            assert "Content-Encoding" in refused(answer, 415), (path, coding)
            assert answer.headers["Accept-Encoding"] == "identity"
    large = {"Content-Encoding": "gzip", "Content-Type": "image/png"}
    assert "Content-Encoding" in refused(post(server, "/predict", gzip.compress(b"\0" * (8 << 20)) * 20, **large), 415)
    assert post(server, "/predict", good_file, **{"Content-Type": "image/png", "Content-Encoding": "identity"}).ok
    encoded = form(
        part("file", base64.b64encode(good_file), file="x.png", more=b"\r\nContent-Transfer-Encoding: base64")
    )
    assert "base64" in refused(post(server, "/predict", encoded, **FORM), 415)


def test_s3_addresses_when_not_the_projects_or_odd_then_422_and_listed_ones_are_read(
    server: Server, registry: Registry, projects: Projects, good_file: bytes
):
    name, bucket = registry.project, projects.bucket
    for key in (f"{name}/x.png", "shared/x.png", "other/x.png"):
        Storage(bucket).put(key, good_file)
    projects.write(name, read_from=[f"s3://{bucket}/shared/"])
    server.start().until_version(registry.register())
    assert server.predict_url(f"s3://{bucket}/{name}/x.png").ok
    assert server.predict_url(f"s3://{bucket}/shared/x.png").ok
    odd = ["../../secrets.env", "/etc/passwd", f"{name}/" + "x" * 2_000, f"{name}/a\u0000b", f"{name}/../other/x.png"]
    for key in (*odd, "other/x.png", "x.png", f"{name}2/x.png"):
        for path in ("/predict", "/retrain", "/anomaly"):
            answer = requests.post(server.address + path, json={"image_url": f"s3://{bucket}/{key}"}, timeout=30)
            refused(answer, 422)
    listed = {"image_urls": [f"s3://{bucket}/{name}/x.png", f"s3://{bucket}/other/x.png"]}
    first, second = requests.post(f"{server.address}/predict", json=listed, timeout=30).json()["predictions"]
    assert "is_anomaly" in first
    assert (second["status"], "read_from" in second["error"]) == (422, True)


@pytest.mark.parametrize(
    ("prefix", "kept"),
    [
        ("/inspect", "/inspect"),
        ("/inspect/", "/inspect"),
        ("/a/b-1", "/a/b-1"),
        ("/outer, /inner", "/inner"),
        ("", ""),
        ("/", ""),
        ("inspect", ""),
        ("//evil.example", ""),
        ("/a//evil.example", ""),
        ("/a/../b", ""),
        ("/\\evil.example", ""),
        ("https://evil.example", ""),
        ("/a?b", ""),
        ("/a b", ""),
    ],
)
def test_prefix_when_a_trusted_proxy_sets_it_then_addresses_carry_it(
    prefix: str, kept: str, serves_behind_proxy: Server
):
    headers = {"X-Forwarded-Prefix": prefix}
    address = serves_behind_proxy.address
    answer = requests.get(f"{address}/", headers=headers, allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{kept}/docs")
    described = requests.get(f"{address}/openapi.json", headers=headers, timeout=10).json()
    assert described["servers"] == [{"url": f"{address}{kept}"}]


@pytest.fixture(scope="module")
def serves_behind_proxy(tmp_path_factory: pytest.TempPathFactory):
    """A server that trusts one proxy, without a model or accounts."""
    folder = tmp_path_factory.mktemp("proxied")
    (folder / "line.yaml").write_text("{}", encoding="utf-8")
    server = Server(
        {
            "INSPECTLINE_PROJECTS": str(folder), "INSPECTLINE_DEFAULT_PROJECT": "line", "INSPECTLINE_AUTH": "none",
            "INSPECTLINE_CACHE": str(folder / "cache"), "INSPECTLINE_DATABASE_URL": f"sqlite:///{folder}/catalogue.db",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "HOST": "127.0.0.1", "INSPECTLINE_PROXIES": "1",
        },
        folder / "serving.log",
    )  # fmt: skip
    yield server.start()
    server.end()


def test_prefix_when_no_proxy_is_trusted_then_ignored_and_links_of_jobs_and_accounts_carry_a_trusted_one(
    server: Server, registry: Registry, good_file: bytes
):
    prefix = {"X-Forwarded-Prefix": "/inspect"}
    server.start(INSPECTLINE_WAIT_SECONDS="0").until_version(registry.register())
    answer = requests.get(f"{server.address}/", headers=prefix, allow_redirects=False, timeout=10)
    assert answer.headers["Location"] == "/docs"
    server.end()
    server.start(INSPECTLINE_PROXIES="1")
    account = {"name": "camera-7", "password": "a password of some length"}
    made = requests.post(f"{server.address}/users", json=account, headers=prefix, timeout=30)
    assert made.headers["Location"] == "/inspect/users/camera-7"
    for path in ("/retrain", f"/projects/{registry.project}/anomaly"):
        files = {"file": ("x.png", good_file)}
        answer = requests.post(server.address + path, files=files, headers=prefix, timeout=30)
        assert answer.status_code == 202
        assert answer.headers["Location"].startswith("/inspect/")
        job = answer.headers["Location"].removeprefix("/inspect")
        assert requests.get(server.address + job, timeout=10).json()["state"] == "pending"
