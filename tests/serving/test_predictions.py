"""What a camera sees of serving: verdicts, status, and clear answers to what cannot be judged."""

import hashlib

import pytest
import requests
from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.schema import predictions
from pipelines.storage import Storage
from tests.conftest import Projects, wait_until
from tests.serving.conftest import Registry, Server


def test_predict_when_there_is_no_champion_then_503_with_a_sentence(server: Server, good_file: bytes):
    server.start()
    wait_until(lambda: server.status()["last_poll"]["at"] is not None, 10, "first poll")
    answer = server.predict(good_file)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert "no champion yet" in answer.json()["error"]
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

    def rows():
        with connect() as connection:
            return connection.execute(select(predictions).order_by(predictions.c.id)).mappings().all()

    wait_until(lambda: len(rows()) == 2, 10, "predictions in the catalogue")
    first = rows()[0]
    assert first["request_id"] == good["request_id"]
    assert first["sha256"] == hashlib.sha256(good_file).hexdigest()
    assert first["score"] == pytest.approx(good["reconstruction_error"])
    assert len(first["embedding"]) == 48 * 4
    assert first["descriptors"]["width"] == 128
    assert (first["expires_at"] - first["created_at"]).days == 30
    assert Storage(projects.bucket).get(first["image_key"]) == good_file
    assert server.status()["journal"] == {"waiting": 0, "set_aside": 0, "problem": None}
