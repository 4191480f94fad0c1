"""The registry client against a real MLflow server."""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipelines.errors import BadPackage, RegistryError
from pipelines.registry.client import champion, fetch, latest, prune
from pipelines.registry.package import Package
from tests.serving.conftest import Registry, registry

__all__ = ["registry"]  # the fixture


def test_champion_when_registry_has_no_model_then_none(registry: Registry):
    assert champion(registry.project) is None
    assert latest(registry.project) is None


def test_champion_when_model_has_no_alias_then_none_and_latest_is_the_newest(registry: Registry):
    for _ in range(3):
        newest = registry.register(champion=False)
    assert champion(registry.project) is None
    loaded = latest(registry.project)
    assert loaded is not None
    assert loaded.version == newest == "3"


def test_champion_when_alias_moves_then_its_version_with_tags(registry: Registry):
    first, second = registry.register(), registry.register(champion=False)
    for version in (first, second, first):
        registry.promote(version)
        loaded = champion(registry.project)
        assert loaded is not None
        assert (loaded.project, loaded.version) == (registry.project, version)
        assert len(loaded.digest) == 64


def test_registry_when_away_then_error_and_not_none(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    for ask in (champion, latest):
        with pytest.raises(RegistryError, match="cannot be reached"):
            ask(registry.project)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>Not Found</html>"),
        (404, b'{"detail": "Not Found"}'),
        (403, b"Invalid Host header"),
        (500, b'{"error_code": "INTERNAL_ERROR", "message": "database"}'),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "bad name"}'),
    ],
)
def test_champion_when_some_other_server_answers_then_error_and_not_none(
    status: int, body: bytes, monkeypatch: pytest.MonkeyPatch
):
    class Other(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(RegistryError, match=str(status)):
            champion("ev_batteries")
    finally:
        server.shutdown()
        server.server_close()


def test_fetch_when_asked_then_package_without_weights_in_the_cache(
    registry: Registry, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    registry.register()
    loaded = champion(registry.project)
    assert loaded is not None
    folder = fetch(loaded)
    assert folder.is_relative_to(cache)
    assert Package.open(folder).digest == loaded.digest == folder.name
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.onnx", "reference.npz"]
    assert sorted(path.name for path in fetch(loaded, weights=True).iterdir()) == [
        "model.json", "model.keras", "model.onnx", "reference.npz",
    ]  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert fetch(loaded) == folder  # from the cache alone


def test_fetch_when_cached_copy_is_damaged_then_fetched_again(registry: Registry, cache: Path):
    registry.register()
    loaded = champion(registry.project)
    assert loaded is not None
    folder = fetch(loaded)
    (folder / "model.onnx").write_bytes(b"half")
    assert Package.open(fetch(loaded)).digest == loaded.digest
    (folder / "model.json").unlink()
    assert Package.open(fetch(loaded)).digest == loaded.digest
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("model.onnx", b"half", "sha256"),
        ("model.json", b"{}", "model.json"),
        ("model.onnx", None, "404|500|missing"),
    ],
)
def test_fetch_when_registered_package_is_altered_then_refused_and_nothing_kept(
    registry: Registry, cache: Path, name: str, content: bytes | None, why: str
):
    def spoil(folder: Path) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    registry.register(spoil=spoil)
    loaded = champion(registry.project)
    assert loaded is not None
    with pytest.raises((BadPackage, RegistryError), match=why):
        fetch(loaded)
    assert list((cache / "models" / registry.project).iterdir()) == []


def test_fetch_when_many_do_so_at_once_then_all_get_the_same(registry: Registry, cache: Path):
    registry.register()
    loaded = champion(registry.project)
    assert loaded is not None
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(fetch(loaded))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 6
    assert len(set(folders)) == 1
    assert [path.name for path in folders[0].parent.iterdir()] == [loaded.digest]


def test_prune_when_packages_were_not_fetched_for_long_then_they_go(registry: Registry, cache: Path):
    folders = []
    for threshold in (0.1, 0.2, 0.3):
        registry.register(threshold=threshold)
        loaded = champion(registry.project)
        assert loaded is not None
        folders.append(fetch(loaded))
    long_ago = time.time() - 40 * 86_400
    left = folders[0].with_name(".arriving-killed")
    left.mkdir()
    for folder in (*folders, left):
        os.utime(folder, (long_ago, long_ago))
    fetch(loaded)
    prune(folders[2])
    assert sorted(folders[0].parent.iterdir()) == [folders[2]]
