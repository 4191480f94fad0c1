"""Every DAG run whole, as Airflow runs it, on real S3, MLflow, SQLite and SMTP, with no logical date."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from mlflow import MlflowClient
from sqlalchemy import select, update

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.schema import requests, samples, trainings
from pipelines.config.settings import settings
from pipelines.errors import BadDataset
from pipelines.registry import client
from pipelines.requests import watch
from pipelines.requests.status import find_job
from serving.app import create_app
from tests.conftest import wait_until
from tests.dags.conftest import Line, Run
from tests.dags.images import part
from tests.plugins.catalogue_rows import enter_images

pytestmark = pytest.mark.slow

GOOD, BAD = 64, 12
KEYS = {
    # Steps end the training, not the clock, and no figure of it is asked for: a busy machine learns less in seconds.
    "model": {"input_size": 64, "resize": "tile", "epochs": 2, "batch_size": 8, "time_budget_minutes": 5},
    "threshold": {"false_positive_rate": 0.1},
    "promotion": {"minimum_auroc": 0, "bootstrap_samples": 200},
    "retrain": {"new_images": 500},
}


@pytest.fixture(scope="module")
def first(line: Line) -> Run:
    """Run `retrain` over an inbox of good images, anomalies with masks, and one file that is no image."""
    line.declare(**KEYS)
    for number in range(GOOD):
        line.send(f"good/{number:03}.png", part(number)[0])
    for number in range(BAD):
        image, mask = part(1000 + number, defect=True)
        line.send(f"anomaly/blot/{number:03}.png", image)
        line.send(f"anomaly/blot/{number:03}_mask.png", mask)
    line.send("good/notes.jpg", b"not an image")
    return line.run("retrain")


def runs_of(dag_id: str) -> list[Any]:
    """Return the runs of a DAG that Airflow knows."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        return list(session.scalars(select(DagRun).where(DagRun.dag_id == dag_id)))


