"""What a camera sees of serving: verdicts, status, and clear answers to what cannot be judged."""

import hashlib

import pytest
import requests

from pipelines.storage.s3 import Storage
from tests.conftest import Projects, wait_until
from tests.serving.conftest import Registry, Server, until_rows


def test_predict_when_there_is_no_champion_then_503_with_a_sentence(server: Server, good_file: bytes):
    server.start()
    wait_until(lambda: server.status()["last_poll"]["at"] is not None, 10, "first poll")
    answer = server.predict(good_file)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "there is no champion yet; train and promote a model" in answer.json()["error"]
    assert server.status()["version"] is None
    assert requests.get(f"{server.address}/health/ready", timeout=5).status_code == 503
    assert requests.get(f"{server.address}/health/live", timeout=5).status_code == 200


def test_predict_when_champion_serves_then_verdicts_and_rows_and_images(
    server: Server, registry: Registry, projects: Projects, good_file: bytes, bad_file: bytes
):
    version = registry.register(threshold=0.125)
    server.start().until_version(version)
    good, bad = server.predict(good_file).json(), server.predict(bad_file).json()
    assert (good["is_anomaly"], bad["is_anomaly"]) == (False, True)
    assert good["threshold"] == bad["threshold"] == 0.125
    assert good["model_version"] == version
    assert 0 < good["reconstruction_error"] < 0.125 < bad["reconstruction_error"]
    first, second = until_rows(2)
    assert second["is_anomaly"]
    assert first["request_id"] == good["request_id"]
    assert first["sha256"] == hashlib.sha256(good_file).hexdigest()
    assert first["score"] == pytest.approx(good["reconstruction_error"])
    assert len(first["embedding"]) == 48 * 4
    assert first["descriptors"]["width"] == 128
    assert (first["expires_at"] - first["created_at"]).days == 30
    assert Storage(projects.bucket).get(first["image_key"]) == good_file
    wait_until(
        lambda: server.status()["journal"] == {"waiting": 0, "set_aside": 0, "problem": None}, 5, "empty journal"
    )


def test_predict_when_image_is_sent_in_any_way_then_the_same_verdict(
    server: Server, registry: Registry, projects: Projects, bad_file: bytes
):
    version = registry.register()
    uri = Storage(projects.bucket).put(f"{registry.project}/inbox/x.png", bad_file)
    server.start().until_version(version)
    address = f"{server.address}/predict"
    answers = [
        requests.post(address, files={"file": ("x.png", bad_file)}, timeout=30),
        requests.post(address, files={"IMAGE": ("x.bin", bad_file, "application/octet-stream")}, timeout=30),
        requests.post(address, data=bad_file, headers={"Content-Type": "image/png"}, timeout=30),
        server.predict_url(uri),
        requests.post(address, json={"Image_URL": uri}, timeout=30),
        server.predict(bad_file, f"/projects/{registry.project}/predict"),
    ]
    assert [answer.status_code for answer in answers] == [200] * 6, [answer.text for answer in answers]
    assert len({answer.json()["reconstruction_error"] for answer in answers}) == 1
    assert len({answer.json()["request_id"] for answer in answers}) == 6
    assert [row["source"] for row in until_rows(6)] == ["upload", "upload", "upload", uri, uri, "upload"]
    assert all(answer.headers["X-Request-ID"] == answer.json()["request_id"] for answer in answers)


def test_status_when_a_project_file_is_wrong_then_told_and_others_serve(
    server: Server, registry: Registry, projects: Projects, good_file: bytes
):
    version = registry.register()
    (projects.folder / "broken.yaml").write_text("serve: yesterday\n", encoding="utf-8")
    server.start().until_version(version)
    status = server.status()
    assert "serve" in status["projects"]["broken"]["last_poll"]["problem"]
    assert status["projects"][registry.project]["status"] == "serving"
    assert status["uptime_seconds"] > 0
    assert server.predict(good_file, "/projects/broken/predict").status_code == 503
    other = f"{registry.project}_two"
    second = registry.register(project=other, threshold=0.25)
    projects.write(other, serve="latest")  # a second line is one more file, without a restart
    wait_until(
        lambda: server.status()["projects"].get(other, {}).get("version") == second, 10, "a second project served"
    )
    assert server.predict(good_file, f"/projects/{other}/predict").json()["threshold"] == 0.25
    newer = registry.register(project=other, threshold=0.3, champion=False)
    wait_until(lambda: server.status()["projects"][other]["version"] == newer, 10, "latest served")


def test_logs_when_requests_come_then_json_with_their_id_and_no_signature(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    server.start().until_version(version)
    identity = server.predict(good_file).json()["request_id"]
    server.predict_url("http://127.0.0.1:1/x.png?X-Amz-Signature=topsecret")
    server.end()
    logged = [line for line in server.lines() if line.get("path") == "/predict"]
    assert [(line["status"], line["level"]) for line in logged] == [(200, "info"), (422, "info")]
    assert logged[0]["request_id"] == identity
    assert "a loopback address" in logged[1]["error"]
    assert "topsecret" not in server.log.read_text(encoding="utf-8")
