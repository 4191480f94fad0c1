"""The check of a classifier's accuracy: on the newest test set, once for a version, mailed on a change."""

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from monitoring.accuracy.check import Check, check
from monitoring.accuracy.measure import summarise
from monitoring.mail import outbox
from pipelines.catalogue import connect
from pipelines.catalogue.schema import accuracy_checks
from pipelines.datasets.versions import freeze
from pipelines.steps import DatasetVersion
from tests.conftest import Projects
from tests.monitoring.conftest import Classifier
from tests.pipelines.packages import COLOURS


def fill(classifier: Classifier, wrong: int, seed: int = 0) -> DatasetVersion:
    """Enter twenty images of each colour, ten of them in test, of which `wrong` reds are blue; freeze them."""
    for number, colour in enumerate(COLOURS):
        start = seed + 1000 * number
        classifier.add("training", colour, 8, start)
        classifier.add("validation", colour, 2, start + 100)
        classifier.add("test", colour, 10 if colour != "red" else 10 - wrong, start + 200)
    if wrong:
        classifier.add("test", "red", wrong, seed + 9000, colour="blue")
    return freeze(classifier.name)


def sent(found: Check) -> list[str]:
    """Mark the mails of a check as sent, and return their subjects."""
    subjects = []
    for mail, mark in outbox.unpack(found.mail) if found.mail else ():
        mark()
        subjects.append(mail.subject)
    return subjects


def rows(project: str) -> list[Any]:
    """Return the project's checks, oldest first."""
    with connect() as connection:
        query = select(accuracy_checks).where(accuracy_checks.c.project == project).order_by(accuracy_checks.c.id)
        return list(connection.execute(query).mappings())


def test_check_when_accuracy_falls_below_the_minimum_and_recovers_then_one_mail_for_each(classifier: Classifier):
    classifier.promote()
    fill(classifier, wrong=0)
    good = check(classifier.name, "run-1")
    assert (good.state, good.measured_now, good.mail) == ("met", True, None)
    again = check(classifier.name, "run-2")
    assert (again.state, again.measured_now) == ("met", False)

    classifier.add("test", "red", 20, 20_000, colour="blue")
    dataset = freeze(classifier.name)
    fallen = check(classifier.name, "run-3")
    assert (fallen.state, fallen.measured_now) == ("below", True)
    assert check(classifier.name, "run-3").mail == fallen.mail  # the task tried again
    assert sent(fallen) == ["Test caps: accuracy 60.0 % is below 70 %"]
    assert sent(fallen) == []
    assert check(classifier.name, "run-4").mail is None

    classifier.add("test", "blue", 60, 30_000)
    freeze(classifier.name)
    over = check(classifier.name, "run-5")
    assert over.state == "met"
    assert sent(over) == ["Test caps: accuracy 81.8 % meets 70 % again"]
    assert [row["changed"] for row in rows(classifier.name)] == [False, False, True, False, True]
    assert rows(classifier.name)[2]["version_id"] == dataset.version_id


def test_check_when_below_then_the_mail_names_the_worst_classes_and_what_they_are_taken_for(classifier: Classifier):
    classifier.promote()
    fill(classifier, wrong=9)
    classifier.add("test", "green", 1, 50_000, colour="blue")
    freeze(classifier.name)
    found = check(classifier.name, "run-1")
    ((mail, _),) = outbox.unpack(found.mail or {})
    assert mail.to == ("quality@example.com",)
    example = rows(classifier.name)[0]["results"]["measured"]["worst"][0]["confusions"][0]["examples"][0]
    for part in (mail.text, mail.html):
        retrain = f"{classifier.name}_retrain"
        for expected in ("67.7 %", "70 %", "1 of 10", "blue (9)", example[:12], ".png", retrain):
            assert expected in part
    assert mail.text.index("red: 1 of 10") < mail.text.index("green: 10 of 11")
    assert "blue: " not in mail.text  # found whole


def test_check_when_the_version_or_the_minimum_changes_then_judged_anew(classifier: Classifier, projects: Projects):
    classifier.promote()
    fill(classifier, wrong=0)
    assert check(classifier.name, "run-1").state == "met"
    classifier.promote(classes=("blue", "red", "green"))  # takes two colours for each other
    fallen = check(classifier.name, "run-2")
    assert (fallen.state, fallen.measured_now) == ("below", True)
    projects.write(classifier.name, task="classification", promotion={"minimum_accuracy": 0.3})
    lenient = check(classifier.name, "run-3")
    assert (lenient.state, lenient.measured_now) == ("met", False)


def test_check_when_the_mail_could_not_be_sent_then_the_next_run_sends_it(classifier: Classifier):
    classifier.promote()
    fill(classifier, wrong=9)
    classifier.add("test", "green", 1, 50_000, colour="blue")
    freeze(classifier.name)
    assert check(classifier.name, "run-1").mail is not None
    assert len(sent(check(classifier.name, "run-2"))) == 1


def test_check_when_a_dataset_version_is_named_then_that_one_is_used(classifier: Classifier):
    classifier.promote()
    first = fill(classifier, wrong=0)
    classifier.add("test", "red", 20, 20_000, colour="blue")
    freeze(classifier.name)
    assert check(classifier.name, "run-1", first.version_id).state == "met"
    assert check(classifier.name, "run-2").state == "below"


def test_check_when_the_champion_does_not_know_a_class_then_its_images_count_as_wrong(classifier: Classifier):
    classifier.promote()
    fill(classifier, wrong=0)
    for side, count in (("training", 8), ("validation", 2), ("test", 10)):
        classifier.add(side, "violet", count, 40_000 + 100 * count, colour="red")
    freeze(classifier.name)
    check(classifier.name, "run-1")
    measured = rows(classifier.name)[0]["results"]["measured"]
    assert (measured["images"], measured["accuracy"]["value"]) == (40, pytest.approx(0.75))
    assert (measured["worst"][0]["name"], measured["worst"][0]["found"]) == ("violet", 0)


def test_check_when_there_is_nothing_to_check_then_says_why_and_records_nothing(classifier: Classifier):
    assert check(classifier.name, "run-1").state is None
    classifier.promote()
    assert check(classifier.name, "run-2").state is None
    for number, colour in enumerate(COLOURS):
        classifier.add("training", colour, 8, 1000 * number)
        classifier.add("validation", colour, 2, 1000 * number + 100)
    freeze(classifier.name)
    without = check(classifier.name, "run-3")
    assert (without.state, without.mail) == (None, None)
    assert "no test images" in without.why
    assert rows(classifier.name) == []


def test_summarise_when_classes_differ_then_the_worst_come_first_with_the_most_certain_examples():
    labels = ["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["d"] * 4 + ["e"] * 2
    named = ["b", "b", "c", "a", "a", "b", "b", "b", "a", "a", "a", "b", "d", "d", "d", "d", "e", "a"]
    certainty = np.linspace(0.5, 0.9, len(labels)).tolist()
    measured = summarise(labels, named, certainty, [f"{number:02}" for number in range(len(labels))])
    assert measured.images == 18
    assert measured.accuracy.value == pytest.approx(9 / 18)
    assert [(one.name, one.found, one.n) for one in measured.worst] == [("c", 0, 4), ("a", 1, 4), ("e", 1, 2)]
    assert [(one.predicted, one.n, one.examples) for one in measured.worst[1].confusions] == [
        ("b", 2, ["01", "00"]),
        ("c", 1, ["02"]),
    ]
    assert measured.worst[0].confusions[0].examples == ["10", "09"]
