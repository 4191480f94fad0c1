"""Champion and challenger on the same test images: the rules of promotion."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pipelines.datasets.versions import freeze, read_manifest
from pipelines.steps import Run
from pipelines.tasks.classification.compare import compare
from pipelines.tasks.classification.package import ClassificationPackage
from pipelines.tasks.interface import Contender
from pipelines.training import runs
from tests.pipelines.line import Line
from tests.pipelines.packages import COLOURS, coloured_image, make_classifier


@pytest.fixture
def coloured(line: Line, projects) -> tuple[Run, pd.DataFrame]:
    """Return a run of a project of colours, and its test samples."""
    promotion = {"bootstrap_samples": 400, "minimum_accuracy": 0.7}
    projects.write(line.project, task="classification", model={"input_size": 64}, promotion=promotion)
    for side, count in (("training", 6), ("validation", 2), ("test", 8)):
        for colour in COLOURS:
            line.add(side, colour, count, draw=lambda rng, colour=colour: coloured_image(colour, rng))
    run = runs.begin(freeze(line.project), {}, force=False, dag_run_id="manual__1")
    assert isinstance(run, Run)
    manifest = read_manifest(run.dataset.manifest_uri)
    return run, manifest[manifest["subset"] == "test"].sort_values("sha256")


def contender(version: str, folder: Path, classes: tuple[str, ...] = COLOURS) -> Contender:
    return Contender(version, ClassificationPackage.open(make_classifier(folder, classes=classes)))


def test_compare_when_right_and_alone_then_the_minimum_decides(coloured, tmp_path: Path):
    run, samples = coloured
    comparison = compare(run, contender("1", tmp_path / "1"), None, samples)
    assert comparison.fit
    assert comparison.challenger.accuracy.value == 1
    wrong = compare(run, contender("2", tmp_path / "2", COLOURS[::-1]), None, samples)
    assert not wrong.fit
    assert wrong.challenger.accuracy.value < 0.5
    assert "0.7" in wrong.reasons[0]


def test_compare_when_the_challenger_is_worse_than_the_champion_then_it_is_not_fit(coloured, tmp_path: Path):
    run, samples = coloured
    lenient = replace(
        run, settings=replace(run.settings, promotion=run.settings.promotion.model_copy(update={"minimum_accuracy": 0}))
    )
    good, bad = contender("1", tmp_path / "1"), contender("2", tmp_path / "2", COLOURS[::-1])
    worse, better = compare(lenient, bad, good, samples), compare(lenient, good, bad, samples)
    assert not worse.fit
    assert worse.difference.value < 0
    assert better.fit
    assert better.difference.value == -worse.difference.value
    assert worse.champion.accuracy == better.challenger.accuracy


def test_compare_when_a_class_is_new_then_the_champion_is_wrong_about_it_and_a_note_says_so(coloured, tmp_path: Path):
    run, samples = coloured
    champion = contender("1", tmp_path / "1", (*COLOURS[:2], "violet"))
    comparison = compare(run, contender("2", tmp_path / "2"), champion, samples)
    assert comparison.fit
    assert comparison.champion.accuracy.value == pytest.approx(2 / 3)
    assert any(COLOURS[2] in note for note in comparison.notes)
    assert any("violet" in note for note in comparison.notes)


def test_compare_when_the_champion_cannot_be_loaded_then_the_challenger_is_judged_alone(coloured, tmp_path: Path):
    run, samples = coloured
    champion = contender("1", tmp_path / "1")
    (tmp_path / "1" / "model.onnx").write_bytes(b"no graph")
    comparison = compare(run, contender("2", tmp_path / "2"), champion, samples)
    assert comparison.fit
    assert comparison.champion is None
    assert "model.onnx" in comparison.failure
