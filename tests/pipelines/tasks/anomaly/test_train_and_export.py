"""Train and export as Airflow runs them: processes of their own, on real S3 and MLflow, killed and retried."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config.model_settings import AnomalySettings
from pipelines.config.settings import REPOSITORY
from pipelines.errors import BadPackage, ExportMismatch, TrainingFailed
from pipelines.steps import Champion, DatasetVersion, Run, RunSettings, TrainedModel, TrainingParameters
from pipelines.storage.files import file_digest
from pipelines.storage.s3 import Storage, split_uri
from pipelines.tasks import subprocesses
from pipelines.tasks.anomaly.fitting.state import ENOUGH_STEPS, SURFACES_TAKE
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.predict import predict
from pipelines.tasks.anomaly.train import fit_settings
from pipelines.training.checkpoints import Checkpoint
from pipelines.training.step_process import StepCrashed
from tests.pipelines.tasks.anomaly.pictures_of_parts import good_parts


def losses(run: Run) -> list[int]:
    from mlflow import MlflowClient

    return [metric.step for metric in MlflowClient().get_metric_history(run.mlflow_run_id, "training/loss")]


def asked(run: Run, **changes: Any) -> Run:
    """Return the run with other parameters."""
    return replace(run, parameters=replace(run.parameters, **changes))


def trained_model(weights_uri: str) -> TrainedModel:
    """Return a trained model whose weights are at this address."""
    return TrainedModel(weights_uri, 1, 1, 1.0, 1.0, "steps", "float32")


def step_of(checkpoint: Checkpoint) -> int:
    saved = checkpoint.load()
    return saved[0].step if saved else 0


def test_train_then_export_gives_a_graph_that_scores_as_the_network(run, pack, bucket, tmp_path: Path):
    from mlflow import MlflowClient

    run = asked(run, epochs=8)
    lines: list[str] = []
    trained = subprocesses.train(run, pack, lines.append)

    assert "18 training and 8 validation images, 32 pixels a side" in lines
    assert all(any(line.startswith(f"epoch {number} of 8 · loss") for line in lines) for number in range(1, 9))
    assert (trained.epochs, trained.stopped) == (8, "epochs")
    assert trained.weights_uri == f"s3://{bucket}/{run.project}/v1/model/t1/model.keras"
    assert step_of(Checkpoint.of(bucket, run)) == 160

    logged = MlflowClient().get_run(run.mlflow_run_id).data
    assert losses(run) == list(range(1, 9))
    assert logged.params["training.images"] == "18"
    assert {"training/validation_loss", "training/learning_rate", "training/images_per_second"} <= set(logged.metrics)
    pictures = MlflowClient().list_artifacts(run.mlflow_run_id, "training")
    assert [item.path for item in pictures] == ["training/reconstructions.png"]

    exported = subprocesses.export(run, pack, trained, lines.append)

    assert exported.package_uri == f"s3://{bucket}/{run.project}/v1/model/t1"
    assert 0 <= exported.max_difference <= exported.tolerance
    assert (exported.arithmetic, exported.notes) == ("float32", [])
    kept = {item.key.rpartition("/")[2] for item in Storage(bucket).list(f"{run.project}/v1/model/t1/")}
    assert kept == {"model.onnx", "model.keras"}
    assert Checkpoint.of(bucket, run).load() is None
    path = Storage(bucket).download(split_uri(exported.package_uri + "/model.onnx")[1], tmp_path / "model.onnx")
    images = good_parts(5, seed=9)
    graph = ScoringGraph(path, 32, "fit", threads=1)
    together = predict(graph, images, batch_size=4)
    assert [prediction.score for prediction in together] == pytest.approx(
        [predict(graph, [image])[0].score for image in images]
    )
    assert {prediction.error_map.shape for prediction in together} == {(16, 16)}

    # Fine-tuning starts with the champion's weights, at a far lower loss than training from scratch.
    follower = asked(
        replace(run, training_id="t2", mlflow_run_id=None, champion=Champion("1", package_uri=exported.package_uri)),
        epochs=1,
        start_from="champion",
    )
    tuned: list[str] = []
    subprocesses.train(follower, pack, tuned.append)
    assert any("starting from the champion's weights" in line for line in tuned)
    assert first_loss(tuned) < 0.7 * first_loss(lines)


def first_loss(lines: list[str]) -> float:
    return float(next(line for line in lines if line.startswith("epoch 1 of")).split("loss ")[1].split()[0])


def test_fit_settings_without_epochs_take_enough_steps_and_fine_tuning_a_third_of_them():
    model = AnomalySettings(time_budget_minutes=10, gradient_accumulation_steps=4)
    parameters = TrainingParameters(None, None, "scratch", promote=True)
    dataset = DatasetVersion("line", "v1", "", "")
    run = Run("line", "retrain", "t1", dataset, parameters, settings=RunSettings(model=model))
    settings = {start: fit_settings(asked(run, start_from=start)) for start in ("scratch", "champion")}
    for surface in (False, True):
        steps = {start: chosen.most_steps(50, surface) for start, chosen in settings.items()}
        enough = ENOUGH_STEPS["small"] * (SURFACES_TAKE if surface else 1)
        assert steps == {"scratch": enough, "champion": 0.3 * enough}
    assert (settings["scratch"].seconds, settings["champion"].seconds) == (600, 180)
    assert [chosen.accumulation for chosen in settings.values()] == [4, 4]
    seven_epochs = fit_settings(asked(run, start_from="champion", epochs=7))
    assert seven_epochs.most_steps(50, surface=False) == 350


def test_train_when_killed_and_tried_again_goes_on_from_the_checkpoint(run, pack, bucket, monkeypatch):
    monkeypatch.setenv("INSPECTLINE_CHECKPOINT_SECONDS", "0.5")
    run = asked(run, epochs=12)
    checkpoint = Checkpoint.of(bucket, run)
    pids: list[int] = []

    def kill_at_checkpoint() -> None:
        while step_of(checkpoint) <= 25:
            time.sleep(0.1)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for pid in map(int, children):
            if b"pipelines.tasks\0train" in Path(f"/proc/{pid}/cmdline").read_bytes():
                pids.append(pid)
                os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_at_checkpoint)
    killer.start()
    with pytest.raises(StepCrashed, match="was ended by SIGKILL"):
        subprocesses.train(run, pack, lambda line: None)
    killer.join(timeout=60)
    assert len(pids) == 1
    state, _ = checkpoint.load()
    assert 25 < state.step < 240

    lines: list[str] = []
    trained = subprocesses.train(run, pack, lines.append)
    (resumed,) = [line for line in lines if line.startswith("going on from the checkpoint at step")]
    assert int(resumed.split("step ")[1].split(",")[0]) == state.step
    assert (trained.steps, trained.epochs) == (240, 12)
    assert trained.seconds > state.elapsed
    assert losses(run) == list(range(1, 13))


def test_train_when_its_parent_is_killed_dies_too(run, pack):
    payload = [asked(run, epochs=10_000).to_json(), pack.to_json()]
    code = (
        "import json, sys; from pipelines.steps import PackRef, Run; from pipelines.tasks import subprocesses\n"
        "run, pack = json.loads(sys.argv[1])\n"
        "subprocesses.train(Run.from_json(run), PackRef.from_json(pack), lambda line: print(line, flush=True))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(payload)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert parent.stdout is not None
    assert any("training and" in line for line in parent.stdout)
    (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 5
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < end, "training outlived its task"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("start_from", "pattern"),
    [
        ("champion", "has no champion whose weights are in S3; train from scratch"),
        ("scratch", "dataset version v1 has no good training images"),
    ],
)
def test_train_when_it_cannot_begin_says_why_and_is_not_tried_again(run, pack, bucket, start_from, pattern):
    if start_from == "scratch":  # a dataset version without good training images
        import pandas as pd

        from pipelines.datasets.pack import open_pack

        opened = open_pack(pack)
        folder = Path(os.environ["INSPECTLINE_CACHE"]) / "packs" / pack.digest
        pd.DataFrame(opened.index.assign(subset="test")).to_parquet(folder / "index.parquet", index=False)
    from pipelines.tasks.anomaly.train import train

    with pytest.raises(TrainingFailed, match=pattern) as caught:
        train(asked(replace(run, mlflow_run_id=None), start_from=start_from), pack)
    assert not caught.value.passing


def test_export_when_int8_is_asked_for_says_whether_it_was_taken(run, pack, bucket, tmp_path: Path):
    import onnx

    from pipelines.tasks.anomaly.export import export
    from pipelines.tasks.anomaly.restoration.network import build_network

    build_network("small", 32).save(tmp_path / "model.keras")
    uri = Storage(bucket).upload(tmp_path / "model.keras", f"{run.project}/v1/model/t1/model.keras")
    model = AnomalySettings(input_size=32, batch_size=8, export="int8")
    exported = export(replace(run, settings=RunSettings(model=model)), pack, trained_model(uri))
    path = Storage(bucket).download(split_uri(exported.package_uri + "/model.onnx")[1], tmp_path / "model.onnx")
    quantised = "DequantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}
    # Which graph is used depends on the machine; the graph and the records about it must agree.
    (note,) = exported.notes
    assert note.startswith("int8 is taken" if quantised else "float32 is kept: ")
    assert exported.arithmetic == ("int8" if quantised else "float32")
    assert exported.onnx_sha256 == file_digest(path)
    assert exported.max_difference <= exported.tolerance


@pytest.mark.parametrize("surface", [False, True])
def test_write_graph_of_a_network_that_knows_the_usual_gives_its_scores_in_int8_too(tmp_path: Path, surface):
    from pipelines.tasks.anomaly.export import compare, write_graph
    from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
    from pipelines.tasks.anomaly.predict import predict
    from pipelines.tasks.anomaly.quantise import quantise
    from pipelines.tasks.anomaly.restoration.inference_model import inspection_model
    from pipelines.tasks.anomaly.restoration.network import build_network
    from pipelines.tasks.anomaly.restoration.normality import Usual, usual_pattern

    generator = np.random.default_rng(0)
    images = good_parts(8)
    images[4:] = images[4:].swapaxes(1, 2)
    patterns = np.stack([usual_pattern(images[:4]), usual_pattern(images[4:])])
    maps = generator.uniform(0.5, 2, (2, 2, 16, 16)).astype(np.float32)
    pieces = 9 if surface else 7
    knots, levels = np.array([-1.0, 0.0, 0.5]), np.array([[-1.0] * pieces, [-0.2] * pieces, [0.0] * pieces])
    rough, locations, scales = np.array([-3.0, -2.0]), [0.1] * pieces, [2.0] * pieces
    usual = Usual(patterns, maps[0], maps[1], rough, knots, levels, locations, scales, surface)
    model = inspection_model(build_network("small", 32, usual=usual))
    path = write_graph(model, tmp_path / "model.onnx")
    difference, tolerance = compare(model, path, images)
    assert difference <= tolerance
    graphs = (
        ScoringGraph(model_path, 32, "fit", threads=1)
        for model_path in (path, quantise(path, images, tmp_path / "int8.onnx"))
    )
    full, int8 = ([model_path.score for model_path in predict(graph, images)] for graph in graphs)
    np.testing.assert_allclose(int8, full, atol=0.1)


def test_write_graph_of_images_on_a_flat_ground_gives_the_networks_scores(tmp_path: Path):
    """Uniform images have a roughness of rounding errors, in which Keras and ONNX Runtime differ."""
    import keras

    from pipelines.tasks.anomaly.export import compare, write_graph
    from pipelines.tasks.anomaly.fitting.state import FitSettings
    from pipelines.tasks.anomaly.fitting.trainer import completed
    from pipelines.tasks.anomaly.restoration.inference_model import inspection_model
    from pipelines.tasks.anomaly.restoration.network import build_network

    generator = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    images = np.empty((48, 64, 64, 3), np.uint8)
    images[:] = np.array([60, 90, 200]) + generator.integers(-9, 10, (48, 1, 1, 1))
    for image in images:
        down, right = generator.integers(17, 24, 2)
        part = generator.normal(90, generator.uniform(5, 30), (26, 26, 1))
        image[down : down + 26, right : right + 26] = np.clip(part, 0, 255)
    model = inspection_model(completed(build_network("small", 64), FitSettings(input_size=64), images))
    difference, tolerance = compare(model, write_graph(model, tmp_path / "model.onnx"), images)
    assert difference <= tolerance


def test_compare_when_the_graph_is_of_another_network_refuses(tmp_path: Path):
    import keras

    from pipelines.tasks.anomaly.export import compare, write_graph
    from pipelines.tasks.anomaly.restoration.inference_model import inspection_model
    from pipelines.tasks.anomaly.restoration.network import build_network

    keras.utils.set_random_seed(0)
    network = build_network("small", 32)
    model = inspection_model(network)
    path = write_graph(model, tmp_path / "model.onnx")
    difference, tolerance = compare(model, path, good_parts(12))
    assert difference <= tolerance
    layer = network.get_layer("draw")
    layer.set_weights([weight + 0.01 for weight in layer.get_weights()])
    with pytest.raises(ExportMismatch, match="gives other scores than the network"):
        compare(model, path, good_parts(12))


def test_export_when_the_weights_are_no_network_refuses(run, pack, bucket):
    uri = Storage(bucket).put(f"{run.project}/v1/model/t1/model.keras", b"not a network")
    from pipelines.tasks.anomaly.export import export

    with pytest.raises(BadPackage, match=r"model\.keras: not a network that keras can load"):
        export(run, pack, trained_model(uri))


def test_checkpoint_comes_back_as_it_was_and_a_damaged_one_counts_as_none(bucket):
    from pipelines.training.state import TrainingState

    checkpoint = Checkpoint(Storage(bucket), "p/v/checkpoint/t/state.npz")
    assert checkpoint.load() is None
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7), np.zeros((0,), np.int64)]
    state = TrainingState(12, 3.5, "mixed_bfloat16", 0.25, 2, arrays)
    checkpoint.save(state, {11: {"loss": 0.5}, 12: {"loss": 0.25}})
    loaded, waiting = checkpoint.load()
    assert waiting == {11: {"loss": 0.5}, 12: {"loss": 0.25}}
    assert (loaded.step, loaded.elapsed, loaded.precision, loaded.loss_sum, loaded.loss_count) == (
        12,
        3.5,
        "mixed_bfloat16",
        0.25,
        2,
    )
    for restored, saved in zip(loaded.arrays, arrays, strict=True):
        assert restored.dtype == saved.dtype
        np.testing.assert_array_equal(restored, saved)
    Storage(bucket).put(checkpoint.key, b"PK damaged")
    assert checkpoint.load() is None
