"""Administrators choose which version serves: held until released, whatever a run would promote."""

import pytest
import requests

from pipelines.registry import client, pinning, register
from tests.conftest import wait_until
from tests.serving.conftest import Registry, Server


def call(server: Server, method: str, path: str) -> requests.Response:
    return requests.request(method, server.address + path, timeout=60)


def test_version_when_promoted_by_hand_then_it_serves_and_is_held_until_released(
    server: Server, registry: Registry, good_file: bytes
):
    first, second = registry.register(threshold=0.125), registry.register(threshold=0.25)
    server.start().until_version(second)
    listed = call(server, "GET", "/models").json()
    assert [model["version"] for model in listed["models"]] == [second, first]
    assert [model["aliases"] for model in listed["models"]] == [["champion"], []]
    assert [model["serving"] for model in listed["models"]] == [True, False]
    assert (listed["serving"], listed["held"], listed["refused"], listed["next"]) == (second, None, [], None)

    chosen = call(server, "POST", f"/projects/{registry.project}/models/{first}/promote").json()
    assert (chosen["version"], chosen["held"]["version"], chosen["held"]["by"]) == (first, first, "anonymous")
    server.until_version(first)
    assert server.predict(good_file).json()["threshold"] == 0.125
    assert register.promote(registry.project, second, expected=first) is not None
    third = registry.register(champion=False)
    assert register.promote(registry.project, third, expected=first) is not None
    listed = call(server, "GET", "/models?limit=2").json()
    assert [model["version"] for model in listed["models"]] == [third, second]
    rest = call(server, "GET", f"/models?limit=2&cursor={listed['next']}").json()
    assert [(model["version"], model["held"]) for model in rest["models"]] == [(first, True)]
    assert rest["models"][0]["chosen_by"].startswith("anonymous, 20")

    assert call(server, "POST", "/models/release").json()["released"]["version"] == first
    assert call(server, "POST", "/models/release").json()["released"] is None
    assert register.promote(registry.project, third, expected=first) is None
    server.until_version(third)


def test_promote_when_the_version_is_not_there_or_not_whole_then_refused_and_nothing_changes(
    server: Server, registry: Registry
):
    good = registry.register()
    half = registry.register(champion=False, spoil=lambda folder: (folder / "model.onnx").unlink())
    altered = registry.register(champion=False, spoil=lambda folder: (folder / "model.onnx").write_bytes(b"half"))
    server.start().until_version(good)
    for version, status, message in (("99", 404, "no version"), ("x", 404, "no version"), ("0", 404, "no version")):
        answer = call(server, "POST", f"/models/{version}/promote")
        assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    for version, message in ((half, "model.onnx"), (altered, "sha256")):
        answer = call(server, "POST", f"/models/{version}/promote")
        assert (answer.status_code, message in answer.json()["error"]) == (409, True), answer.text
    assert pinning.held(registry.project) is None
    assert client.champion(registry.project).version == good
    assert call(server, "GET", "/projects/nothing/models").status_code == 404
    for query in ("limit=0", "limit=x", "limt=5", "cursor=x", "limit=1&limit=2"):
        assert call(server, "GET", f"/models?{query}").status_code == 400
    registry.promote(altered)
    wait_until(lambda: call(server, "GET", "/models").json()["refused"] != [], 15, "refused version")
    (refused,) = call(server, "GET", "/models").json()["refused"]
    assert (refused["version"], "sha256" in refused["why"]) == (altered, True)


def test_version_when_the_project_serves_latest_then_a_held_one_serves_all_the_same(
    server: Server, registry: Registry, projects
):
    projects.write(registry.project, serve="latest")
    first, second = registry.register(champion=False), registry.register(champion=False)
    server.start().until_version(second)
    assert call(server, "POST", f"/models/{first}/promote").status_code == 200
    server.until_version(first)
    registry.register(champion=False)
    assert call(server, "POST", "/models/release").status_code == 200
    server.until_version("3")


def test_models_when_the_registry_is_away_then_503(server: Server, registry: Registry):
    server.start(MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    for method, path in (("GET", "/models"), ("POST", "/models/1/promote"), ("POST", "/models/release")):
        answer = call(server, method, path)
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5"), path


@pytest.mark.parametrize("mark", ["model", "version"])
def test_release_when_the_hold_was_noted_on_either_then_it_is_gone(registry: Registry, database: str, mark: str):
    version = registry.register()
    if mark == "model":
        registry.client.set_registered_model_tag(registry.project, "held", version)
    else:
        registry.client.set_model_version_tag(registry.project, version, "held", "true")
    assert pinning.held(registry.project) == pinning.Hold(version)
    assert pinning.release(registry.project) == pinning.Hold(version)
    assert pinning.held(registry.project) is None