def test_retrain_when_images_wait_runs_to_the_end(line: Line, first: Run) -> None:
    assert first.state == "success"
    assert set(first.states.values()) == {"success"}
    assert first.run.logical_date is None
    assert line.inbox() == []
    summary = first.xcom("ingest.report")
    assert (summary["accepted"], summary["rejected"]) == (GOOD + BAD, 1)
    assert first.largest_xcom < 20_000
    assert len(first.labels) == 1
    # A nightly retraining and an ingest at the same minute have the same run id.
    assert f"/{line.project}_retrain_manual" in first.xcom("ingest.list_inbox")[0]["uri"]
    assert first.labels[0].startswith(f"batch 1 · {GOOD + BAD + 1} images")

    outcome, decision = first.xcom("complete"), first.xcom("gate")
    champion = client.champion(line.project)
    assert champion is not None
    assert (outcome["version"], decision["promoted"]) == (champion.version, True)
    auroc = outcome["metrics"]["auroc"]
    assert 0 <= auroc["low"] <= auroc["value"] <= auroc["high"] <= 1
    assert watch.state(line.project)["new_images"] == 0
    run = MlflowClient(settings().tracking_uri).get_run(first.xcom("begin")["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert first.xcom("begin", "_link_mlflow").startswith("http://localhost:5000/#/experiments/")
    assert first.xcom("profile", "_link_profile").endswith("/artifacts/profile/profile.html")
    assert line.subjects() == [f"{line.project}: version {outcome['version']} trained, promoted"]


@contextmanager
def serving(line: Line) -> Iterator[FlaskClient]:
    """Give a client of serving, which shares nothing with the DAGs but the catalogue and S3."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("INSPECTLINE_AUTH", "none")
        environment.setenv("INSPECTLINE_DEFAULT_PROJECT", line.project)
        app = create_app()
    http = app.test_client()
    wait_until(lambda: http.get(f"/projects/{line.project}/status").status_code == 200, 30, "serving")
    try:
        yield http
    finally:
        app.extensions["inspectline"].stop()


def send_back(line: Line, call: str, number: int, *, defect: bool = False) -> Any:
    """Post an image as a user does, wait for nothing, and return the answer."""
    with serving(line) as http:
        file = {"file": (BytesIO(part(number, defect=defect)[0]), "part.png")}
        answer = http.post(call, data=file, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202, answer.text
        return answer.json


def test_retrain_when_the_same_was_trained_is_skipped_with_a_link(line: Line, first: Run) -> None:
    asked = line.ask("retrain")
    line.subjects()
    again = line.run("retrain", {"request_ids": [asked]})
    assert again.state == "success"
    after = [name for name in again.states if name not in ("freeze", "close") and not name.startswith("ingest.")]
    assert {again.states[name] for name in after} == {"skipped"}
    assert again.states["close"] == "success"
    link = again.xcom("begin", "_link_earlier")
    assert link.endswith(f"/dags/{line.project}_retrain/runs/{quote(first.run_id, safe='')}")
    row = line.request(asked)
    assert row["state"] == "done"
    assert (row["result"]["link"], row["result"]["dag_run_id"]) == (link, again.run_id)
    assert "equal those of training" in row["result"]["skipped"]
    job = find_job(line.project, asked)
    assert job is not None
    outcome = first.xcom("complete")
    assert job["result"]["new_validation_error"] == outcome["metrics"]["reconstruction_error_validation"]["value"]
    assert job["result"]["new_anomaly_error"] == outcome["metrics"]["reconstruction_error_anomaly"]["value"]
    assert (job["result"]["model_version"], job["result"]["promoted"]) == (outcome["version"], True)
    assert line.subjects() == []


def test_retrain_when_profile_and_drift_fail_still_trains_registers_and_mails(
    line: Line, first: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise BadDataset("a report could not be made")

    line.subjects()
    monkeypatch.setattr("pipelines.datasets.profile.profile", broken)
    monkeypatch.setattr("monitoring.drift.detect.detect", broken)
    posted = send_back(line, "/retrain", 5000)
    asked = posted["job"]
    run = line.run(
        "retrain", {"epochs": 1, "start_from": "champion", "promote": False, "force": True, "request_ids": [asked]}
    )
    assert run.state == "success"
    assert {name for name, state in run.states.items() if state == "failed"} == {"profile", "drift"}
    assert {state for name, state in run.states.items() if name not in ("profile", "drift")} <= {"success", "skipped"}
    assert run.tries["profile"] == 1, "bad data is not tried again"
    outcome = run.xcom("complete")
    assert outcome["promoted"] is False
    assert "Only registered" in outcome["why"]
    assert client.champion(line.project).version == first.xcom("complete")["version"]  # type: ignore[union-attr]
    row = line.request(asked)
    assert (row["state"], row["result"]["version"]) == ("done", outcome["version"])
    with serving(line) as http:
        job = http.get(f"/jobs/{asked}").json
    assert job is not None
    assert (job["state"], job["result"]["model_version"], job["result"]["promoted"]) == (
        "done", outcome["version"], False,
    )  # fmt: skip
    error = outcome["metrics"]["reconstruction_error_validation"]["value"]
    assert job["result"]["new_validation_error"] == error
    with connect() as connection:
        query = select(samples.c.trained_version).where(samples.c.sha256 == posted["sample"]["sha256"])
        assert connection.execute(query).scalar_one() == run.xcom("begin")["dataset"]["version_id"]
        progress = connection.execute(
            select(trainings.c.progress).where(trainings.c.dag_run_id == run.run_id)
        ).scalar_one()
    assert (progress["epochs"], 0 < progress["percent"] <= 100) == (1, True)
    assert sorted(line.subjects()) == sorted(
        [f"{line.project}: {name} failed in {line.project}_retrain" for name in ("profile", "drift")]
        + [f"{line.project}: version {outcome['version']} trained, not promoted"]
    )


def test_evaluate_sets_the_threshold_anew_in_a_new_version(line: Line, first: Run) -> None:
    asked = line.ask("evaluate", {"promote": False})
    line.subjects()
    run = line.run("evaluate", {"promote": False, "request_ids": [asked]})
    assert (run.state, set(run.states.values())) == ("success", {"success"})
    outcome = run.xcom("complete")
    assert int(outcome["version"]) > int(first.xcom("complete")["version"])
    assert outcome["promoted"] is False
    assert line.request(asked)["state"] == "done"
    assert line.subjects() == [f"{line.project}: version {outcome['version']} evaluated, not promoted"]


def test_anomaly_when_posted_goes_by_watch_into_an_evaluation_that_answers_its_job(line: Line, first: Run) -> None:
    posted = send_back(line, "/anomaly", 6000, defect=True)
    watched = line.run("watch")
    assert (watched.state, watched.states["evaluate"], watched.states["retrain"]) == ("success", "success", "skipped")
    conf = watched.xcom("claim", "evaluate")
    assert conf["request_ids"] == [posted["job"]]
    second = send_back(line, "/anomaly", 6001, defect=True)
    again = line.run("watch")
    assert again.states["evaluate"] == "skipped", "the second joins the run that waits"
    run = line.run("evaluate", conf | {"request_ids": [posted["job"], second["job"]]})
    assert run.state == "success"
    outcome = run.xcom("complete")
    for job in (posted["job"], second["job"]):
        finished = find_job(line.project, job)
        assert finished is not None
        assert (finished["state"], finished["result"]["model_version"]) == ("done", outcome["version"])
        assert finished["result"]["threshold"] == outcome["threshold"]
        assert finished["result"]["new_anomaly_error"] == outcome["metrics"]["reconstruction_error_anomaly"]["value"]
    line.subjects()


def test_evaluate_when_a_step_fails_fails_the_run_the_request_and_the_training(
    line: Line, first: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise BadDataset("a sample is gone")

    monkeypatch.setattr("pipelines.tasks.anomaly.calibrate.calibrate", broken)
    asked = line.ask("evaluate", {"force": True})
    line.subjects()
    run = line.run("evaluate", {"force": True, "request_ids": [asked]})
    assert run.state == "failed"
    stopped = {name: state for name, state in run.states.items() if name not in ("begin", "pack", "calibrate", "close")}
    assert set(stopped.values()) == {"upstream_failed"}, "not even a mail about a training that was none"
    row = line.request(asked)
    assert (row["state"], row["result"]["why"]) == ("failed", "failed: calibrate")
    with connect() as connection:
        state = select(trainings.c.state).where(trainings.c.dag_run_id == run.run_id)
        assert connection.execute(state).scalar_one() == "failed"
    logged = MlflowClient(settings().tracking_uri).get_run(run.xcom("begin")["mlflow_run_id"])
    assert logged.info.status == "FAILED"
    assert line.subjects() == [f"{line.project}: calibrate failed in {line.project}_evaluate"]


def test_evaluate_when_there_is_no_champion_is_skipped_and_says_so(line: Line) -> None:
    name = line.declare("fresh")
    asked = line.ask("evaluate", project=name)
    run = line.run("evaluate", {"request_ids": [asked]}, project=name)
    assert run.state == "success"
    assert run.states["begin"] == "skipped"
    assert "no champion" in line.request(asked, project=name)["result"]["skipped"]


def test_drift_when_hardly_anything_was_served_says_so(line: Line, first: Run) -> None:
    run = line.run("drift")
    assert (run.state, set(run.states.values())) == ("success", {"success"})
    assert run.xcom("drift")["state"] == "too_few"
    assert run.xcom("purge") == {"images": 0, "predictions": 0}


def test_ingest_when_the_inbox_is_empty_reports_nothing_new(line: Line) -> None:
    name = line.declare("idle")
    run = line.run("ingest", project=name)
    assert run.state == "success"
    assert (run.states["ingest.list_inbox"], run.states["ingest.report"]) == ("success", "success")
    assert run.xcom("ingest.report")["lines"] == ["idle: nothing new in the inbox"]


def test_ingest_when_images_wait_takes_them_in(line: Line) -> None:
    name = line.declare("busy")
    for number in range(3):
        line.send(f"good/{number}.png", part(number)[0], project=name)
    run = line.run("ingest", project=name)
    assert (run.state, set(run.states.values())) == ("success", {"success"})
    assert watch.state(name)["new_images"] == 3


def test_retrain_when_there_are_too_few_images_fails_at_once_and_says_so(line: Line) -> None:
    name = line.declare("scarce")
    line.send("good/1.png", part(1)[0], project=name)
    asked = line.ask("retrain", project=name)
    line.subjects()
    run = line.run("retrain", {"request_ids": [asked]}, project=name)
    assert run.state == "failed"
    assert (run.states["freeze"], run.tries["freeze"]) == ("failed", 1)
    assert run.states["train"] == "upstream_failed"
    assert run.states["close"] == "failed"
    row = line.request(asked, project=name)
    assert row["state"] == "failed"
    assert row["result"]["why"].startswith("failed: freeze: scarce has 1 good images")
    assert line.subjects() == ["scarce: freeze failed in scarce_retrain"]


def test_watch_when_the_500th_image_arrives_starts_one_retraining(line: Line) -> None:
    name = line.declare("counted", retrain={"new_images": 500})
    enter_images(name, 499)
    arrival = threading.Timer(3, enter_images, (name, 1), {"start": 499})
    arrival.start()
    run = line.run("watch", project=name)
    arrival.join()
    assert run.state == "success"
    assert run.states["retrain"] == "success"
    assert run.states["evaluate"] == "skipped"
    (started,) = runs_of("counted_retrain")
    assert (started.run_id, started.logical_date) == (run.xcom("claim", "retrain_run_id"), None)
    assert started.conf["reason"] == "retrain: watch: 500 new images"
    assert watch.state(name)["new_images"] == 0, "the same images never fire twice"


def test_watch_when_a_request_asks_for_nonsense_refuses_it_and_says_why(line: Line) -> None:
    name = line.declare("careless")
    bad = line.ask("retrain", {"epochs": -5}, project=name)
    good = line.ask("evaluate", {"promote": False}, project=name)
    lost = line.ask("retrain", {"epochs": 7}, project=name)
    with transaction() as connection:
        connection.execute(update(requests).where(requests.c.id == lost).values(state="claimed", dag_run_id="deleted"))
    run = line.run("watch", project=name)
    assert (run.state, run.states["retrain"], run.states["evaluate"]) == ("success", "skipped", "success")
    row = line.request(bad, project=name)
    assert row["state"] == "failed"
    assert row["result"]["why"] == "Invalid input for param epochs: -5 is less than the minimum of 1"
    assert runs_of("careless_retrain") == []
    assert "was deleted" in line.request(lost, project=name)["result"]["why"]
    (started,) = runs_of("careless_evaluate")
    assert started.conf["request_ids"] == [good]
