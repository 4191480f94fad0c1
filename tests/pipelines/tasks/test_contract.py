"""The contract of every task: a run of its steps on real storage and a real MLflow server.

A task takes part by a line in `SUBJECTS` that says how to fill a project for it.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.config.settings import REPOSITORY
from pipelines.datasets.original_images import original_images
from pipelines.datasets.versions import freeze, read_manifest
from pipelines.errors import NotEnoughImages, SettingsError
from pipelines.registry.package import Package
from pipelines.registry.package_store import fetched_package
from pipelines.steps import EvaluationReport, ModelPackage, PackRef, Run, TrainedModel
from pipelines.storage.files import file_digest
from pipelines.storage.s3 import Storage, split_uri
from pipelines.tasks import find_task, task_names
from pipelines.tasks.interface import Comparison, Contender, Task
from pipelines.training import runs
from tests.pipelines.line import Line, pack_of


def fill_with_parts(line: Line) -> None:
    """Ingest enough good images and dents for every step."""
    for side, count in (("training", 18), ("validation", 10), ("test", 8)):
        line.add(side, "good", count)
    line.add("test", "anomaly", 4, kind="dent", masks=True)


def fill_with_shapes(line: Line) -> None:
    """Ingest enough discs and bars for every step."""
    for side, count in (("training", 14), ("validation", 8), ("test", 6)):
        line.add(side, "disc", count, draw=lambda rng: drawn_shape("disc", rng))
        line.add(side, "bar", count, draw=lambda rng: drawn_shape("bar", rng))


def drawn_shape(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a disc or a bar somewhere on noise, uint8 [64, 80, 3]."""
    pixels = rng.integers(90, 130, (64, 80, 3), dtype=np.uint8)
    down, across = np.mgrid[:64, :80]
    y, x = rng.integers(24, 40), rng.integers(30, 50)
    disc = (down - y) ** 2 + (across - x) ** 2 < 14**2
    bar = (abs(down - y) < 5) & (abs(across - x) < 26)
    pixels[disc if kind == "disc" else bar] = rng.integers(180, 250, 3)
    return pixels


@dataclass(frozen=True)
class Subject:
    """How a task is tried.

    Attributes:
        fill: puts enough samples into a project.
        model: section `model` of its project file.
    """

    fill: Callable[[Line], None]
    model: dict[str, Any]


SUBJECTS = {
    "anomaly": Subject(fill_with_parts, {"input_size": 64}),
    "classification": Subject(fill_with_shapes, {"input_size": 64, "batch_size": 8, "open_layers": 2}),
}


@dataclass(frozen=True)
class Trained:
    """A task after `train` and `export`."""

    task: Task
    run: Run
    pack: PackRef
    model: TrainedModel
    exported: ModelPackage


