"""The whole answer of POST /predict: several images, p-value, review, heat maps, the same image again, limits."""

import base64
import concurrent.futures
import io

import numpy as np
import pytest
import requests
from PIL import Image

from pipelines.registry.reference import read_reference
from tests.conftest import Projects, wait_until
from tests.pipelines.image_files import png16
from tests.pipelines.packages import good_image
from tests.serving.conftest import Registry, Server, encoded, until_rows


def test_predict_when_several_images_then_each_in_its_place_and_bad_ones_alone(
    server: Server, registry: Registry, good_file: bytes, bad_file: bytes
):
    version = registry.register(threshold=0.1)
    server.start().until_version(version)
    sent = [good_file, b"no image", bad_file, encoded(np.zeros((8, 8, 3), np.uint8)), good_file]
    answer = requests.post(f"{server.address}/predict", files=[("file", data) for data in sent], timeout=30)
    assert answer.status_code == 200
    answers = answer.json()["predictions"]
    assert [prediction.get("is_anomaly", prediction.get("status")) for prediction in answers] == [
        False,
        422,
        True,
        422,
        False,
    ]
    assert "no image that can be read" in answers[1]["error"]
    assert "8 x 8 pixels" in answers[3]["error"]
    assert answers[0]["reconstruction_error"] == answers[4]["reconstruction_error"]
    identity = answer.headers["X-Request-ID"]
    assert [prediction["request_id"] for prediction in answers] == [f"{identity}-{place}" for place in range(1, 6)]
    assert {row["request_id"] for row in until_rows(3)} == {f"{identity}-{place}" for place in (1, 3, 5)}
    too_many = requests.post(f"{server.address}/predict", files=[("file", good_file)] * 65, timeout=30)
    assert too_many.status_code == 400
    assert "up to 64" in too_many.json()["error"]
    full = requests.post(f"{server.address}/predict", files=[("file", good_file)] * 64, timeout=60).json()
    assert [prediction["model_version"] for prediction in full["predictions"]] == [version] * 64
    mixed = requests.post(f"{server.address}/predict", json={"image_URLs": ["http://127.0.0.1:1/x", "ftp://x"]})
    assert [prediction["status"] for prediction in mixed.json()["predictions"]] == [422, 400]


def test_predict_when_validation_scores_are_known_then_p_value_and_review(
    server: Server, registry: Registry, projects: Projects, bad_file: bytes
):
    projects.write(registry.project, threshold={"review_false_positive_rate": 0.5})
    version = registry.register(threshold=0.1)
    scores = np.sort(read_reference(registry.folder / "package-1" / "reference.npz")["score"])
    server.start().until_version(version)
    generator = np.random.default_rng(11)
    verdicts = {}
    for _ in range(12):
        judged = server.predict(encoded(good_image(generator))).json()
        as_high = int(np.sum(scores >= judged["reconstruction_error"]))
        assert judged["p_value"] == pytest.approx((1 + as_high) / 25)
        assert judged["review_threshold"] == pytest.approx(scores[12])  # ceil(25 x 0.5) = 13th smallest
        assert judged["verdict"] == (
            "review" if judged["reconstruction_error"] > judged["review_threshold"] else "good"
        )
        verdicts[judged["request_id"]] = judged["verdict"]
    assert set(verdicts.values()) == {"good", "review"}
    bad = server.predict(bad_file).json()
    # A past prediction is found by the verdict that was given, whatever the thresholds are by then.
    kept = {row["request_id"]: row["verdict"] for row in until_rows(13)}
    assert kept == verdicts | {bad["request_id"]: "anomaly"}
    assert (bad["verdict"], bad["is_anomaly"], bad["p_value"]) == ("anomaly", True, 1 / 25)
    projects.write(registry.project)  # followed without a restart
    wait_until(lambda: server.status()["review_threshold"] is None, 10, "no review threshold any more")
    assert server.predict(bad_file).json()["review_threshold"] is None


def test_predict_when_heat_map_is_asked_for_then_it_shows_where_and_compares(
    server: Server, registry: Registry, good_file: bytes, bad_file: bytes
):
    server.start().until_version(registry.register(threshold=0.1))
    judged = requests.post(f"{server.address}/predict?heatmap=png", files={"file": bad_file}, timeout=30).json()
    heat_map = Image.open(io.BytesIO(base64.b64decode(judged["heatmap"])))
    assert heat_map.size == (128 + 14, 128)

    def drawn(data: bytes) -> np.ndarray:
        answer = requests.post(
            f"{server.address}/predict?heatmap=png",
            data=data,
            headers={"Content-Type": "image/png", "Accept": "image/png"},
            timeout=30,
        )
        assert answer.headers["Content-Type"] == "image/png"
        return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)

    good, bad = drawn(good_file), drawn(bad_file)
    np.testing.assert_array_equal(bad, np.asarray(heat_map))
    assert (good[:, 128:] == bad[:, 128:]).all()  # one scale for both
    colour = [(picture[:, :128].max(axis=2) - picture[:, :128].min(axis=2)) for picture in (good, bad)]
    assert colour[0].max() < 80 < colour[1].max()
    dark = np.asarray(Image.open(io.BytesIO(bad_file)))[..., 0] < 40
    assert colour[1][dark].mean() > 4 * colour[1][~dark].mean()
    refused = requests.post(f"{server.address}/predict?heatmap=gif", files={"file": good_file}, timeout=30)
    assert refused.status_code == 400
    several = requests.post(f"{server.address}/predict?heatmap=png", files=[("file", good_file)] * 2, timeout=30)
    assert all(prediction["heatmap"] for prediction in several.json()["predictions"])


