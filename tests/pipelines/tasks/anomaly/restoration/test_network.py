"""The network: output shapes of every preset, statistics of good images, and loading in safe mode."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from pipelines.config.settings import REPOSITORY
from pipelines.errors import BadPackage, TrainingFailed
from pipelines.tasks.anomaly.restoration.anomaly_score import roughness
from pipelines.tasks.anomaly.restoration.inference_model import inspection_model, load_network
from pipelines.tasks.anomaly.restoration.network import CHANNELS, OUTPUTS, build_network, named_weights, set_weights
from pipelines.tasks.anomaly.restoration.normality import Usual, interpolated, usual_pattern

ANOMALY = REPOSITORY / "pipelines" / "tasks" / "anomaly"


@pytest.mark.parametrize("preset", sorted(CHANNELS))
def test_build_network_of_each_preset_restores_at_full_size_in_range(preset):
    network = build_network(preset, 64)
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    answer = network(image, training=False)
    shapes = {name: tuple(value.shape) for name, value in answer.items()}
    half = (2, 32, 32, 1)
    features = shapes.pop("features")
    assert (features[0], features[-1]) == (2, CHANNELS[preset][-1])
    assert shapes == {
        "restored": (2, 64, 64, 3),
        "expected": half,
        "defect": half,
        "error": half,
        "anomalous": (2, 1),
        "evidence": (2, 7),
    }
    values = ops.convert_to_numpy(answer["restored"])
    assert 0 <= values.min() <= values.max() <= 1


def test_build_network_in_bfloat16_keeps_float32_weights_and_outputs():
    network = build_network("small", 32, "mixed_bfloat16")
    assert {str(weight.dtype) for weight in network.weights} == {"float32"}
    assert {str(output.dtype) for output in network.outputs} == {"float32"}
    assert network.get_layer("encode1").compute_dtype == "bfloat16"


def test_build_network_with_statistics_standardises_evidence_by_them():
    image = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    plain = build_network("small", 32)
    raw = ops.convert_to_numpy(plain(image, training=False)["evidence"])
    locations, scales = [0.5, 1.0, -1.0, 2.0, 0.0, 3.0, -0.5], [0.1, 0.2, 0.3, 0.4, 0.5, 2.0, 1.5]
    counted = build_network("small", 32, usual=replace(nothing_usual(), locations=locations, scales=scales))
    set_weights(counted, named_weights(plain))
    standardised = ops.convert_to_numpy(counted(image, training=False)["evidence"])
    np.testing.assert_allclose(standardised, (raw - locations) / scales, rtol=1e-4, atol=1e-4)


def test_build_network_when_smooth_images_have_less_evidence_corrects_it_for_roughness():
    generator = np.random.default_rng(0)
    grain = generator.normal(0, 1, (32, 32, 3)).astype(np.float32)
    dark = np.concatenate([np.full((16, 32, 3), 0.3), np.full((16, 32, 3), 0.6)]).astype(np.float32)
    image = np.stack([ground + strength * grain for ground in (dark, dark[::-1]) for strength in (0.002, 0.02, 0.1)])
    rough = ops.convert_to_numpy(roughness(image))[:, 0]
    patterns = np.stack([usual_pattern(np.round(255 * part[None]).astype(np.uint8)) for part in (dark, dark[::-1])])
    maps = np.zeros((2, 16, 16), np.float32)
    plain = build_network("small", 32)
    knots = np.array([-2.0, -1.1, 0.3])
    levels = np.stack([np.linspace(-3, -1, 7), np.linspace(-1, -0.5, 7), np.zeros(7)])
    usual = replace(
        Usual.of_maps(patterns, maps, maps + 1, pieces=7, surface=False),
        roughness=np.array([-3.0, -4.0]),
        knots=knots,
        levels=levels,
    )
    counted = build_network("small", 32, usual=usual)
    set_weights(counted, named_weights(plain))
    raw, standardised = (
        ops.convert_to_numpy(network(image, training=False)["evidence"]) for network in (plain, counted)
    )
    expected = interpolated(rough - np.repeat([-3, -4], 3), knots, levels)
    assert np.ptp(expected[:, 0]) > 2
    np.testing.assert_allclose(raw - standardised, expected, rtol=1e-3, atol=1e-3)


def test_build_network_when_one_part_has_other_error_maps_standardises_only_its_errors():
    generator = np.random.default_rng(0)
    left, right = (generator.random((32, 32, 3)).astype(np.float32) for _ in range(2))
    patterns = np.stack([usual_pattern(np.round(255 * part[None]).astype(np.uint8)) for part in (left, right)])
    middles, widths = np.zeros((2, 16, 16), np.float32), np.ones((2, 16, 16), np.float32)
    middles[1, 4:8] = 2
    widths[1, 4:8] = 0.5
    plain = build_network("small", 32)
    usual = Usual.of_maps(patterns, middles, widths, pieces=7, surface=False)
    counted = build_network("small", 32, usual=usual)
    set_weights(counted, named_weights(plain))
    # Darker than the patterns and slightly noisy: the parts are still recognised.
    image = np.stack([left, right]) * 0.8 + generator.normal(0, 0.02, (2, 32, 32, 3)).astype(np.float32)
    raw, standardised = (
        ops.convert_to_numpy(network(image, training=False)["error"])[..., 0] for network in (plain, counted)
    )
    logs = np.log(np.expm1(raw))
    expected = np.stack([logs[0], (logs[1] - middles[1]) / widths[1]])
    np.testing.assert_allclose(standardised, np.log1p(np.exp(expected)), rtol=1e-3, atol=1e-3)


def test_build_network_for_a_surface_looks_along_paths_too():
    zeros = np.zeros((1, 16, 16), np.float32)
    usual = Usual.of_maps(np.zeros((1, 64), np.float32), zeros, zeros + 1, pieces=9, surface=True)
    evidence = build_network("small", 32, usual=usual)(np.zeros((2, 32, 32, 3), np.float32), training=False)["evidence"]
    assert tuple(evidence.shape) == (2, 9)


def test_set_weights_of_a_network_with_statistics_leaves_them_out():
    knowing = build_network("small", 32, usual=nothing_usual())
    assert any(layer.name.startswith("usual") for layer in knowing.layers)
    learnt = named_weights(knowing)
    assert not any(name.startswith("usual") for name in learnt)
    plain = build_network("small", 32)
    set_weights(plain, learnt)
    for name, arrays in learnt.items():
        for array, weight in zip(arrays, plain.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(array, weight)
    with pytest.raises(TrainingFailed, match="train from scratch"):
        set_weights(build_network("base", 32), learnt)
    with pytest.raises(TrainingFailed, match="train from scratch"):
        set_weights(plain, {name: arrays for name, arrays in learnt.items() if name != "judge"})


def nothing_usual() -> Usual:
    """Return statistics that leave errors and evidence as they are."""
    zeros = np.zeros((1, 16, 16), np.float32)
    return Usual.of_maps(np.zeros((1, 64), np.float32), zeros, zeros + 1, pieces=7, surface=False)


def test_network_when_only_brightness_changes_sees_the_same_features():
    network = build_network("small", 32)
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32) * 0.5
    dark, bright = (
        ops.convert_to_numpy(network(picture, training=False)["features"]) for picture in (image, image + 0.3)
    )
    np.testing.assert_allclose(dark, bright, atol=1e-4)


def test_load_network_when_saved_gives_the_same_in_safe_mode(tmp_path: Path):
    zeros = np.zeros((3, 16, 16), np.float32)
    patterns = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    knots, levels = np.array([-1.0, 0.5]), np.array([[-2.0] * 9, [0.0] * 9])
    rough, locations, scales = np.array([-3.0, -2.0, -1.0]), [0.5] * 9, [0.1] * 9
    usual = Usual(patterns, zeros + 0.5, zeros + 2, rough, knots, levels, locations, scales, surface=True)
    network = build_network("small", 32, usual=usual)
    network.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    loaded = load_network(tmp_path / "model.keras")(image)
    for name, expected in network(image).items():
        np.testing.assert_allclose(loaded[name], expected, rtol=1e-5, atol=1e-5)


def test_load_network_of_version_0_1_names_the_outputs_that_it_lists_by_position(tmp_path: Path):
    network = build_network("small", 32)
    listed = keras.Model(network.input, [network.output[name] for name in OUTPUTS], name=network.name)
    listed.save(tmp_path / "model.keras")
    loaded = load_network(tmp_path / "model.keras")
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    answer = loaded(image)
    for name, expected in network(image).items():
        np.testing.assert_allclose(answer[name], expected, rtol=1e-5, atol=1e-5)
    fresh = build_network("small", 32)
    set_weights(fresh, named_weights(loaded))
    inspection_model(loaded)
    keras.Model(network.input, listed.outputs[:3]).save(tmp_path / "model.keras")
    with pytest.raises(BadPackage, match="3 outputs, not 7"):
        load_network(tmp_path / "model.keras")


def test_load_network_when_it_holds_code_is_refused(tmp_path: Path):
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Lambda(lambda x: x * 2)(image)).save(tmp_path / "model.keras")
    with pytest.raises(BadPackage, match=r"model\.keras: not a network that keras can load"):
        load_network(tmp_path / "model.keras")


@pytest.mark.parametrize("score", ["fused", "reconstruction"])
def test_inspection_model_takes_bytes_and_gives_score_map_and_embedding(score):
    outputs = inspection_model(build_network("small", 32), score)(np.zeros((3, 32, 32, 3), np.uint8))
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    evidence = {"evidence": (3, 7), "shares": (3, 7)} if score == "fused" else {}
    assert shapes == {"score": (3,), "error_map": (3, 16, 16), "embedding": (3, 128), **evidence}
    assert ops.convert_to_numpy(outputs["score"]).min() >= 0


def test_models_never_import_a_backend_by_themselves():
    paths = [path for folder in ("restoration", "synthetic", "fitting") for path in (ANOMALY / folder).glob("*.py")]
    assert len(paths) > 20
    for path in paths:
        assert not any(
            line.strip().startswith(("import tensorflow", "from tensorflow", "import torch", "import jax"))
            for line in path.read_text().splitlines()
        ), path


def test_scoring_modules_import_nothing_heavy():
    code = (
        "import sys\nimport pipelines.tasks.anomaly.predict, pipelines.registry.package, pipelines.images.preprocess\n"
        "import pipelines.training.step_process\n"
        "heavy = {'keras', 'tensorflow', 'mlflow', 'onnx', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print(heavy); sys.exit(bool(heavy))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
