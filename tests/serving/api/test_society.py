"""The calls of a society that identifies mushrooms: a real server, a real classifier, and who may call what."""

import functools
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from pipelines.catalogue import connect, transaction, users
from pipelines.catalogue.requests import find
from pipelines.catalogue.samples import labelled_samples, new_images
from pipelines.catalogue.schema import annotations, now
from pipelines.storage.s3 import Storage
from tests.conftest import Projects, wait_until
from tests.pipelines.packages import COLOURS, coloured_image, make_classifier
from tests.serving.auth.conftest import ANN, ROOT
from tests.serving.conftest import Registry, Server, encoded, hashed, rows, until_rows

TAGS = {
    "accuracy": "0.84", "accuracy_low": "0.79", "accuracy_high": "0.88", "evaluated_at": "2026-05-01T11:30:00+00:00",
}  # fmt: skip


@functools.cache
def picture(colour: str, seed: int = 0, kind: str = "PNG") -> bytes:
    return encoded(coloured_image(colour, np.random.default_rng(seed)), kind)


@pytest.fixture
def society(server: Server, registry: Registry, projects: Projects) -> Server:
    """Serving with a classifier, an administrator `root` and a user `Ann`."""
    projects.write(registry.project, task="classification")
    with transaction() as connection:
        users.add(connection, ROOT[0], hashed(ROOT[1]), "administrator")
        users.add(connection, ANN[0], hashed(ANN[1]))
    version = registry.register(make=make_classifier, tags=TAGS | {"task": "classification"})
    server.start(INSPECTLINE_AUTH="accounts").until_version(version)
    server.session.auth = ANN
    return server


def classify(server: Server, data: bytes, path: str = "/predictions", **form: Any) -> requests.Response:
    files = {"File": ("cap.png", data)}
    return server.session.post(server.address + path, files=files, data=form, timeout=30)


def by_address(server: Server, **body: Any) -> requests.Response:
    return server.session.post(f"{server.address}/predictions", json=body, timeout=30)


def get(server: Server, path: str, auth: Any = ROOT) -> requests.Response:
    return requests.get(server.address + path, auth=auth, timeout=30)


