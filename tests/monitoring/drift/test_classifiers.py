"""Drift of a classifier from end to end: what it predicts, how sure it is, and what people say of it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from monitoring.drift import reports
from monitoring.drift.detect import detect
from monitoring.mail import outbox
from pipelines.catalogue import connect, transaction
from pipelines.catalogue.schema import samples
from pipelines.config.project import load_project
from pipelines.datasets.corrections import annotate
from pipelines.ingest.submission import Posted
from pipelines.storage.s3 import read_uri
from tests.conftest import Projects
from tests.monitoring.conftest import Classifier, Line
from tests.pipelines.packages import COLOURS

Colours = Callable[..., list[np.ndarray]]
Surfaces = Callable[..., list[np.ndarray]]


def results_of(report: dict[str, Any]) -> dict[str, Any]:
    """Return what the report's row in the catalogue says."""
    with connect() as connection:
        return dict(reports.get(connection, report["report_id"])["results"])


def page_of(report: dict[str, Any]) -> str:
    """Return the stored page with single spaces."""
    return " ".join(read_uri(report["report_uri"]).decode().split())


def say(classifier: Classifier, hashes: list[str], label: str, author: str = "anna") -> None:
    """Have somebody say what served images show."""
    for sha256 in hashes:
        annotate(load_project(classifier.name), sha256, Posted(b"", label, author=author))


@pytest.fixture
def known(classifier: Classifier) -> Classifier:
    """Return a project that has samples of each colour, and a champion."""
    for seed, colour in enumerate(COLOURS):
        classifier.add("training", colour, 2, 1000 * (seed + 1))
    classifier.promote()
    return classifier


def test_detect_when_a_classifier_sees_what_it_was_made_for_then_no_drift(classifier: Classifier, colours: Colours):
    classifier.promote()
    classifier.serve(colours(60, 1))
    report = detect(classifier.name, "run-1")
    assert (report["state"], report["reasons"], report["mail"]) == ("no_drift", [], None)
    results = results_of(report)
    assert results["score"]["name"] == "certainty"
    assert results["classes"]["distance"] == pytest.approx(0)
    assert (results["unsure"]["reference"], results["unsure"]["current"]) == (0, 0)
    assert results["confirmed"] is None
    assert results["false_alarms"] is None
    page = page_of(report)
    assert "60 validation images of version" in page
    assert "anomal" not in page[: page.index("Below, Evidently")]


def test_detect_when_other_classes_are_served_then_the_predicted_classes_drifted(
    classifier: Classifier, colours: Colours
):
    classifier.promote()
    classifier.serve(colours(60, 2, "red", "red", "red", "red", "green", "blue"))
    report = detect(classifier.name, "run-1")
    assert report["state"] == "drift"
    classes = results_of(report)["classes"]
    assert classes["distance"] == pytest.approx(1 / 3, abs=0.01)
    assert classes["moved"][0]["name"] == "red"
    assert (classes["moved"][0]["reference"], classes["moved"][0]["current"]) == (
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
    )
    assert report["reasons"][0].startswith("the predicted classes drifted: red 33% → 67%")
    ((mail, _),) = outbox.unpack(report["mail"])
    for part in (mail.text, mail.html):
        assert "red 33 % → 67 %" in part
        assert "each in the folder of its class" in part
        assert "anomal" not in part


def test_detect_when_images_show_two_classes_at_once_then_more_predictions_are_unsure(
    classifier: Classifier, colours: Colours
):
    classifier.promote()
    classifier.serve(colours(60, 3, "red", "green", "blue", "red+green", "green+blue", "red+blue"))
    report = detect(classifier.name, "run-1")
    unsure = results_of(report)["unsure"]
    assert (unsure["reference"], unsure["current"], unsure["drifted"]) == (0, 0.5, True)
    assert "50% of the predictions are unsure, 0% of the reference" in report["reasons"]


