"""The weekly digest: sent once after each week in the project's time zone, with the facts of that week."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from monitoring.drift import reports
from monitoring.mail import digest
from monitoring.mail.mails import digest_mail
from pipelines.catalogue import connect, predictions, transaction
from pipelines.catalogue.schema import trainings
from pipelines.config.project import Project

# Monday 9 to Sunday 15 November 2026 is week 46. New York is five hours behind UTC in it.
PROJECT = Project(name="line", timezone="America/New_York")
SUNDAY_NIGHT = datetime(2026, 11, 16, 4, 59, tzinfo=UTC)
MONDAY = datetime(2026, 11, 16, 5, 1, tzinfo=UTC)


def report(run: str, state: str, when: datetime, **values: Any) -> int:
    """Enter a drift report and return its id."""
    with transaction() as connection:
        return int(reports.enter(connection, "line", run, state, created_at=when, **values)["id"])


def is_due(now: datetime) -> bool:
    """Ask the catalogue."""
    with connect() as connection:
        return digest.due(connection, PROJECT, now)


def predict(count: int, anomalies: int, when: datetime, **columns: Any) -> None:
    """Enter predictions of `count` images, some of them anomalous; `columns` replace theirs."""
    predictions.enter(
        [
            {
                "request_id": str(uuid.uuid4()),
                "project": "line",
                "sha256": f"{index:064x}",
                "created_at": when,
                "model_version": "1",
                "score": 0.1,
                "threshold": 0.2,
                "is_anomaly": index < anomalies,
                "latency_ms": 4.0,
                "width": 64,
                "height": 64,
                "descriptors": {},
                "embedding": b"",
            }
            | columns
            for index in range(count)
        ]
    )


def train(training_id: str, when: datetime, **values: Any) -> None:
    """Enter an ended training."""
    with transaction() as connection:
        connection.execute(
            trainings.insert().values(
                training_id=training_id,
                project="line",
                version_id="v1",
                params_digest="0" * 64,
                params={},
                dag_run_id=training_id,
                finished_at=when,
                **values,
            )
        )


def test_due_when_no_report_was_ever_made_then_no(each_database: str):
    assert not is_due(MONDAY)


def test_due_when_a_week_of_the_lines_own_time_zone_is_over_then_once(each_database: str):
    report_id = report("run-1", "no_drift", datetime(2026, 11, 11, 12, tzinfo=UTC))
    assert not is_due(datetime(2026, 11, 11, 13, tzinfo=UTC))
    assert not is_due(SUNDAY_NIGHT)
    assert is_due(MONDAY)
    with transaction() as connection:
        reports.mark_digest(connection, report_id, MONDAY)
    assert not is_due(MONDAY + timedelta(days=6))
    assert is_due(MONDAY + timedelta(days=7))


def test_due_when_airflow_was_down_for_three_weeks_then_one_digest(each_database: str):
    report_id = report("run-1", "no_drift", datetime(2026, 10, 20, 12, tzinfo=UTC))
    assert is_due(MONDAY + timedelta(days=2))
    with transaction() as connection:
        reports.mark_digest(connection, report_id, MONDAY + timedelta(days=2))
    assert not is_due(MONDAY + timedelta(days=3))


def test_facts_when_a_classifier_then_the_share_of_unsure_predictions_of_its_task_alone(each_database: str):
    tuesday = datetime(2026, 11, 10, 15, tzinfo=UTC)
    predict(7, 7, tuesday)  # from when the project had another task
    predict(8, 0, tuesday, task="classification", is_anomaly=None, answer={"class": "a", "unsure": False})
    predict(2, 0, tuesday, task="classification", is_anomaly=None, answer={"class": "a", "unsure": True})
    with connect() as connection:
        week = digest.facts(connection, Project(name="line", task="classification"), MONDAY + timedelta(days=1))
    assert week["served"] == {"predictions": 10, "images": 8, "flagged": pytest.approx(0.2)}
    assert (week["flagged"], week["expected"]) == ("Unsure", None)


def test_facts_when_a_week_is_reported_then_only_that_week_counts(each_database: str):
    tuesday = datetime(2026, 11, 10, 15, tzinfo=UTC)
    predict(40, 2, tuesday)
    predict(10, 5, tuesday + timedelta(days=1))  # ten of the same images again
    predict(20, 0, tuesday - timedelta(days=7))
    predict(99, 99, MONDAY)
    report("run-0", "drift", tuesday - timedelta(days=7))
    report("run-1", "drift", tuesday)
    report("run-2", "no_drift", tuesday + timedelta(hours=2))
    report("run-3", "no_drift", SUNDAY_NIGHT, model_version="7", results={"reasons": []})
    report("run-4", "drift", MONDAY)
    train("t-1", tuesday, state="completed", model_version="7", promoted=True, result={"why": "Promoted: better."})
    train("t-2", tuesday + timedelta(days=1), state="failed", result={"why": "failed: train"})
    train("t-3", MONDAY, state="completed", model_version="8", promoted=True)

    with connect() as connection:
        week = digest.facts(connection, PROJECT, MONDAY + timedelta(days=1))
    assert week["title"] == "week 46, 9 November to 15 November 2026"
    assert week["served"] == {"predictions": 50, "images": 40, "flagged": pytest.approx(7 / 50)}
    assert week["former"] == {"predictions": 20, "images": 20, "flagged": 0}
    assert [entry["state"] for entry in week["days"]] == [None, "drift", None, None, None, None, "no_drift"]
    assert week["days"][1]["day"] == "Tue 10"
    assert week["latest"]["version"] == "7"
    assert [(entry["version"], entry["promoted"], entry["why"]) for entry in week["trainings"]] == [
        ("7", True, "Better."),
        (None, False, "Train"),
    ]
    assert "week 46" in digest_mail(PROJECT, week).subject
