"""Networks of keras.applications: weights from the cache, from S3, or the sentence that says what to do."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.backbones import load_backbone
from pipelines.backbones.torch_weights import BadWeights
from pipelines.storage.s3 import Storage

NAME = "mobilenet_v3_small"


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no download succeed, and Keras' own cache be empty."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "keras"))


@pytest.fixture
def written(cache) -> np.ndarray:
    """Write random weights of the network into the cache, and return what it makes of an image."""
    import keras

    from pipelines.backbones.keras_networks import build, weights_path

    keras.utils.set_random_seed(1)
    network = build(NAME, 64)
    path = weights_path(NAME)
    path.parent.mkdir(parents=True)
    network.save_weights(path)
    return np.asarray(network.predict_on_batch(image(64))["embedding"])


def image(side: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (1, side, side, 3)).astype(np.float32)


def test_load_when_the_cache_has_the_weights_then_needs_no_network(away, written: np.ndarray):
    backbone = load_backbone("MobileNetV3Small", 64)
    np.testing.assert_allclose(backbone.network.predict_on_batch(image(64))["embedding"], written, rtol=1e-4, atol=1e-5)
    other_size = load_backbone(NAME, 96)
    assert other_size.sha256 == backbone.sha256
    assert other_size.network.predict_on_batch(image(96))["embedding"].shape == written.shape


def test_load_when_s3_has_the_weights_then_another_machine_takes_them(
    away, written: np.ndarray, projects, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    from pipelines.backbones.keras_networks import weights_path
    from pipelines.config.settings import settings
    from pipelines.storage import keys

    storage, path = Storage(projects.bucket), weights_path(NAME)
    storage.upload(path, keys.backbone(path.name))
    path.unlink()
    lines: list[str] = []
    backbone = load_backbone(NAME, 64, storage, lines.append)
    np.testing.assert_allclose(backbone.network.predict_on_batch(image(64))["embedding"], written, rtol=1e-4, atol=1e-5)
    assert len(lines) == 1
    assert weights_path(NAME).is_file()
    assert settings().cache in weights_path(NAME).parents


def test_load_when_nothing_can_be_downloaded_then_says_what_to_set(away, cache):
    with pytest.raises(BadWeights) as caught:
        load_backbone(NAME, 64)
    assert "\n" not in str(caught.value)
    assert "efficientnet_lite0" in str(caught.value)


@pytest.mark.parametrize("name", ["vgg17", "weights", "load_img"])
def test_load_when_there_is_no_such_network_then_names_those_that_there_are(name: str, cache):
    with pytest.raises(BadWeights, match="vgg16, vgg19"):
        load_backbone(name, 64)


def test_load_when_the_file_is_damaged_then_names_it(away, written: np.ndarray):
    from pipelines.backbones.keras_networks import weights_path

    path = weights_path(NAME)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BadWeights, match=str(path)):
        load_backbone(NAME, 64)


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "mobilenetv2"])
def test_build_when_a_network_expects_normalised_images_then_does_it_itself(name: str):
    import sys

    import keras

    from pipelines.backbones.keras_networks import build, network_names

    keras.utils.set_random_seed(2)
    network = build(name, 64)
    function = getattr(keras.applications, network_names()[name])
    plain = function(include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg")
    plain.set_weights(network.get_weights())
    expected = plain.predict_on_batch(sys.modules[function.__module__].preprocess_input(image(64).copy()))
    np.testing.assert_allclose(network.predict_on_batch(image(64))["embedding"], expected, rtol=1e-3, atol=1e-4)