def test_detect_when_another_version_is_promoted_then_images_are_classified_again(
    classifier: Classifier, colours: Colours
):
    classifier.promote()
    classifier.serve(colours(55, 4))
    classifier.promote(temperature=4.0)
    classifier.serve(colours(5, 5))
    report = detect(classifier.name, "run-1")
    results = results_of(report)
    assert (results["rescored"], results["reused"], results["lost"]) == (55, 5, 0)
    assert report["state"] == "no_drift"


def test_detect_when_people_judge_predictions_then_their_accuracy_is_reported_and_below_the_minimum_a_reason(
    known: Classifier, colours: Colours
):
    red = known.serve(colours(60, 6, *COLOURS))[2::3]
    say(known, red[:12], "red")
    kept = detect(known.name, "run-1")
    confirmed = results_of(kept)["confirmed"]
    assert (confirmed["images"], confirmed["right"], confirmed["below"]) == (12, 12, False)
    assert kept["reasons"] == []
    assert "people judged 12 and found <b>12</b> right" in page_of(kept)
    say(known, red[:9], "blue", author="berta")  # whoever says something later has the last word
    broken = detect(known.name, "run-2")
    confirmed = results_of(broken)["confirmed"]
    assert (confirmed["images"], confirmed["right"], confirmed["below"]) == (12, 3, True)
    assert confirmed["accuracy"]["high"] < 0.7
    assert broken["state"] == "no_drift"  # people correct more readily than they confirm
    assert "people found 3 of 12 predictions right" in broken["reasons"][0]


def test_detect_when_an_image_was_judged_before_the_version_saw_it_then_it_does_not_count(
    known: Classifier, colours: Colours
):
    images = colours(60, 7)
    now = datetime.now(UTC)
    hashes = known.serve(images, when=now - timedelta(hours=3))
    say(known, hashes[2:21:3], "red")
    known.promote(temperature=2.5)
    known.serve(images, when=now + timedelta(minutes=1))
    later = now + timedelta(minutes=2)
    assert results_of(detect(known.name, "run-1", now=later))["confirmed"] is None
    say(known, hashes[23:24], "blue")
    with_one = detect(known.name, "run-2", now=later)
    assert results_of(with_one)["confirmed"] is None  # judged before the second version's prediction of it, too


def test_detect_when_a_judged_image_is_withdrawn_then_it_does_not_count(known: Classifier, colours: Colours):
    hashes = known.serve(colours(60, 8))
    say(known, hashes[:2], "red")
    with transaction() as connection:
        withdrawn = update(samples).where(samples.c.project == known.name, samples.c.sha256 == hashes[0])
        connection.execute(withdrawn.values(withdrawn_at=datetime.now(UTC)))
    assert results_of(detect(known.name, "run-1"))["confirmed"]["images"] == 1


def test_detect_when_too_few_images_were_served_then_what_people_found_is_reported_nevertheless(
    known: Classifier, colours: Colours
):
    hashes = known.serve(colours(12, 9, "red"))
    say(known, hashes, "blue")
    report = detect(known.name, "run-1")
    assert report["state"] == "too_few"
    assert ["needs 50" in report["reasons"][0], "0 of 12" in report["reasons"][1]] == [True, True]


def test_detect_when_the_reference_is_small_then_says_to_train_with_more_images(
    classifier: Classifier, colours: Colours
):
    classifier.promote(n_reference=19)
    classifier.serve(colours(60, 10))
    report = detect(classifier.name, "run-1")
    assert report["state"] == "too_few"
    assert "good" not in report["reasons"][0]


def test_detect_when_the_champion_is_of_another_task_then_there_is_none_to_compare_with(
    line: Line, surfaces: Surfaces, projects: Projects
):
    line.promote(surfaces(20, seed=1))
    line.serve(surfaces(50, seed=2))
    projects.write(line.name, task="classification")
    report = detect(line.name, "run-1")
    assert (report["state"], report["mail"]) == ("no_champion", None)
    assert "is of the task anomaly" in report["reasons"][0]
