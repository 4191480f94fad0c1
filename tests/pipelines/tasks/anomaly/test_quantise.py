"""The int8 graph is used if it is as good and faster, tested on a trained network."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pipelines.tasks.anomaly.export import write_graph
from pipelines.tasks.anomaly.fitting.state import FitSettings
from pipelines.tasks.anomaly.fitting.trainer import fit
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.predict import predict
from pipelines.tasks.anomaly.quantise import Trial, attempt, quantise
from pipelines.tasks.anomaly.restoration.inference_model import inspection_model
from tests.pipelines.tasks.anomaly.pictures_of_parts import defective_parts, good_parts

SIZE = 32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for forty steps and export."""
    images = good_parts(24, SIZE)
    fitted = fit(images, FitSettings(input_size=SIZE, batch_size=8, steps=40, seconds=300, precision="float32"))
    return write_graph(inspection_model(fitted.network), tmp_path_factory.mktemp("graph") / "model.onnx")


@pytest.fixture(scope="module")
def int8(exported: Path) -> Path:
    return quantise(exported, good_parts(24, SIZE), exported.with_name("int8.onnx"))


def operations(path: Path) -> list[Any]:
    return list(onnx.load(path).graph.node)


def scores(path: Path, images: np.ndarray) -> np.ndarray:
    return np.array([prediction.score for prediction in predict(ScoringGraph(path, SIZE, "fit", threads=1), images)])


def test_quantise_puts_the_networks_into_int8_and_leaves_the_comparison_in_float32(exported, int8):
    producers = {output: node for node in operations(int8) for output in node.output}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(int8).graph.initializer}
    convolutions = [node for node in operations(int8) if node.op_type == "Conv"]
    whole = [node for node in convolutions if node.input[1] in shapes]
    eighths = [node for node in convolutions if node.input[1] in producers]
    assert len(whole) + len(eighths) == len([node for node in operations(exported) if node.op_type == "Conv"])
    assert len(eighths) == 18
    assert {shapes[node.input[1]][1] for node in whole} == {1}
    for node in eighths:
        weights = producers[node.input[1]]
        assert weights.op_type == "DequantizeLinear"
        assert shapes[weights.input[1]] == (shapes[weights.input[0]][0],)  # one scale a channel
    assert int8.stat().st_size < 0.5 * exported.stat().st_size


def test_quantise_keeps_what_the_rest_relies_on(exported, int8):
    images = np.concatenate([good_parts(16, SIZE, seed=5), defective_parts(16, SIZE)])
    before, after = scores(exported, images), scores(int8, images)
    assert np.corrcoef(before, after)[0, 1] > 0.99
    assert scores(int8, images[3:4]) == pytest.approx(after[3:4], abs=1e-6)  # whatever is beside it
    full, quantised = (predict(ScoringGraph(path, SIZE, "fit"), images[:1])[0] for path in (exported, int8))
    assert full.error_map.shape == quantised.error_map.shape
    assert full.embedding.shape == quantised.embedding.shape


def test_quantise_twice_gives_the_same_scores(exported, int8, tmp_path: Path):
    again = quantise(exported, good_parts(24, SIZE), tmp_path / "again.onnx")
    images = good_parts(4, SIZE, seed=5)
    assert (scores(again, images) == scores(int8, images)).all()


def test_attempt_on_a_trained_network_measures_both(exported, int8):
    good = good_parts(16, SIZE, seed=7)
    trial = attempt(exported, int8, good)
    assert trial.images == 16
    assert abs(trial.auroc - trial.auroc_before) < 0.1
    assert trial.agreement > 0.98
    # Of the good ones: serving checks those, and what int8 changes of a defect is not to widen that.
    assert trial.difference == pytest.approx(np.abs(scores(exported, good) - scores(int8, good)).max(), rel=1e-3)
    assert 0 < trial.difference < 0.2
    assert min(trial.milliseconds, trial.milliseconds_before) > 0


def test_attempt_when_the_int8_graph_was_calibrated_on_nothing_like_it_sees_the_loss(exported, tmp_path: Path):
    # Ranges calibrated on black images clip those of real ones.
    broken = quantise(exported, np.zeros((8, SIZE, SIZE, 3), np.uint8), tmp_path / "broken.onnx")
    trial = attempt(exported, broken, good_parts(16, SIZE, seed=7))
    assert trial.agreement < 0.98
    assert not trial.passed
    assert str(trial).startswith("float32 is kept: ")


@pytest.mark.parametrize(
    ("auroc", "agreement", "milliseconds", "message"),
    [
        (0.95, 0.999, 5.0, "int8 is taken"),
        (0.9485, 0.999, 5.0, "int8 is taken"),
        (0.947, 0.999, 5.0, "float32 is kept: int8 loses 0.0030 of AUROC, 0.002 or more"),
        (0.99, 0.5, 5.0, "float32 is kept: the scores of int8 follow the others too loosely"),
        (0.95, float("nan"), 5.0, "float32 is kept: the scores of int8 follow the others too loosely"),
        (0.99, 0.999, 9.9, "float32 is kept: int8 is not faster on this machine"),
    ],
)
def test_trial_passes_only_if_nothing_is_lost_and_time_is_saved(auroc, agreement, milliseconds, message):
    trial = Trial(50, auroc, 0.95, agreement, 0.01, milliseconds, 10.0)
    assert trial.passed is (message == "int8 is taken")
    assert str(trial).startswith(message)