def test_predict_when_same_image_again_then_known_and_still_a_prediction_of_its_own(
    server: Server, registry: Registry, good_file: bytes
):
    server.start().until_version(registry.register(threshold=0.1))
    first, second = server.predict(good_file).json(), server.predict(good_file).json()
    assert first["request_id"] != second["request_id"]
    assert first["reconstruction_error"] == second["reconstruction_error"]
    rows = until_rows(2)
    assert rows[0]["embedding"] == rows[1]["embedding"]
    assert rows[0]["descriptors"] == rows[1]["descriptors"]
    assert 'inspectline_predictions_remembered_total{project="' + registry.project + '"} 1.0' in metrics(server)
    newer = registry.register(threshold=0.2)
    server.until_version(newer)
    assert server.predict(good_file).json()["threshold"] == 0.2  # what another version said is not its answer
    assert f'inspectline_predictions_remembered_total{{project="{registry.project}"}} 1.0' in metrics(server)


def test_predict_when_queue_is_full_then_503_and_the_others_are_answered(server: Server, registry: Registry):
    server.start(INSPECTLINE_QUEUE="1").until_version(registry.register(threshold=0.1))
    generator = np.random.default_rng(2)
    images = [encoded(good_image(generator)) for _ in range(120)]

    def send(data: bytes) -> requests.Response:
        return requests.post(f"{server.address}/predict", files={"file": data}, timeout=30)

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(send, images))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 503)
    answered = [answer for answer in answers if answer.status_code == 200]
    assert answered
    assert len(until_rows(len(answered))) == len(answered)


def metrics(server: Server) -> str:
    return requests.get(f"{server.address}/metrics", timeout=10).text


def test_metrics_when_several_workers_answer_then_counted_together(
    server: Server, registry: Registry, good_file: bytes, bad_file: bytes
):
    version = registry.register(threshold=0.1)
    server.start(INSPECTLINE_WORKERS="3").until_version(version)
    for data in [good_file] * 6 + [bad_file] * 3:
        answer = requests.post(
            f"{server.address}/projects/{registry.project}/predict", files={"file": data}, timeout=30
        )
        assert answer.status_code in (200, 503)  # a worker that has not loaded it yet
        while answer.status_code == 503:
            answer = requests.post(f"{server.address}/predict", files={"file": data}, timeout=30)
    requests.get(f"{server.address}/no/such/call", timeout=10)
    until_rows(9)
    wait_until(lambda: "inspectline_journal_waiting 0.0" in metrics(server), 10, "an empty journal")
    counted = 'inspectline_requests_total{call="/predict",method="POST",status="200"} 9.0'
    wait_until(lambda: counted in metrics(server), 10, "all requests counted")
    exposed = metrics(server)
    named = f'project="{registry.project}",'
    assert f'inspectline_predictions_total{{{named}verdict="good",version="{version}"}} 6.0' in exposed
    assert f'inspectline_predictions_total{{{named}verdict="anomaly",version="{version}"}} 3.0' in exposed
    assert f'inspectline_version_serving{{{named}version="{version}"}} 1.0' in exposed
    assert 'inspectline_requests_total{call="none",method="GET",status="404"} 1.0' in exposed
    assert "inspectline_request_seconds_bucket" in exposed
    assert "inspectline_batch_images_count" in exposed


def test_dbconnex_when_asked_then_milliseconds_or_503_without_names(server: Server, registry: Registry):
    registry.register()
    server.start()
    answer = requests.get(f"{server.address}/dbconnex", timeout=10)
    assert (answer.status_code, answer.json()["status"]) == (200, "connected")
    assert answer.json()["ms"] > 0
    server.end()
    server.start(INSPECTLINE_DATABASE_URL="postgresql+psycopg://someone:topsecret@127.0.0.1:1/catalogue")
    refused = requests.get(f"{server.address}/dbconnex", timeout=10)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert not {"topsecret", "someone", "127.0.0.1"} & set(refused.text.replace('"', " ").split())
    server.end()
    assert "topsecret" not in server.log.read_text(encoding="utf-8")


def test_predict_when_the_model_has_a_bit_depth_then_every_image_is_scaled_by_it(
    server: Server, registry: Registry, bad_file: bytes
):
    pixels = np.asarray(Image.open(io.BytesIO(bad_file))).astype(int)
    twelve = png16((pixels * 4095 + 127) // 255)
    bright = png16(pixels * 257)
    server.start().until_version(registry.register(threshold=0.1, bits=12))
    scores = [server.predict(data).json()["anomaly_score"] for data in (bad_file, twelve)]
    assert scores[0] == pytest.approx(scores[1], abs=0.001)
    refused = server.predict(bright)
    assert refused.status_code == 422
    assert "image.bits" in refused.json()["error"]
    drawn = [
        requests.post(f"{server.address}/predict?heatmap=png", files={"file": data}, timeout=30).json()["heatmap"]
        for data in (bad_file, twelve)
    ]
    assert drawn[0] == drawn[1]
    server.until_version(registry.register(threshold=0.1))  # of before: each image is scaled by itself
    for data in (twelve, bright):
        assert server.predict(data).json()["anomaly_score"] == pytest.approx(scores[0], abs=0.001)
