"""What people send back: stored, asked for, waited for no longer than they like, and never at predictions' cost."""

import hashlib
import threading
import time
from typing import Any

import pytest
import requests

from pipelines.catalogue import connect
from pipelines.catalogue import requests as rows
from pipelines.catalogue.samples import labelled_samples
from pipelines.requests import watch
from tests.conftest import Projects, wait_until
from tests.pipelines.outcomes import OUTCOME
from tests.serving.conftest import Registry, Relay, Server

ASYNC = {"Prefer": "respond-async"}


def post(server: Server, call: str, data: bytes, headers: dict[str, str] | None = None, **words: str) -> Any:
    files = {"file": ("part-7.png", data)}
    return requests.post(server.address + call, files=files, data=words, headers=headers, timeout=60)


def run(project: str, kind: str, name: str = "1", *, done: bool = True, result: dict[str, Any] | None = None) -> None:
    """Do with the requests what the DAGs do: claim them, begin, end."""
    started = watch.claim(project, f"scheduled__{name}")[f"{kind}_run_id"]
    watch.begin(project, kind, started)
    watch.end_run(project, kind, started, [], done=done, result=result or OUTCOME)


def run_when_asked(project: str, kind: str) -> threading.Thread:
    def later() -> None:
        wait_until(lambda: waiting(project)[kind] > 0, 20, "a request")
        run(project, kind)

    thread = threading.Thread(target=later)
    thread.start()
    return thread


def waiting(project: str) -> dict[str, int]:
    with connect() as connection:
        return rows.pending(connection, project)


def test_retrain_when_the_run_ends_in_time_then_answered_with_its_figures(
    server: Server, registry: Registry, good_file: bytes
):
    server.start()
    ending = run_when_asked(registry.project, "retrain")
    answer = post(server, "/retrain", good_file)
    ending.join()
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert (body["new_validation_error"], body["new_anomaly_error"]) == (0.03, 0.5)
    assert (body["promoted"], body["model_version"], body["state"], body["subset"]) == (True, "7", "done", "training")
    with connect() as connection:
        (sample,) = labelled_samples(connection, registry.project)
    assert (sample["sha256"], sample["label"], sample["subset"]) == (
        hashlib.sha256(good_file).hexdigest(), "good", "training",
    )  # fmt: skip
    assert sample["trained_version"] is None


def test_anomaly_when_async_then_a_job_from_pending_to_done(
    server: Server, registry: Registry, projects: Projects, bad_file: bytes
):
    from pipelines.storage.s3 import Storage

    uri = Storage(projects.bucket).put(f"{registry.project}/dents/x.png", bad_file)
    server.start()
    project = registry.project
    address = f"{server.address}/projects/{project}/anomaly"
    answer = requests.post(address, json={"Image_url": uri, "TYPE": "dent"}, headers=ASYNC, timeout=30)
    body = answer.json()
    assert (answer.status_code, body["state"], body["subset"]) == (202, "pending", body["sample"]["subset"])
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert answer.headers["Location"] == f"/projects/{project}/jobs/{body['job']}"
    again = requests.post(address, json={"image_url": uri, "type": "dent"}, headers=ASYNC, timeout=30).json()
    assert (again["job"], again["sample"]["known"]) == (body["job"], True)

    def job() -> Any:
        return requests.get(server.address + answer.headers["Location"], timeout=30).json()

    assert (job()["state"], job()["kind"], job()["created_by"]) == ("pending", "evaluate", "anonymous")
    run(project, "evaluate")
    assert (job()["state"], job()["result"]["threshold"], job()["sample"]["sha256"]) == (
        "done", 0.12, hashlib.sha256(bad_file).hexdigest(),
    )  # fmt: skip
    assert requests.get(f"{server.address}/jobs/{body['job']}", timeout=30).json()["state"] == "done"
    for strange in ("999", "x", "0", "-1", "9" * 40):
        missing = requests.get(f"{server.address}/jobs/{strange}", timeout=30)
        assert (missing.status_code, "has no job" in missing.json()["error"]) == (404, True)


def test_retrain_when_the_run_fails_then_says_why(server: Server, registry: Registry, good_file: bytes):
    server.start()
    job = post(server, "/retrain", good_file, ASYNC).json()["job"]
    run(registry.project, "retrain", done=False, result={"why": "failed: train"})
    body = requests.get(f"{server.address}/jobs/{job}", timeout=30).json()
    assert (body["state"], body["error"], body["result"]) == ("failed", "failed: train", None)


