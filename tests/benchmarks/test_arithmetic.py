"""The operations of a training step are counted correctly, and rate and memory are measured on this machine."""

import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from benchmarks import arithmetic
from benchmarks.arithmetic import highest_memory, highest_rate, step_operations
from pipelines.tasks.anomaly.restoration.network import build_network


def test_step_operations_counts_every_product_of_a_step_once():
    image = keras.Input((8, 8, 3))
    first = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="first")(image)
    second = layers.Conv2D(5, 1, use_bias=False)(layers.BatchNormalization()(first))
    larger = layers.Conv2DTranspose(2, 4, strides=2, padding="same")(layers.Add()([second, second]))
    verdict = layers.Dense(1)(ops.max(second, axis=(1, 2)))
    apart = layers.Conv2D(6, 3, padding="same")(layers.Concatenate()([ops.stop_gradient(larger), image]))
    network = keras.Model(image, [larger, verdict, apart])
    # Multiplications of the output, and for how many gradients they are done again: none by an image, nor by what no
    # gradient goes on from.
    counted = [
        (4 * 4 * 4 * 3 * 3 * 3, 2),
        (4 * 4 * 5 * 4, 3),
        (4 * 4 * 5 * 2 * 4 * 4, 3),
        (5, 3),
        (8 * 8 * 6 * 5 * 3 * 3, 2),
    ]
    assert step_operations(network) == sum(2 * products * times for products, times in counted)
    # What is fixed takes no gradient; behind it stands a norm that is trained.
    network.get_layer("first").trainable = False
    assert step_operations(network) == sum(2 * products * times for products, times in counted[1:])


def test_step_operations_grows_with_the_pixels_but_for_the_verdict():
    once, four_times = (step_operations(build_network("small", side)) for side in (64, 128))
    assert once > 1e8
    verdict = 6 * 2 * 128
    assert abs(four_times - 4 * once) <= 4 * verdict


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_highest_rate_is_not_far_from_the_rate_of_numpy(dtype: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arithmetic, "SIDES", (512,))
    matrix = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    matrix @ matrix
    start = time.perf_counter()
    matrix @ matrix
    numpys = 2 * 512**3 / (time.perf_counter() - start)
    assert 0.001 * numpys < highest_rate(dtype) < 1e5 * numpys


def test_highest_rate_stops_at_a_side_that_takes_long(monkeypatch: pytest.MonkeyPatch):
    sides: list[int] = []

    def products(left: np.ndarray, _: np.ndarray, count: int) -> float:
        sides.append(left.shape[0])
        return count * 1e-9 * left.shape[0] ** 2 * (1 if left.shape[0] < 256 else 1e4)

    monkeypatch.setattr(arithmetic, "_products", products)
    monkeypatch.setattr(arithmetic, "SIDES", (64, 128, 256, 512))
    assert highest_rate("float32") == pytest.approx(2 * 128**3 / (1e-9 * 128**2))
    assert set(sides) == {64, 128, 256}


def test_highest_memory_is_what_the_system_counted():
    where, used = highest_memory()
    (line,) = (entry for entry in Path("/proc/self/status").read_text().splitlines() if entry.startswith("VmHWM:"))
    if where == "process":
        assert used == pytest.approx(1024 * int(line.split()[1]), rel=0.02)
    else:
        assert used > 0
