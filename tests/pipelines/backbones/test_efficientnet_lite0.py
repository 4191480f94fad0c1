"""EfficientNet-Lite0: its shape, its weights by name, and that they land where they belong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.backbones import efficientnet_lite0
from pipelines.backbones.torch_weights import BadWeights

SIZE = 32


@pytest.fixture(scope="module")
def network() -> Any:
    return efficientnet_lite0.build(SIZE)


@pytest.fixture
def tensors(network) -> dict[str, np.ndarray]:
    """Return random tensors of the network, named and laid out as PyTorch does."""
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for layer in network.layers:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if len(shapes) == 4:
            for part, shape in zip(("weight", "bias", "running_mean", "running_var"), shapes, strict=True):
                made[f"{layer.name}.{part}"] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif shapes:
            height, width, first, second = shapes[0]
            depthwise = "depthwise" in layer.name
            shape = (first, second, height, width) if depthwise else (second, first, height, width)
            made[f"{layer.name}.weight"] = rng.normal(0, 0.1, shape).astype(np.float32)
    return made


def test_build_when_images_are_given_then_names_every_output(network):
    outputs = network(np.zeros((2, SIZE, SIZE, 3), np.float32))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "stride_4": (2, 8, 8, 24),
        "stride_8": (2, 4, 4, 40),
        "stride_16": (2, 2, 2, 112),
        "stride_32": (2, 1, 1, 320),
        "embedding": (2, 1280),
    }
    assert network.count_params() == 3_413_024, "as published, without the classes"


def test_load_when_tensors_fit_then_the_stem_computes_what_numpy_does(network, tensors):
    efficientnet_lite0.load_weights(network, tensors)
    import keras

    stem = keras.Model(network.input, network.get_layer("_bn0_relu").output)
    image = np.random.default_rng(1).uniform(0, 255, (SIZE, SIZE, 3)).astype(np.float32)
    found = np.asarray(stem(image[np.newaxis]))[0]
    scaled = (image - 127) / 128
    padded = np.pad(scaled, ((0, 1), (0, 1), (0, 0)))  # TensorFlow's `same` with a stride of 2
    row, column = 5, 15
    patch = padded[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
    value = np.einsum("hwc,ochw->o", patch, tensors["_conv_stem.weight"])
    norm = {part: tensors[f"_bn0.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
    value = (value - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-3) * norm["weight"] + norm["bias"]
    np.testing.assert_allclose(found[row, column], np.clip(value, 0, 6), rtol=1e-4, atol=1e-4)


def _without(tensors: dict[str, np.ndarray]) -> None:
    del tensors["_blocks.3._bn1.bias"]


def _more(tensors: dict[str, np.ndarray]) -> None:
    tensors["_blocks.99._bn1.bias"] = np.zeros(3, np.float32)


def _other(tensors: dict[str, np.ndarray]) -> None:
    tensors["_conv_head.weight"] = np.zeros((1280, 321, 1, 1), np.float32)


@pytest.mark.parametrize(
    ("change", "named"),
    [(_without, "_blocks.3._bn1.bias"), (_more, "_blocks.99._bn1.bias"), (_other, "_conv_head.weight")],
)
def test_load_when_tensors_do_not_fit_then_names_the_first(
    network, tensors, change: Callable[[dict[str, np.ndarray]], None], named: str
):
    change(tensors)
    with pytest.raises(BadWeights, match=named):
        efficientnet_lite0.load_weights(network, tensors)


def test_load_when_the_package_is_there_then_every_tensor_finds_its_place():
    loaded = efficientnet_lite0.load(SIZE)
    image = np.random.default_rng(2).uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)
    embedding = np.asarray(loaded(image)["embedding"])
    assert embedding.shape == (1, 1280)
    assert 0 <= embedding.min() < embedding.max() <= 6, "after ReLU6"