class _Pages(http.server.BaseHTTPRequestHandler):
    """Answers with what its server holds by path; with status 500 for a path that it holds None for."""

    def do_GET(self) -> None:
        pages = self.server.pages  # type: ignore[attr-defined]
        kind, body = pages.get(self.path) or ("text/plain", b"nothing here")
        self.send_response(404 if self.path not in pages else 500 if pages[self.path] is None else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """A web site with an image, a text that is called an image, a page, and a broken address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    server.pages = {  # type: ignore[attr-defined]
        "/cap.jpg": ("image/jpeg", picture("red", 1, "JPEG")),
        "/text.jpg": ("image/jpeg", b"a text that calls itself an image"),
        "/broken.jpg": None,
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_dbconnex_when_asked_by_anybody_then_connected(society: Server):
    answer = requests.get(f"{society.address}/dbconnex", timeout=30)
    assert (answer.status_code, answer.json()["status"]) == (200, "connected")


def test_status_and_models_when_a_classifier_serves_then_its_task_and_classes(society: Server):
    status = society.status()
    assert (status["task"], status["classes"], status["threshold"]) == ("classification", list(COLOURS), None)
    (model,) = get(society, "/models").json()["models"]
    assert (model["task"], model["classes"], model["threshold"]) == ("classification", list(COLOURS), None)


def test_predictions_when_a_file_is_sent_then_the_most_probable_classes_and_the_same_file_is_remembered(
    society: Server, registry: Registry
):
    first = classify(society, picture("red"), Nb_preds="2").json()
    assert first["predictions"][0]["class"] == "red"
    assert len(first["predictions"]) == 2
    assert first["predictions"][0]["percent"] > 90
    assert (first["unsure"], first["cached"], first["model_version"]) == (False, False, "1")
    again = classify(society, picture("red")).json()
    assert (len(again["predictions"]), again["cached"]) == (3, True)
    assert again["predictions"][:2] == first["predictions"]
    assert sum(entry["percent"] for entry in again["predictions"]) == pytest.approx(100, abs=0.1)
    assert classify(society, picture("red+blue")).json()["unsure"] is True
    kept = until_rows(3)
    assert [row["request_id"] for row in kept[:2]] == [first["request_id"], again["request_id"]]
    assert (kept[0]["task"], kept[0]["threshold"], kept[0]["is_anomaly"], kept[0]["verdict"]) == (
        "classification",
        None,
        None,
        None,
    )
    assert kept[0]["answer"]["class"] == "red"
    assert kept[0]["score"] == pytest.approx(max(kept[0]["answer"]["probabilities"].values()))
    assert set(kept[0]["answer"]["probabilities"]) == set(COLOURS)
    past = get(society, "/predictions").json()["predictions"]
    assert [(row["class"], row["certainty"] > 0.9) for row in past[1:]] == [("red", True)] * 2


def test_predictions_when_the_server_has_been_restarted_then_answered_from_the_catalogue(
    society: Server, registry: Registry
):
    first = classify(society, picture("green")).json()
    until_rows(1)
    society.end()
    society.start().until_version("1")
    again = classify(society, picture("green"), path=f"/projects/{registry.project}/predictions").json()
    assert (again["cached"], again["predictions"]) == (True, first["predictions"])
    kept = until_rows(2)
    assert kept[0]["embedding"] == kept[1]["embedding"]
    assert kept[0]["descriptors"] == kept[1]["descriptors"]
    assert classify(society, picture("green", 5)).json()["cached"] is False
    version = registry.register(make=make_classifier, temperature=3.0)
    society.until_version(version)
    newer = classify(society, picture("green")).json()
    assert (newer["cached"], newer["model_version"]) == (False, version)
    assert newer["predictions"][0]["percent"] < first["predictions"][0]["percent"]


def test_predictions_when_an_address_is_sent_then_fetched_and_refused_where_it_holds_no_image(
    society: Server, registry: Registry, projects: Projects, site: str
):
    society.end()
    society.start(INSPECTLINE_ALLOWED_HOSTS=site.removeprefix("http://")).until_version("1")
    fetched = by_address(society, image_url=f"{site}/cap.jpg", Nb_preds=1)
    assert (fetched.status_code, fetched.json()["predictions"][0]["class"]) == (200, "red"), fetched.text
    stored = Storage(projects.bucket).put(f"{registry.project}/camera/1.png", picture("blue"))
    assert by_address(society, File=stored).json()["predictions"][0]["class"] == "blue"
    form = {"image_url": (None, f"{site}/cap.jpg"), "Nb_preds": (None, "1")}
    sent = society.session.post(f"{society.address}/predictions", files=form, timeout=30)
    assert (sent.status_code, sent.json()["cached"]) == (200, True)
    for address, status in (
        (f"{site}/none.jpg", 404),
        (f"{site}/text.jpg", 422),
        (f"{site}/broken.jpg", 424),
        (stored.replace("1.png", "2.png"), 404),
    ):
        refused = by_address(society, image_url=address)
        assert (refused.status_code, "\n" in refused.json()["error"]) == (status, False), refused.text
    assert by_address(society, image_url=stored, File=stored).status_code == 400
    assert by_address(society, Nb_preds=1).status_code == 400
    assert len(until_rows(3)) == 3


def test_predictions_when_no_image_is_sent_then_refused(society: Server):
    assert classify(society, b"this is a text file\n").status_code == 422
    assert classify(society, picture("red")[:60]).status_code == 422
    assert classify(society, b"").status_code == 400
    nothing = society.session.post(f"{society.address}/predictions", data={"Nb_preds": "1"}, timeout=30)
    assert nothing.status_code in (400, 415)
    assert rows() == []


def test_predictions_when_nb_preds_is_no_number_of_classes_then_400(society: Server):
    for number in (0, 4, -1, 1.0, 2.5, True, False, None, "3", "", [3], {"n": 3}, 10**30):
        refused = by_address(society, image_url="s3://nowhere/x.png", Nb_preds=number)
        assert (refused.status_code, "nb_preds" in refused.json()["error"].lower()) == (400, True), number
    for text in ("0", "4", "-1", "1.0", "one", "true", "", " ", "1e0", "٣", "9" * 40):
        refused = classify(society, picture("red"), Nb_preds=text)
        assert (refused.status_code, "nb_preds" in refused.json()["error"].lower()) == (400, True), text
        refused = classify(society, picture("red"), path=f"/predictions?Nb_preds={text}")
        assert refused.status_code == 400, text
    assert rows() == []


def test_predict_when_a_classifier_serves_then_class_certainty_and_set_and_no_heat_map(society: Server):
    answer = society.predict(picture("red+blue")).json()
    assert set(answer) == {
        "task", "class", "certainty", "unsure", "classes", "conformal_set", "model_version", "request_id",
    }  # fmt: skip
    assert (answer["task"], answer["unsure"], set(answer["conformal_set"])) == ("classification", True, {"red", "blue"})
    assert [entry["class"] for entry in answer["classes"]][2] == "green"
    assert answer["certainty"] == answer["classes"][0]["probability"]
    refused = society.predict(picture("red"), "/predict?heatmap=png")
    assert (refused.status_code, len(until_rows(1))) == (400, 1)
    files = [("file", data) for data in (picture("red"), b"no image", picture("blue"))]
    several = society.session.post(f"{society.address}/predict", files=files, timeout=30).json()["predictions"]
    assert [entry.get("class", entry.get("status")) for entry in several] == ["red", 422, "blue"]


def test_predictions_when_the_project_detects_anomalies_then_409_that_names_predict(
    server: Server, registry: Registry, good_file: bytes
):
    server.start().until_version(registry.register())
    refused = classify(server, good_file)
    assert (refused.status_code, "/predict" in refused.json()["error"]) == (409, True)
    assert [get(server, path, None).status_code for path in ("/accuracy", "/past_pred_acc")] == [409, 409]
    assert server.status()["task"] == "anomaly"
    assert "classes" not in server.status()


def test_accuracy_when_asked_then_of_the_served_version_and_measured_anew_by_a_job(society: Server, registry: Registry):
    known = get(society, "/accuracy").json()
    assert (known["accuracy"], known["low"], known["high"]) == (0.84, 0.79, 0.88)
    assert (known["model_version"], known["evaluated_at"]) == ("1", TAGS["evaluated_at"])
    asked = get(society, "/accuracy?now=true")
    assert (asked.status_code, asked.json()["state"]) == (202, "pending")
    job = get(society, asked.headers["Location"]).json()
    assert (job["kind"], job["state"], job["created_by"]) == ("evaluate", "pending", "root")
    assert get(society, "/accuracy?now=soon").status_code == 400
    society.until_version(registry.register(make=make_classifier, temperature=3.0))
    assert get(society, "/accuracy").status_code == 404  # a version whose accuracy nobody kept


def test_past_accuracy_when_people_have_said_then_of_those_and_else_the_mean_certainty(
    society: Server, registry: Registry
):
    empty = get(society, "/past_pred_acc").json()
    assert (empty["predictions"], empty["mean_certainty"], empty["accuracy"]) == (0, None, None)
    answers = [classify(society, picture(colour, 7)).json() for colour in ("red", "green", "blue", "blue")]
    kept = until_rows(4)
    right, wrong = kept[0]["sha256"], kept[1]["sha256"]
    said = [{"sha256": right, "label": "blue"}, {"sha256": right, "label": "red"}, {"sha256": wrong, "label": "red"}]
    with transaction() as connection:
        for row in said:
            fixed = {"project": registry.project, "origin": "serving", "created_at": now()}
            connection.execute(annotations.insert().values(row | fixed))
    past = get(society, "/past_pred_acc?Nb_last_preds=4").json()
    assert (past["predictions"], past["annotated"], past["correct"], past["accuracy"]) == (4, 2, 1, 0.5)
    percents = [answer["predictions"][0]["percent"] for answer in answers]
    assert past["mean_certainty"] == pytest.approx(np.mean(percents) / 100, abs=1e-3)
    last = get(society, "/past_pred_acc?Nb_last_preds=2").json()
    assert (last["predictions"], last["annotated"], last["accuracy"]) == (2, 0, None)
    for number in ("0", "-1", "1.5", "ten", "100001", "true"):
        assert get(society, f"/past_pred_acc?Nb_last_preds={number}").status_code == 400


def test_new_images_when_counted_then_since_that_version_and_stages_by_their_old_names(
    society: Server, registry: Registry, projects: Projects
):
    project = registry.project
    counted = get(society, f"/nb_new_img?Model_name={project}&Stage=PRODUCTION").json()
    assert (counted["model_name"], counted["stage"], counted["version"]) == (project, "champion", "1")
    assert counted["new_images"] == 0
    judged = classify(society, picture("red", 9)).json()
    said = society.session.post(
        f"{society.address}/annotations", json={"request_id": judged["request_id"], "label": "red"}, timeout=30
    )
    assert said.status_code == 201, said.text
    assert get(society, "/nb_new_img").json()["new_images"] == 1
    challenger = registry.register(make=make_classifier, champion=False, seed=1)
    registry.client.set_registered_model_alias(project, "challenger", challenger)
    assert get(society, "/nb_new_img?Stage=Staging").json()["version"] == challenger
    missing = get(society, "/nb_new_img?Stage=archived")
    assert (missing.status_code, "champion is version 1" in missing.json()["error"]) == (404, True)
    archived = registry.register(make=make_classifier, champion=False, seed=2)
    assert get(society, "/nb_new_img?stage=Archived").json()["version"] == archived
    for query, named in (("Stage=best", "challenger"), ("Model_name=other", project)):
        refused = get(society, f"/nb_new_img?{query}")
        assert (refused.status_code, named in refused.json()["error"]) == (404, True)
    assert get(society, f"/projects/{project}/nb_new_img?Model_name=other").status_code == 404


def test_finetune_when_asked_then_a_job_from_the_champion_with_the_parameters(society: Server, registry: Registry):
    def ask(**body: Any) -> requests.Response:
        return requests.post(f"{society.address}/finetune", json=body, auth=ROOT, timeout=30)

    asked = ask(Model_name=registry.project, Stage="Production", Variables=2, Epochs=5)
    assert asked.status_code == 202, asked.text
    assert get(society, asked.headers["Location"]).json()["kind"] == "retrain"
    with connect() as connection:
        row = find(connection, registry.project, asked.json()["job"])
    assert row is not None
    assert row["payload"] == {"start_from": "champion", "epochs": 5, "parameters": {"variables": 2}}
    for body, status in (
        ({"Epochs": 0}, 400), ({"Epochs": "5"}, 400), ({"Epochs": True}, 400), ({"Variables": 1.5}, 400),
        ({"Variables": -1}, 400), ({"Epochs": 10_001}, 400), ({"Model_name": 3}, 400), ({"Layers": 3}, 400),
        ({"Stage": "challenger"}, 404), ({"Stage": "best"}, 404), ({"Model_name": "other"}, 404),
    ):  # fmt: skip
        assert ask(**body).status_code == status, body
    archived = registry.register(make=make_classifier, champion=False, seed=1)
    refused = ask(Stage="archived")
    assert (refused.status_code, f"/models/{archived}/promote" in refused.json()["error"]) == (409, True)


# Who gets what: nobody, a user, an administrator.
CALLS = [
    ("GET", "/status", (200, 200, 200)),
    ("GET", "/dbconnex", (200, 200, 200)),
    ("GET", "/user", (401, 200, 200)),
    ("POST", "/predictions", (401, 200, 200)),
    ("POST", "/predict", (401, 200, 200)),
    ("GET", "/predictions", (401, 200, 200)),
    ("GET", "/accuracy", (401, 403, 200)),
    ("GET", "/accuracy?now=true", (401, 403, 202)),
    ("GET", "/past_pred_acc?Nb_last_preds=10", (401, 403, 200)),
    ("GET", "/nb_new_img?Stage=champion", (401, 403, 200)),
    ("POST", "/finetune", (401, 403, 202)),
    ("POST", "/models/1/promote", (401, 403, 200)),
    ("GET", "/users", (401, 403, 200)),
]


def test_calls_when_made_by_each_role_then_as_the_role_may(society: Server, registry: Registry):
    accounts = {"nobody": None, "user": ANN, "administrator": ROOT}
    for method, path, expected in CALLS:
        for form in (path, f"/projects/{registry.project}{path}"):
            if form != path and path.startswith(("/dbconnex", "/user")):
                continue
            sent: dict[str, Any] = {}
            if path.startswith("/predict") and method == "POST":
                sent = {"files": {"file": ("cap.png", picture("red"))}}
            elif path == "/finetune":
                sent = {"json": {"Epochs": 1}}
            got = tuple(
                requests.request(method, society.address + form, auth=auth, timeout=30, **sent).status_code
                for auth in accounts.values()
            )
            assert got == expected, (method, form)


def test_proposals_when_predictions_are_certain_then_counted_shown_and_confirmed_by_people(
    society: Server, registry: Registry, projects: Projects
):
    project = registry.project
    projects.write(project, task="classification", annotation={"propose_above": 0.7})
    for colour in ("red", "red+blue", "green"):
        classify(society, picture(colour, 3))
    until_rows(3)

    def proposed() -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = get(society, "/annotations?proposed=true", ANN).json()["annotations"]
        return shown

    wait_until(lambda: len(proposed()) == 2, 15, "two proposals")
    assert [entry["label"] for entry in proposed()] == ["green", "red"]
    classify(society, picture("red", 3))  # again: proposed once
    until_rows(4)
    green, red = proposed()
    page = get(society, "/annotations?proposed=true&limit=1").json()
    assert (page["annotations"], page["next"]) == ([green], str(green["annotation"]))
    assert get(society, f"/annotations?proposed=true&cursor={page['next']}").json()["annotations"] == [red]
    with connect() as connection:
        assert len(new_images(connection, project)) == 2
        held = {
            row["sha256"]: (row["label"], row["proposed"], row["side"]) for row in labelled_samples(connection, project)
        }
    assert held == {red["sha256"]: ("red", True, "training"), green["sha256"]: ("green", True, "training")}

    def say(sha256: str, label: str, **more: str) -> int:
        body = {"sha256": sha256, "label": label} | more
        return society.session.post(f"{society.address}/annotations", json=body, timeout=30).status_code

    assert (say(red["sha256"], "red"), say(green["sha256"], "blue")) == (201, 201)
    assert proposed() == []
    assert (say(red["sha256"], "reed"), say(red["sha256"], "good"), say(red["sha256"], "red", type="dent")) == (
        400,
    ) * 3
    with connect() as connection:
        held = {row["sha256"]: (row["label"], row["proposed"]) for row in labelled_samples(connection, project)}
    assert held == {red["sha256"]: ("red", False), green["sha256"]: ("blue", False)}
    past = get(society, "/past_pred_acc").json()
    assert (past["annotated"], past["correct"]) == (3, 2)
    for query in ("", "?proposed=false", "?proposed=true&limit=0", "?proposed=true&cursor=x"):
        assert get(society, f"/annotations{query}").status_code == 400
