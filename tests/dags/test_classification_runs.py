"""The DAGs of a classifier, run whole by Airflow on real parts: retrain, evaluate and drift, with their mails."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.registry import client
from pipelines.requests.status import find_job
from tests.dags.conftest import Line, Run

KEYS = {
    "task": "classification",
    "model": {"input_size": 64, "open_layers": 0, "epochs": 1, "batch_size": 8, "time_budget_minutes": 5},
    "promotion": {"minimum_accuracy": 0.5, "bootstrap_samples": 200},
}
COLOURS = {"amanita": (190, 60, 50), "boletus": (120, 90, 50)}


def cap(kind: str, number: int) -> bytes:
    """Return the PNG of a round cap in the colour of its kind, somewhere on noise."""
    rng = np.random.default_rng([number, *kind.encode()])
    pixels = rng.integers(60, 140, (64, 64, 3), dtype=np.uint8)
    down, across = np.mgrid[:64, :64]
    y, x = rng.integers(26, 38, 2)
    pixels[(down - y) ** 2 + (across - x) ** 2 < 20**2] = COLOURS[kind]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def first(line: Line) -> Run:
    """Run `retrain` over an inbox of two classes, as `watch` starts it."""
    line.declare(**KEYS)
    for kind in COLOURS:
        for number in range(30):
            line.send(f"{kind}/{number:03}.png", cap(kind, number))
    line.mails.clear()
    return line.run("retrain", {"reason": "retrain: watch: 60 new images"})


def text_of(line: Line, number: int) -> str:
    """Return the plain text of a mail."""
    part = line.mails[number].get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def test_classifier_when_trained_then_every_step_ends_well_and_the_mail_has_its_metrics(line: Line, first: Run) -> None:
    assert first.state == "success"
    assert set(first.states.values()) == {"success"}
    outcome, checked = first.xcom("complete"), first.xcom("accuracy")
    assert outcome["promoted"]
    assert (checked["state"], checked["sent"]) == ("met", [])
    assert [str(mail["Subject"]) for mail in line.mails] == [
        f"{line.project}: version {outcome['version']} trained, promoted"
    ]
    text = text_of(line, 0)
    for words in ("Accuracy", "Macro F1", "RECALL BY CLASS", "amanita", "watch: 60 new images"):
        assert words in text
    assert "hreshold" not in text


def test_classifier_when_evaluated_by_hand_below_a_new_minimum_then_one_mail_and_one_when_it_recovers(
    line: Line, first: Run
) -> None:
    line.declare(**KEYS | {"promotion": {"minimum_accuracy": 1.0, "bootstrap_samples": 200}})
    for number, kind in enumerate(COLOURS):  # labelled as the other one, in every subset
        other = next(name for name in COLOURS if name != kind)
        for image in range(15):
            line.send(f"{other}/wrong-{number}-{image}.png", cap(kind, 1000 + image))
    line.run("ingest")
    line.mails.clear()
    asked = line.ask("evaluate")
    evaluated = line.run("evaluate", {"request_ids": [asked]})
    assert evaluated.state == "success"
    assert evaluated.xcom("accuracy")["state"] == "below"
    subjects = line.subjects()
    assert len(subjects) == 2
    assert sum("is below 100 %" in subject for subject in subjects) == 1
    job = find_job(line.project, asked)
    assert job is not None
    assert job["result"]["accuracy"] == evaluated.xcom("complete")["metrics"]["accuracy"]["value"]
    assert (job["result"]["threshold"], job["result"]["promoted"]) == (None, False)

    nightly = line.run("drift")
    assert nightly.state == "success"
    assert nightly.xcom("accuracy")["state"] == "below"
    assert not nightly.xcom("accuracy")["measured_now"]
    assert line.subjects() == []  # it was mailed

    line.declare(**KEYS | {"promotion": {"minimum_accuracy": 0.0, "bootstrap_samples": 200}})
    assert line.run("drift").xcom("accuracy")["state"] == "met"
    (over,) = line.subjects()
    assert "again" in over


def test_classifier_when_the_check_fails_then_the_run_does_not(
    line: Line, first: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.errors import BadDataset

    def broken(*_: object) -> None:
        raise BadDataset("a test image is gone")

    monkeypatch.setattr("monitoring.accuracy.check.measure", broken)
    line.declare(**KEYS)
    for kind in COLOURS:
        line.send(f"{kind}/late.png", cap(kind, 5000))
    run = line.run("retrain", {"promote": False})
    champion = client.champion(line.project)
    assert champion is not None
    assert run.states["accuracy"] == "failed"
    assert (run.states["report"], run.states["close"]) == ("success", "success")
