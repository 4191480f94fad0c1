"""Corrections of past predictions, and the list of these."""

import hashlib
import io
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import requests

from pipelines.catalogue import connect
from pipelines.catalogue.predictions import enter, purge_expired
from pipelines.catalogue.samples import labelled_samples
from pipelines.catalogue.schema import now
from tests.serving.conftest import Registry, Server, encoded, until_rows


def say(server: Server, **words: Any) -> requests.Response:
    return requests.post(f"{server.address}/annotations", json=words, timeout=30)


def labelled(project: str) -> list[tuple[str, str, str | None]]:
    with connect() as connection:
        return [(row["sha256"], row["label"], row["type"]) for row in labelled_samples(connection, project)]


def past(server: Server, **query: Any) -> Any:
    answer = requests.get(f"{server.address}/predictions", params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_annotation_when_a_prediction_is_corrected_then_a_sample_and_seen_beside_it(
    server: Server, registry: Registry, good_file: bytes, bad_file: bytes
):
    version = registry.register()
    server.start().until_version(version)
    first = server.predict(good_file).json()
    corrected = say(server, Request_ID=first["request_id"], label="anomaly", type="scratch")  # at once
    annotation = corrected.json()
    sha256 = hashlib.sha256(good_file).hexdigest()
    assert corrected.status_code == 201, corrected.text
    assert (annotation["sha256"], annotation["label"], annotation["author"], annotation["known"]) == (
        sha256,
        "anomaly",
        "anonymous",
        False,
    )
    assert labelled(registry.project) == [(sha256, "anomaly", "scratch")]
    again = say(server, sha256=sha256.upper(), label="anomaly", type="scratch")
    assert (again.status_code, again.json()["known"]) == (200, True)
    assert say(server, sha256=sha256, label="good").status_code == 201
    assert labelled(registry.project) == [(sha256, "good", None)]

    server.predict(bad_file)
    until_rows(2)
    newest, oldest = past(server)["predictions"]
    assert (newest["is_anomaly"], newest["verdict"], newest["annotation"]) == (True, "anomaly", None)
    assert (oldest["request_id"], oldest["verdict"], oldest["model_version"]) == (first["request_id"], "good", version)
    assert oldest["reconstruction_error"] == pytest.approx(first["reconstruction_error"])
    assert (oldest["annotation"]["label"], oldest["annotation"]["author"]) == ("good", "anonymous")

    size = np.zeros((128, 128, 3), np.uint8)
    size[40:60, 40:60] = 255
    form = {"sha256": newest["sha256"], "label": "anomaly"}
    for mask, status in ((encoded(size[:64]), 422), (b"no image", 422), (encoded(size), 201)):
        files = {"mask": ("mask.png", io.BytesIO(mask))}
        answer = requests.post(f"{server.address}/annotations", data=form, files=files, timeout=30)
        assert answer.status_code == status, answer.text
    assert answer.json()["mask"] is True
    assert answer.json()["sample"]["notes"] == []
    empty = {"mask": ("mask.png", io.BytesIO(encoded(np.zeros_like(size))))}
    answer = requests.post(f"{server.address}/annotations", data=form, files=empty, timeout=30)
    assert "marks nothing" in answer.json()["sample"]["notes"][0]


def row(project: str, number: int, **more: Any) -> dict[str, Any]:
    """Return a prediction as serving enters it, `number` minutes old."""
    values = {"request_id": f"r{number}", "project": project, "sha256": f"{number:064x}", "model_version": "1"}
    values |= {"created_at": now() - timedelta(minutes=number), "score": 0.1, "threshold": 0.2, "is_anomaly": False}
    values |= {"latency_ms": 1.0, "width": 64, "height": 64, "descriptors": {}, "embedding": b"", "source": "upload"}
    return values | {"image_key": None, "expires_at": None} | more


def test_predictions_when_paged_while_new_ones_come_in_then_each_once_newest_first(server: Server, registry: Registry):
    project = registry.project
    server.start()
    same = now() - timedelta(minutes=5)
    enter([row(project, number, **({"created_at": same} if 5 <= number < 9 else {})) for number in range(1, 24)])
    ids: list[str] = []
    query: dict[str, Any] = {"limit": 5}
    while True:
        page = past(server, **query)
        ids += [prediction["request_id"] for prediction in page["predictions"]]
        if page["next"] is None:
            break
        enter([row(project, 0, request_id=f"new{len(ids)}")])
        query["cursor"] = page["next"]
    assert len(ids) == 23
    assert set(ids) == {f"r{number}" for number in range(1, 24)}
    assert ids[:4] == ["r1", "r2", "r3", "r4"]
    assert ids[-1] == "r23"


def test_predictions_when_filtered_then_only_those(server: Server, registry: Registry):
    project = registry.project
    server.start()
    enter(
        [
            row(project, 10),
            row(project, 20, is_anomaly=True, model_version="2"),
            row(project, 30, verdict="review"),
            row("other", 40),
        ]
    )

    def ids(**query: Any) -> list[str]:
        return [prediction["request_id"] for prediction in past(server, **query)["predictions"]]

    assert ids() == ["r10", "r20", "r30"]
    assert ids(verdict="good") == ["r10"]
    assert ids(verdict="review") == ["r30"]
    assert ids(Verdict="anomaly") == ids(is_anomaly="true") == ids(version="2") == ["r20"]
    assert ids(is_anomaly="false") == ["r10", "r30"]
    quarter = (now() - timedelta(minutes=15)).isoformat()
    assert ids(since=quarter) == ["r10"]
    assert ids(until=quarter) == ["r20", "r30"]
    assert ids(since=quarter.replace("+00:00", "Z"), until=quarter) == []


def test_annotations_and_predictions_when_asked_for_nonsense_then_4xx_that_says_what_is_allowed(
    server: Server, registry: Registry
):
    server.start()
    for query, message in {
        "verdit=good": "this call takes since, until, verdict",
        "verdict=bad": "give good, review or anomaly",
        "is_anomaly=yes": "give true or false",
        "limit=0": "from 1 to 500",
        "limit=501": "from 1 to 500",
        "limit=%C2%B2": "from 1 to 500",
        "since=yesterday": "ISO 8601",
        "since=0001-01-01T00:00:00%2B14:00": "ISO 8601",
        "cursor=x": "as `next`",
        "cursor=WyJ4IiwxXQ": "as `next`",
        "cursor=bnVsbA": "as `next`",
        "limit=1&limit=2": "given twice",
    }.items():
        answer = requests.get(f"{server.address}/predictions?{query}", timeout=30)
        assert (answer.status_code, message in answer.json()["error"]) == (400, True), answer.text
    named = {"sha256": "0" * 64}
    for words, status, message in [
        ({"label": "good"}, 400, "by request_id or by sha256"),
        (named | {"label": "good", "request_id": "x"}, 400, "one of them"),
        (named | {"label": "fine"}, 400, "write good or anomaly"),
        (named | {"label": "good", "type": "dent"}, 400, "a good image has no type"),
        (named | {"label": "anomaly", "type": "a/b"}, 400, "write a short word"),
        ({"sha256": "00", "label": "good"}, 400, "64 hexadecimal digits"),
        (named | {"lable": "good"}, 400, "there is no field 'lable'"),
        (named | {"label": "good"}, 404, "neither judged nor kept"),
        ({"request_id": "x", "label": "good"}, 404, "no prediction 'x'"),
    ]:
        answer = say(server, **words)
        assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    enter([row(registry.project, 1, image_key="gone.png", expires_at=now() - timedelta(days=1))])
    purge_expired(registry.project)
    answer = say(server, request_id="r1", label="good")
    assert (answer.status_code, "its time is over" in answer.json()["error"]) == (410, True)
