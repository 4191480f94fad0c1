"""Training of a run: what it leaves in S3, how it goes on after a kill, and what it starts from."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from pipelines.catalogue import transaction
from pipelines.catalogue.schema import annotations, samples
from pipelines.config.project import load_project
from pipelines.config.settings import REPOSITORY
from pipelines.datasets.versions import freeze
from pipelines.errors import TrainingFailed
from pipelines.registry.package_store import fetched_package
from pipelines.steps import Champion, PackRef, Run, RunSettings, TrainingParameters
from pipelines.tasks.classification.run_data import PROPOSED_WEIGHT, labelled_images
from pipelines.tasks.classification.task import ClassificationTask
from pipelines.tasks.classification.training_record import read_record
from pipelines.training import runs
from pipelines.training.checkpoints import Checkpoint
from tests.pipelines.line import Line, pack_of
from tests.pipelines.tasks.classification.conftest import CLASSES

TASK = ClassificationTask()


def with_model(run: Run, **changes) -> Run:
    return replace(run, settings=replace(run.settings, model=run.settings.model.model_copy(update=changes)))


@pytest.mark.slow
def test_train_when_done_then_leaves_what_the_next_steps_need(run: Run, pack: PackRef):
    trained = TASK.train(run, pack)
    assert (trained.epochs, trained.steps, trained.stopped) == (2, 6, "epochs")
    record, out_of_fold = read_record(trained.weights_uri.rpartition("/")[0])
    assert record.classes == CLASSES
    assert (record.backbone, len(record.backbone_sha256)) == ("efficientnet_lite0", 64)
    assert (out_of_fold is None) == record.fine_tuned
    package = TASK.calibrate(run, pack, TASK.export(run, pack, trained))
    report = TASK.evaluate(run, pack, package)
    assert report.counts == {"images": 16, "classes": 2}
    assert report.metrics["accuracy"].value > 0.8
    assert sum(report.confusion.values()) == 16
    with fetched_package(package.package_uri, TASK.open_package) as opened:
        assert opened.card.classes == CLASSES
        assert opened.card.validation_images == 12
        assert len(opened.examples) == 4

    champion = Champion("1", package_uri=package.package_uri)
    parameters = TrainingParameters(epochs=1, time_budget_minutes=None, start_from="champion", promote=True)
    again = replace(run, training_id="t2", champion=champion, parameters=parameters)
    tuned = TASK.train(again, pack)
    assert read_record(tuned.weights_uri.rpartition("/")[0])[0].backbone_sha256 == record.backbone_sha256
    with pytest.raises(TrainingFailed, match="64 pixels"):
        TASK.train(with_model(again, input_size=96), pack)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [2, 3])
def test_train_when_the_head_has_several_layers_then_it_learns_too(run: Run, pack: PackRef, layers: int):
    run = with_model(run, layers=layers, open_layers=0)
    trained = TASK.train(run, pack)
    assert trained.epochs == 0
    report = TASK.evaluate(run, pack, TASK.calibrate(run, pack, TASK.export(run, pack, trained)))
    assert report.metrics["accuracy"].value > 0.8


@pytest.mark.slow
def test_train_when_killed_then_another_process_goes_on_from_the_checkpoint(run: Run, pack: PackRef, tmp_path):
    run = replace(run, parameters=replace(run.parameters, epochs=40), mlflow_run_id=None)
    for name, record in (("run", run), ("pack", pack)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record.to_json()))
    command = [sys.executable, "-m", "pipelines.tasks", "train"]
    command += [str(tmp_path / f"{name}.json") for name in ("run", "pack", "result")]
    environment = {**os.environ, "INSPECTLINE_CHECKPOINT_SECONDS": "0.5"}
    checkpoint = Checkpoint.of(load_project(run.project).bucket, run)
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (checkpoint.load() or process.poll() is not None):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.kill()
    process.communicate()
    kept = checkpoint.load()
    assert kept is not None
    assert 0 < kept[0].step < 120
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert f"going on from the checkpoint at step {kept[0].step}" in done.stdout
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 120


def test_settings_when_written_to_json_then_are_those_of_the_task(run: Run):
    assert RunSettings.from_json(run.settings.to_json()) == run.settings


def test_images_when_their_class_was_only_proposed_then_count_less(shapes: Line):
    with transaction() as connection:
        of_training = select(samples.c.sha256).where(samples.c.source_key.like("%/disc/%"))
        hashes = list(connection.execute(of_training.order_by(samples.c.id).limit(3)).scalars())
        proposed = update(annotations).where(annotations.c.sha256.in_(hashes)).values(origin="proposed")
        connection.execute(proposed)
    begun = runs.begin(freeze(shapes.project), {"epochs": 1}, force=False, dag_run_id="manual__1")
    assert isinstance(begun, Run)
    training = labelled_images(pack_of(begun), "training", CLASSES)
    assert len(training) == 24
    assert sorted(training.weights)[:4] == [pytest.approx(PROPOSED_WEIGHT)] * 3 + [1]
