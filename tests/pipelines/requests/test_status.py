"""A job as whoever asked is told of it, from the request's row and its training's."""

from typing import Any

import pytest
from sqlalchemy import update

from pipelines.catalogue import requests as rows
from pipelines.catalogue import transaction
from pipelines.catalogue.schema import trainings
from pipelines.requests import status, watch
from pipelines.training.progress import ProgressRow
from tests.pipelines.outcomes import OUTCOME

BETTER = OUTCOME | {"why": "better"}
SAMPLE = {"sha256": "a" * 64, "subset": "training"}


@pytest.fixture
def job(each_database: str) -> int:
    with transaction() as connection:
        return rows.ask(connection, "line", "retrain", {}, "anna", SAMPLE)


def claim() -> None:
    with transaction() as connection:
        rows.claim(connection, "line", "retrain", "run 1")


def train() -> None:
    begun = {"project": "line", "version_id": "d1", "params_digest": "x", "params": {}, "state": "running"}
    with transaction() as connection:
        connection.execute(trainings.insert().values(training_id="t1", dag_run_id="run 1", **begun))


def job_of(number: int) -> dict[str, Any]:
    job = status.find_job("line", number)
    assert job is not None
    return job


def test_job_from_pending_to_done(job: int):
    assert (job_of(job)["state"], job_of(job)["sample"], job_of(job)["created_by"]) == ("pending", SAMPLE, "anna")
    claim()
    assert (job_of(job)["state"], job_of(job)["started_at"]) == ("pending", None)
    watch.begin("line", "retrain", "run 1")
    assert (job_of(job)["state"], job_of(job)["progress"]) == ("running", None)
    train()
    watch.end_run("line", "retrain", "run 1", [], done=True, result=BETTER)
    done = job_of(job)
    assert (done["state"], done["error"], done["run"]) == ("done", None, "run 1")
    assert done["finished_at"] >= done["started_at"] >= done["created_at"]
    assert done["result"] == {
        "new_validation_error": 0.03,
        "new_anomaly_error": 0.5,
        "promoted": True,
        "model_version": "7",
        "threshold": 0.12,
        "why": "better",
        "skipped": None,
    }


def test_answer_when_a_classifier_then_its_accuracy_and_no_errors():
    values = {"accuracy": 0.83, "macro_f1": 0.81, "set_size": 1.4}
    metrics = {name: {"value": value, "low": value, "high": value} for name, value in values.items()}
    answer = status.answer({"metrics": metrics, "version": "4", "promoted": True, "why": "better", "threshold": None})
    assert (answer["accuracy"], answer["macro_f1"]) == (0.83, 0.81)
    assert (answer["new_validation_error"], answer["new_anomaly_error"], answer["threshold"]) == (None, None, None)
    assert "set_size" not in answer


def test_job_when_its_run_failed_then_says_why(job: int):
    claim()
    watch.begin("line", "retrain", "run 1")
    assert not status.is_ended("line", job)
    watch.end_run("line", "retrain", "run 1", [], done=False, result={"why": "failed: train"})
    assert status.is_ended("line", job)
    assert (job_of(job)["state"], job_of(job)["error"], job_of(job)["result"]) == ("failed", "failed: train", None)


def test_job_when_training_then_progress(job: int):
    from pipelines.training.state import Progress

    claim()
    watch.begin("line", "retrain", "run 1")
    train()
    row = ProgressRow("t1")
    row.note(Progress(3, 10, True, 0.1, None, 1e-3, 50.0, 12.0, 240.0))
    row.note(Progress(4, 10, True, 0.1, None, 1e-3, 50.0, 13.0, 240.0))  # a moment later: not written
    progress = job_of(job)["progress"]
    assert (progress["epoch"], progress["epochs"], progress["seconds"], progress["percent"]) == (3, 10, 12.0, 30.0)
    with transaction() as connection:
        connection.execute(update(trainings).values(state="completed"))
    assert job_of(job)["progress"] is None


def test_progress_when_the_catalogue_is_away_holds_nothing_up(monkeypatch: pytest.MonkeyPatch):
    from pipelines.training.state import Progress

    monkeypatch.setenv("INSPECTLINE_DATABASE_URL", "postgresql+psycopg://x@127.0.0.1:9/x")
    ProgressRow("t1").note(Progress(1, 10, True, 0.1, None, 1e-3, 50.0, 12.0, 240.0))


@pytest.mark.parametrize("number", [0, -1, 10**30, 999])
def test_job_when_there_is_none_then_none(job: int, number: int):
    assert status.find_job("line", number) is None
    assert status.find_job("other", job) is None