def test_retrain_when_many_wait_then_the_others_are_told_at_once_and_predictions_go_on(
    server: Server, registry: Registry, good_file: bytes
):
    version = registry.register()
    room = {"INSPECTLINE_WAITING": "1", "INSPECTLINE_THREADS": "16", "INSPECTLINE_WAIT_SECONDS": "60"}
    server.start(**room).until_version(version)
    answers: list[int] = []

    def send() -> None:
        answers.append(post(server, "/retrain", good_file).status_code)

    senders = [threading.Thread(target=send) for _ in range(6)]
    for sender in senders:
        sender.start()
    wait_until(lambda: len(answers) == 5, 50, "those who may not wait")
    assert [server.predict(good_file).status_code for _ in range(10)] == [200] * 10
    assert answers == [202] * 5, "one still waits"
    run(registry.project, "retrain")
    for sender in senders:
        sender.join()
    assert sorted(answers) == [200] + [202] * 5
    assert waiting(registry.project)["retrain"] == 0


def test_retrain_when_prefer_says_how_long_then_no_longer(server: Server, good_file: bytes):
    server.start(INSPECTLINE_WAIT_SECONDS="2")
    for prefer, least, applied in [
        ("respond-async, wait=1", 1, "wait=1"),
        ("respond-async; x=1", 0, "respond-async"),
        ("wait=600", 2, "wait=2"),
        ("wait=soon", 2, None),
    ]:
        began = time.monotonic()
        answer = post(server, "/retrain", good_file, {"Prefer": prefer})
        assert answer.status_code == 202
        assert least <= time.monotonic() - began < 20, prefer
        assert answer.headers.get("Preference-Applied") == applied


def test_retrain_when_serving_is_ended_then_who_waits_is_told_the_address(
    server: Server, registry: Registry, good_file: bytes
):
    server.start()
    answers: list[Any] = []
    sender = threading.Thread(target=lambda: answers.append(post(server, "/retrain", good_file)))
    sender.start()
    wait_until(lambda: waiting(registry.project)["retrain"] > 0, 20, "the request")
    began = time.monotonic()
    assert server.end() == 0
    sender.join()
    assert time.monotonic() - began < 20, "not the 30 seconds that it might have waited"
    assert (answers[0].status_code, answers[0].headers["Location"]) == (202, "/jobs/1")


@pytest.mark.parametrize(
    ("call", "words", "status", "message"),
    [
        ("/retrain", {"type": "dent"}, 400, "there is no field 'type': this call takes image_url, group"),
        ("/anomaly", {"type": "a/b"}, 400, "write a short word"),
        ("/anomaly", {"type": ".."}, 400, "write a short word"),
        ("/projects/nothing/retrain", {}, 404, "there is no project"),
    ],
)
def test_sent_back_when_it_cannot_be_used_then_4xx(
    server: Server, good_file: bytes, call: str, words: dict[str, str], status: int, message: str
):
    server.start()
    answer = post(server, call, good_file, ASYNC, **words)
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    assert post(server, "/retrain", b"no image", ASYNC).status_code == 422


def test_sent_back_when_s3_or_the_database_is_away_then_503_and_again_later(
    server: Server, registry: Registry, s3: str, postgres: str, good_file: bytes
):
    database = postgres.replace("postgresql+psycopg://inspectline@", "http://").rpartition("/")
    with Relay(s3) as storage, Relay(database[0]) as catalogue:
        near = postgres.replace(database[0].removeprefix("http://"), f"127.0.0.1:{catalogue.port}")
        server.start(
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{storage.port}", AWS_MAX_ATTEMPTS="1", INSPECTLINE_DATABASE_URL=near
        )
        for away in (storage, catalogue):
            away.down()
            answer = post(server, "/retrain", good_file, ASYNC)
            assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5"), answer.text
            assert waiting(registry.project)["retrain"] == 0
            away.up()
        answer = post(server, "/retrain", good_file, ASYNC)
        assert (answer.status_code, answer.json()["sample"]["known"]) == (202, False)
        assert waiting(registry.project)["retrain"] == 1
