"""Past predictions of classifiers: certainty, accuracy by what people said, and finding one by its image."""

from datetime import timedelta
from typing import Any

import pytest

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.annotations import latest, proposals
from pipelines.catalogue.past_accuracy import past_accuracy
from pipelines.catalogue.predictions import enter, find_prediction
from pipelines.catalogue.samples import count_since, effective_labels, has_label
from pipelines.catalogue.schema import annotations, now

START = now() - timedelta(hours=1)


def row(number: int, predicted: str, certainty: float, **more: Any) -> dict[str, Any]:
    """Return a prediction as serving enters it, made in minute `number`."""
    answer = {"class": predicted, "probabilities": {predicted: certainty}}
    values = {"request_id": f"r{number}", "project": "caps", "sha256": f"{number:064x}", "model_version": "1"}
    values |= {"created_at": START + timedelta(minutes=number), "task": "classification", "answer": answer}
    values |= {"score": certainty, "threshold": None, "is_anomaly": None, "verdict": None, "source": "upload"}
    values |= {"latency_ms": 1.0, "width": 64, "height": 64, "descriptors": {}, "embedding": b""}
    return values | {"image_key": None, "expires_at": None} | more


def say(number: int, label: str, origin: str = "serving", project: str = "caps") -> None:
    fixed = {"project": project, "sha256": f"{number:064x}", "created_at": now()}
    with transaction() as connection:
        connection.execute(annotations.insert().values(fixed | {"label": label, "origin": origin}))


def test_past_accuracy_when_some_are_confirmed_then_of_the_last_ones_and_by_the_latest_word(each_database: str):
    assert (past_accuracy("caps", 10).predictions, past_accuracy("caps", 10).mean_certainty) == (0, None)
    enter([row(number, "a", 0.5 + number / 100) for number in range(1, 7)])
    enter([row(7, "a", 0.1, request_id="other", project="other"), row(8, "a", 0.1, request_id="x", task="anomaly")])
    for number, label, origin in [
        (1, "a", "serving"),
        (4, "b", "serving"), (4, "a", "decision"),  # the later word
        (5, "a", "serving"), (5, "b", "serving"),
        (6, "b", "proposed"), (6, "b", "inbox"),  # nobody looked at the prediction
    ]:  # fmt: skip
        say(number, label, origin)
    say(6, "b", project="other")
    every, last = past_accuracy("caps", 100), past_accuracy("caps", 3)
    assert (every.predictions, every.annotated, every.correct) == (6, 3, 2)
    assert every.mean_certainty == pytest.approx(0.535)
    assert every.since == START + timedelta(minutes=1)
    assert (last.predictions, last.annotated, last.correct) == (3, 2, 1)
    assert last.mean_certainty == pytest.approx(0.55)


def test_find_prediction_when_the_version_has_judged_the_image_then_it_and_no_other(each_database: str):
    enter([row(1, "a", 0.9), row(2, "a", 0.9, answer=None), row(3, "a", 0.9, model_version="2")])
    found = find_prediction("caps", f"{1:064x}", "1", START)
    assert found is not None
    assert found["answer"]["probabilities"] == {"a": 0.9}
    assert find_prediction("caps", f"{1:064x}", "1", START + timedelta(minutes=2)) is None
    assert find_prediction("caps", f"{3:064x}", "1") is None
    assert find_prediction("other", f"{1:064x}", "1") is None
    without = find_prediction("caps", f"{2:064x}", "1")
    assert without is None or without["answer"] is None


def test_proposals_when_people_have_spoken_or_a_version_thinks_otherwise_then_no_longer_and_they_never_dispute(
    each_database: str,
):
    for number, label, origin in [
        (1, "a", "proposed"),
        (2, "a", "proposed"), (2, "b", "serving"),
        (3, "b", "inbox"), (3, "a", "proposed"),
        (4, "a", "proposed"), (4, "b", "proposed"),
        (5, "a", "inbox"), (5, "b", "inbox"), (5, "a", "proposed"),
        (6, "c", "proposed"),
    ]:  # fmt: skip
        say(number, label, origin)
    assert [(int(entry["sha256"], 16), entry["label"]) for entry in proposals("caps", 10)] == [
        (6, "c"), (4, "b"), (1, "a"),
    ]  # fmt: skip
    newest = proposals("caps", 1)[0]
    assert [int(entry["sha256"], 16) for entry in proposals("caps", 1, newest["id"])] == [4]
    labels = effective_labels("caps")
    with connect() as connection:
        said = {int(row.sha256, 16): (row.label, bool(row.proposed)) for row in connection.execute(labels.select())}
        holding = latest(connection, "caps", [f"{number:064x}" for number in range(1, 7)])
    assert said == {
        1: ("a", True), 2: ("b", False), 3: ("b", False), 4: ("b", True), 5: (None, False), 6: ("c", True),
    }  # fmt: skip
    assert {int(sha256, 16): entry["label"] for sha256, entry in holding.items()} == {
        1: "a", 2: "b", 3: "b", 4: "b", 5: "b", 6: "c",
    }  # fmt: skip
    assert (has_label("caps", "b"), has_label("caps", "c"), has_label("other", "b")) == (True, False, False)
    assert count_since("caps", START) == 0
