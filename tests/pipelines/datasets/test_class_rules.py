"""Dataset versions of classifiers: enough of each class, the newest of each, decisions about classes."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines.catalogue import transaction
from pipelines.catalogue.schema import samples
from pipelines.datasets.__main__ import main
from pipelines.datasets.decisions import NoSuchSample, decide
from pipelines.datasets.versions import freeze, read_manifest
from pipelines.errors import NotEnoughImages
from tests.pipelines.datasets.test_versions import add, sha

SIDES = ("training", "validation", "test")


def add_class(label: str, *counts: int) -> None:
    """Enter images of a class: so many for training, validation and test."""
    first = add_class.next  # type: ignore[attr-defined]
    for side, count in zip(SIDES, counts, strict=True):
        if count:
            add(first, count, side, label)
        first += count
    add_class.next = first  # type: ignore[attr-defined]


@pytest.fixture
def line(projects, each_database) -> Any:
    add_class.next = 0  # type: ignore[attr-defined]
    projects.write("line", task="classification")
    return projects


def test_freeze_when_classes_suffice_counts_them_and_names_the_smallest(line):
    add_class("amanita", 20, 4, 6)
    add_class("boletus", 6, 1, 1)
    frozen = freeze("line")
    assert {side: frozen.counts[side] for side in SIDES} == {"training": 26, "validation": 5, "test": 7}
    assert any("2 classes" in note and "'boletus' with 8" in note for note in frozen.notes)
    assert not any("false-positive" in note for note in frozen.notes)
    frame = read_manifest(frozen.manifest_uri)
    assert set(frame["label"]) == {"amanita", "boletus"}
    assert freeze("line") == frozen


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({}, ["no labelled images", "line/inbox/<class>/"]),
        ({"a": (20, 5, 5)}, ["one class only, 'a'"]),
        ({"a": (20, 5, 5), "b": (5, 1, 1), "c": (2, 1, 0)}, ["fewer than 8", "'b' (7)", "'c' (3)", "line/inbox/b/"]),
        ({"a": (20, 5, 5), "b": (3, 2, 3)}, ["'b' (3 training, 2 validation, 3 test)"]),
        ({"a": (20, 5, 5), "b": (8, 0, 3)}, ["'b' (8 training, 0 validation, 3 test)"]),
        ({"a": (20, 5, 5), "b": (20, 5, 5), "c": (0, 0, 9)}, ["never had", "'c' (9 test images)"]),
    ],
)
def test_freeze_when_a_class_falls_short_names_it(line, classes, words):
    for label, counts in classes.items():
        add_class(label, *counts)
    with pytest.raises(NotEnoughImages) as error:
        freeze("line")
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_freeze_when_there_are_200_classes_takes_them(line):
    for number in range(200):
        add_class(f"species {number:03}", 6, 1, 1)
    frozen = freeze("line")
    assert frozen.counts["training"] == 1200
    assert any("200 classes" in note for note in frozen.notes)
    assert all(len(note) < 400 for note in frozen.notes)


def test_freeze_when_samples_were_labelled_for_another_task_leaves_them_out_and_says_so(line):
    add_class("amanita", 20, 4, 6)
    add_class("boletus", 20, 4, 6)
    add_class("good", 3, 1, 1)
    add_class("anomaly", 1, 1, 1)
    frozen = freeze("line")
    assert sum(frozen.counts.values()) == 60
    assert any(note.startswith("8 samples are left out") for note in frozen.notes)


def test_freeze_when_only_the_newest_are_wanted_balances_classes_and_keeps_the_test_set(line):
    add_class("amanita", 60, 20, 10)
    add_class("boletus", 30, 10, 10)
    add_class("russula", 9, 3, 4)
    everything = freeze("line")
    line.write("line", task="classification", dataset={"newest": 60})
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with transaction() as connection:
        for number in range(156):
            connection.execute(
                samples.update()
                .where(samples.c.sha256 == sha(number))
                # Every other one has no time of acquisition: that of its ingest counts.
                .values(
                    acquired_at=start + timedelta(hours=number) if number % 2 else None,
                    ingested_at=start + timedelta(hours=number),
                )
            )
    frozen = freeze("line")
    frame = read_manifest(frozen.manifest_uri)
    trained = frame[frame["subset"] != "test"]
    assert Counter(trained["label"]) == {"amanita": 24, "boletus": 24, "russula": 12}
    assert frozen.counts["test"] == everything.counts["test"] == 24
    sides = Counter(zip(trained["label"], trained["subset"], strict=True))
    assert sides["amanita", "validation"] == 6
    taken = set(frame["sha256"])
    # The 18 newest of its 60 training images, which have the numbers 0 to 59.
    assert [number for number in range(60) if sha(number) in taken] == list(range(42, 60))
    assert any("72 are left out" in note for note in frozen.notes)


def test_freeze_when_there_are_fewer_than_the_newest_wanted_takes_all(line):
    add_class("amanita", 20, 4, 6)
    add_class("boletus", 20, 4, 6)
    frozen = freeze("line")
    line.write("line", task="classification", dataset={"newest": 1000})
    assert freeze("line") == frozen


def test_decide_when_the_project_has_classes_takes_one_of_them(line, capsys):
    add_class("amanita muscaria", 9, 0, 0)
    add(100, 1, "training", "amanita muscaria", "boletus")
    assert main(["decide", sha(100), "boletus", "--project", "line"]) == 0
    assert "is boletus by decision" in capsys.readouterr().out
    with pytest.raises(NoSuchSample, match="its classes are amanita muscaria, boletus"):
        decide("line", sha(100), "good")
    with pytest.raises(NoSuchSample, match="write 'amanita muscaria'"):
        decide("line", sha(100), "Amanita_muscaria")