@pytest.fixture(params=sorted(SUBJECTS))
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of a task."""
    return str(request.param)


@pytest.fixture
def line_of_task(name: str, line: Line, projects) -> Line:
    """Declare an empty project of the task."""
    promotion = {"bootstrap_samples": 400, "minimum_accuracy": 0.5}
    projects.write(line.project, task=name, model=SUBJECTS[name].model, promotion=promotion)
    return line


@pytest.fixture
def trained(name: str, line_of_task: Line) -> Trained:
    """Train and export a model of the task, briefly."""
    line = line_of_task
    SUBJECTS[name].fill(line)
    begun = runs.begin(freeze(line.project), {"epochs": 1}, force=False, dag_run_id="manual__1")
    assert isinstance(begun, Run)
    assert begun.task == name
    task, pack = find_task(begun.task), pack_of(begun)
    model = task.train(begun, pack)
    return Trained(task, begun, pack, model, task.export(begun, pack, model))


def rows_of(run: Run, *subsets: str) -> pd.DataFrame:
    manifest = read_manifest(run.dataset.manifest_uri)
    return manifest[manifest["subset"].isin(subsets)].sort_values("sha256")


def assert_calibration_never_sees_test_samples(trained: Trained, package: ModelPackage) -> None:
    """Calibrate on the same dataset version without its test samples, and compare what came of it."""
    digests = []

    def open_and_digest(folder: Path) -> Package:
        digests.append(file_digest(folder / "reference.npz"))
        return trained.task.open_package(folder)

    with fetched_package(package.package_uri, open_and_digest):
        pass
    manifest_uri = trained.run.dataset.manifest_uri
    manifest = read_manifest(manifest_uri)
    bucket, key = split_uri(manifest_uri)
    stored = io.BytesIO()
    manifest[~manifest["subset"].isin(["test", "anomaly/test"])].to_parquet(stored, index=False)
    uri = Storage(bucket).put(f"{key}.without_tests.parquet", stored.getvalue())
    run = replace(trained.run, dataset=replace(trained.run.dataset, manifest_uri=uri))
    without = trained.task.calibrate(run, trained.pack, trained.exported)
    assert without == package
    with fetched_package(without.package_uri, open_and_digest):
        pass
    assert digests[0] == digests[1]


def test_every_task_of_the_table_is_tried_here() -> None:
    assert set(SUBJECTS) == set(task_names())


@pytest.mark.slow
def test_steps_of_a_task_from_training_to_prediction(trained: Trained) -> None:
    task, run, pack = trained.task, trained.run, trained.pack
    assert trained.model.weights_uri.startswith("s3://")
    # The exported graph computes what the network computes.
    assert 0 <= trained.exported.max_difference <= trained.exported.tolerance

    package = task.calibrate(run, pack, trained.exported)
    assert task.calibrate(run, pack, trained.exported) == package, "a retry gives the same result"
    report = task.evaluate(run, pack, package)
    assert isinstance(report, EvaluationReport)
    assert report.metrics
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in report.metrics.values())
    assert replace(task.evaluate(run, pack, package), notes=report.notes) == report

    with fetched_package(package.package_uri, task.open_package) as opened:
        assert isinstance(opened, Package)
        assert opened.card.task == task.name
        assert (opened.card.training_id, opened.card.version_id) == (run.training_id, run.version_id)
        images = list(original_images(run.project, rows_of(run, "test", "anomaly/test")))
        together = task.predict(opened, images)
        assert [type(answer) for answer in together] == [task.prediction] * len(images)
        assert is_dataclass(task.prediction)
        alone = [task.predict(opened, [image])[0] for image in images]
        for first, second in zip(together, alone, strict=True):
            same_answer(first, second)

        contender = Contender("1", opened)
        comparison = task.compare(run, contender, None, rows_of(run, "test", "anomaly/test"))
        assert isinstance(comparison, Comparison)
        assert comparison.champion is None
        against_itself = task.compare(run, contender, Contender("0", opened), rows_of(run, "test", "anomaly/test"))
        assert against_itself.difference is not None
        assert against_itself.difference.value == 0

    assert_calibration_never_sees_test_samples(trained, package)


def test_too_little_data_is_refused_in_one_sentence(line_of_task: Line) -> None:
    line = line_of_task
    line.add("training", "good", 3)
    with pytest.raises(NotEnoughImages) as caught:
        freeze(line.project)
    assert "\n" not in str(caught.value)
    assert line.project in str(caught.value)


def test_predicting_stays_thin(name: str) -> None:
    code = (
        f"import sys; from pipelines.tasks import find_task; task = find_task({name!r})\n"
        "heavy = {'keras', 'tensorflow', 'mlflow', 'onnx', 'pandas', 'scipy', 'matplotlib', 'airflow'}\n"
        "print(heavy & set(sys.modules)); sys.exit(bool(heavy & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_an_unknown_task_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="there is no task 'weather'; tasks are anomaly, classification"):
        find_task("weather")


def same_answer(first: object, second: object) -> None:
    """Compare two predictions field by field."""
    for name in type(first).__dataclass_fields__:  # type: ignore[attr-defined]
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-4, atol=1e-5)
