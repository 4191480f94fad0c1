"""The network: shapes of every preset, folding, and that a saved one loads in safe mode as it was."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from pipelines.errors import BadPackage
from pipelines.models.inspection import inspection_model, load_network
from pipelines.models.network import CHANNELS, build_network
from pipelines.models.scoring import EVIDENCE
from pipelines.settings import REPOSITORY


@pytest.mark.parametrize("preset", sorted(CHANNELS))
def test_build_network_of_each_preset_restores_at_full_size_in_range(preset):
    network = build_network(preset, 64)
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    restored, expected, defect, anomalous, _, error, found = network(image, training=False)
    assert tuple(restored.shape) == (2, 64, 64, 3)
    assert tuple(expected.shape) == tuple(defect.shape) == tuple(error.shape) == (2, 32, 32, 1)
    assert tuple(anomalous.shape) == (2, 1)
    assert tuple(found.shape) == (2, 7)
    values = ops.convert_to_numpy(restored)
    assert 0 <= values.min() <= values.max() <= 1


def test_build_network_in_bfloat16_keeps_float32_weights_and_outputs():
    network = build_network("small", 32, "mixed_bfloat16")
    assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    assert {str(output.dtype) for output in network.outputs} == {"float32"}
    assert network.get_layer("encode1").compute_dtype == "bfloat16"


def test_build_network_when_told_what_is_usual_counts_evidence_from_there():
    image = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    plain = build_network("small", 32)
    raw = ops.convert_to_numpy(plain(image, training=False)[-1])
    means, spreads = [0.5, 1.0, -1.0, 2.0, 0.0, 3.0, -0.5], [0.1, 0.2, 0.3, 0.4, 0.5, 2.0, 1.5]
    counted = build_network("small", 32, usual=(means, spreads))
    counted.set_weights(plain.get_weights())
    found = ops.convert_to_numpy(counted(image, training=False)[-1])
    np.testing.assert_allclose(found, (raw - means) / spreads, rtol=1e-4, atol=1e-4)


def test_network_when_only_brightness_changes_sees_the_same_features():
    network = build_network("small", 32)
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32) * 0.5
    one, other = (ops.convert_to_numpy(network(picture, training=False)[4]) for picture in (image, image + 0.3))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_load_network_when_saved_gives_the_same_in_safe_mode(tmp_path: Path):
    network = build_network("small", 32, usual=([0.5] * EVIDENCE, [0.1] * EVIDENCE))
    network.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    loaded = load_network(tmp_path / "model.keras")
    for one, other in zip(loaded(image), network(image), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_load_network_when_it_holds_code_is_refused(tmp_path: Path):
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "model.keras")
    with pytest.raises(BadPackage, match=r"model\.keras: not a network that keras can load"):
        load_network(tmp_path / "model.keras")


@pytest.mark.parametrize("score", ["fused", "reconstruction"])
def test_inspection_model_takes_bytes_and_gives_score_map_and_embedding(score):
    made = inspection_model(build_network("small", 32), score)(np.zeros((3, 32, 32, 3), np.uint8))
    shapes = {name: tuple(value.shape) for name, value in made.items()}
    evidence = {"evidence": (3, 7)} if score == "fused" else {}
    assert shapes == {"score": (3,), "error_map": (3, 16, 16), "embedding": (3, 128), **evidence}
    assert ops.convert_to_numpy(made["score"]).min() >= 0


def test_models_never_import_a_backend_by_themselves():
    for path in (REPOSITORY / "pipelines" / "models").glob("*.py"):
        assert not any(
            line.strip().startswith(("import tensorflow", "from tensorflow", "import torch", "import jax"))
            for line in path.read_text().splitlines()
        ), path


def test_scoring_modules_import_nothing_heavy():
    code = (
        "import sys\nimport pipelines.score, pipelines.package, pipelines.prepare, pipelines.subprocess\n"
        "heavy = {'keras', 'tensorflow', 'mlflow', 'onnx', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print(heavy); sys.exit(bool(heavy))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
