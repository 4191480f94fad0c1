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
from pipelines.models.network import CHANNELS, build_network, fold, unfold
from pipelines.settings import REPOSITORY


@pytest.mark.parametrize("preset", sorted(CHANNELS))
def test_build_network_of_each_preset_restores_at_full_size_in_range(preset):
    network = build_network(preset, 64)
    restored, expected, features = network(np.random.default_rng(0).random((2, 64, 64, 3), np.float32), training=False)
    assert tuple(restored.shape) == (2, 64, 64, 3)
    assert tuple(expected.shape) == (2, 64, 64, 1)
    assert features.shape[-1] <= 64
    values = ops.convert_to_numpy(restored)
    assert 0 <= values.min() <= values.max() <= 1


def test_build_network_in_bfloat16_keeps_float32_weights_and_outputs():
    network = build_network("small", 32, "mixed_bfloat16")
    assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    assert {str(output.dtype) for output in network.outputs} == {"float32"}
    assert network.get_layer("encode1").compute_dtype == "bfloat16"


def test_unfold_of_fold_is_the_same_picture():
    picture = np.random.default_rng(0).random((2, 8, 12, 3), np.float32)
    folded = fold(ops.convert_to_tensor(picture), 2)
    assert tuple(folded.shape) == (2, 4, 6, 12)
    assert np.array_equal(ops.convert_to_numpy(unfold(folded, 2)), picture)


def test_network_when_only_brightness_changes_sees_the_same_features():
    network = build_network("small", 32)
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32) * 0.5
    one, other = (ops.convert_to_numpy(network(picture, training=False)[2]) for picture in (image, image + 0.3))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_load_network_when_saved_gives_the_same_in_safe_mode(tmp_path: Path):
    network = build_network("small", 32)
    network.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    loaded = load_network(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(image)[0], network(image)[0], atol=1e-6)


def test_load_network_when_it_holds_code_is_refused(tmp_path: Path):
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "model.keras")
    with pytest.raises(BadPackage, match=r"model\.keras: not a network that keras can load"):
        load_network(tmp_path / "model.keras")


def test_inspection_model_takes_bytes_and_gives_score_map_and_embedding():
    made = inspection_model(build_network("small", 32))(np.zeros((3, 32, 32, 3), np.uint8))
    assert {name: tuple(value.shape) for name, value in made.items()} == {
        "score": (3,),
        "error_map": (3, 32, 32),
        "embedding": (3, 64),
    }


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
