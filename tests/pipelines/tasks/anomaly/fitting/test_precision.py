"""The choice between float32 and bfloat16, on simulated devices and on this machine."""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

from pipelines.tasks.anomaly.fitting import precision
from pipelines.tasks.anomaly.fitting.precision import BFLOAT16, FLOAT32, faster_precision

VALUES = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
CHAIN = """
import sys
import keras
import numpy as np
from pipelines.tasks.anomaly.fitting import precision
assert keras.backend.backend() == sys.argv[1]
image, kernel = precision._image_and_kernel()
inputs = precision._cast(image[:1], kernel)
np.savez(sys.argv[2], **{dtype: precision._timed(*pair, 8)[1] for dtype, pair in inputs.items()})
print(precision.faster_precision())
"""


class Run(NamedTuple):
    """A timed run."""

    dtype: str
    images: int
    steps: int
    seconds: float


def pretend(monkeypatch, ratio: float, values: np.ndarray = VALUES, step: float = 0.02, hiccups: int = 1) -> list[Run]:
    """Make float32 take `step` seconds for a step of sixteen images, bfloat16 `ratio` of it, and return `values`.

    All but each `hiccups`-th run take ten times as long. Returns a list to which the runs are appended.
    """
    runs: list[Run] = []

    def timed(image: Any, kernel: Any, steps: int) -> tuple[float, np.ndarray]:
        dtype = keras.backend.standardize_dtype(image.dtype)
        assert keras.backend.standardize_dtype(kernel.dtype) == dtype
        half = dtype == "bfloat16"
        seconds = step * steps * image.shape[0] / 16 * (ratio if half else 1.0)
        runs.append(Run(dtype, image.shape[0], steps, seconds if len(runs) % hiccups == 0 else 10 * seconds))
        return runs[-1].seconds, values if half else VALUES

    monkeypatch.setattr(precision, "_timed", timed)
    return runs


@pytest.mark.parametrize(("ratio", "policy"), [(0.5, BFLOAT16), (0.79, BFLOAT16), (0.9, FLOAT32), (1.5, FLOAT32)])
def test_faster_precision_is_bfloat16_when_it_is_clearly_faster(monkeypatch, ratio, policy):
    pretend(monkeypatch, ratio)
    assert faster_precision() == policy


@pytest.mark.parametrize(("ratio", "policy"), [(0.5, BFLOAT16), (0.9, FLOAT32)])
def test_faster_precision_when_most_runs_are_disturbed_goes_by_the_others(monkeypatch, ratio, policy):
    pretend(monkeypatch, ratio, hiccups=3)
    assert faster_precision() == policy


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_faster_precision_when_the_device_raises_is_float32(monkeypatch, dtype):
    def timed(image: Any, kernel: Any, steps: int) -> tuple[float, np.ndarray]:
        if keras.backend.standardize_dtype(image.dtype) == dtype:
            raise RuntimeError("no kernel for this type")
        return 0.02, VALUES

    monkeypatch.setattr(precision, "_timed", timed)
    assert faster_precision() == FLOAT32


@pytest.mark.parametrize("wrong", [0.1, np.inf, -np.inf, np.nan])
def test_faster_precision_when_one_value_of_bfloat16_is_wrong_is_float32(monkeypatch, wrong):
    values = VALUES.copy()
    values[5, 7] += wrong
    pretend(monkeypatch, 0.5, values)
    assert faster_precision() == FLOAT32


def test_faster_precision_when_values_differ_by_rounding_is_bfloat16(monkeypatch):
    values = ops.convert_to_numpy(ops.cast(ops.cast(VALUES, "bfloat16"), "float32"))
    assert (values != VALUES).any()
    pretend(monkeypatch, 0.5, values)
    assert faster_precision() == BFLOAT16


def test_faster_precision_on_a_slow_device_times_few_images_in_turns(monkeypatch):
    runs = pretend(monkeypatch, 0.5, step=0.015)
    assert faster_precision() == BFLOAT16
    assert {run.images for run in runs} == {precision.FEW}
    assert [run.dtype for run in runs[-2 * precision.ROUNDS :]] == ["float32", "bfloat16"] * precision.ROUNDS
    assert {run.steps for run in runs[-2 * precision.ROUNDS :]} == {2}


def test_faster_precision_on_a_fast_device_times_many_images_for_long_enough(monkeypatch):
    runs = pretend(monkeypatch, 0.5, step=0.0001)
    assert faster_precision() == BFLOAT16
    timed = runs[-2 * precision.ROUNDS :]
    assert {(run.images, run.steps) for run in timed} == {(precision.MANY, 16)}
    assert min(run.seconds for run in timed if run.dtype == "float32") >= precision.LEAST_SECONDS


def test_faster_precision_when_the_clock_stands_still_ends(monkeypatch):
    runs = pretend(monkeypatch, 0.5, step=0.0)
    assert faster_precision() == FLOAT32
    assert runs[-1].steps == precision.MOST_STEPS


def test_faster_precision_when_bfloat16_is_emulated_slowly_gives_up_soon(monkeypatch):
    runs = pretend(monkeypatch, 60)
    assert faster_precision() == FLOAT32
    assert [run.dtype for run in runs].count("bfloat16") == 2


def test_faster_precision_on_this_machine_chooses_what_it_measured(monkeypatch):
    runs, timed = [], precision._timed

    def noted(image: Any, kernel: Any, steps: int) -> tuple[float, np.ndarray]:
        seconds, means = timed(image, kernel, steps)
        runs.append(Run(keras.backend.standardize_dtype(image.dtype), image.shape[0], steps, seconds))
        return seconds, means

    monkeypatch.setattr(precision, "_timed", noted)
    chosen = faster_precision()
    rounds: list[Run] = []
    while runs[-2].dtype == "float32" != runs[-1].dtype and len(rounds) < 2 * precision.ROUNDS:
        rounds += runs[-2:]
        del runs[-2:]
    assert len({(run.images, run.steps) for run in rounds}) == 1
    best = {half: min(run.seconds for run in rounds if (run.dtype == "bfloat16") == half) for half in (False, True)}
    assert chosen == (BFLOAT16 if best[True] < precision.WORTH * best[False] else FLOAT32)


def test_a_chain_of_any_length_finds_nearly_the_same_in_both():
    image, kernel = precision._image_and_kernel()
    inputs = precision._cast(image[:1], kernel)
    spreads = []
    for steps in (1, 8, precision.MOST_STEPS):
        expected, means = (precision._timed(*inputs[dtype], steps)[1] for dtype in ("float32", "bfloat16"))
        assert expected.shape == (64, 32)
        assert precision._near(means, expected)
        spreads.append(expected.std())
    assert max(spreads) < 2 * min(spreads)


@pytest.mark.slow
def test_a_chain_on_jax_finds_what_it_finds_on_tensorflow(tmp_path: Path, monkeypatch):
    image, kernel = precision._image_and_kernel()
    expected = precision._timed(image[:1], kernel, 8)[1]
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    command = [sys.executable, "-c", CHAIN, "jax", str(tmp_path / "means.npz")]
    process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert process.stdout.strip() in (FLOAT32, BFLOAT16)
    with np.load(tmp_path / "means.npz") as arrays:
        np.testing.assert_allclose(arrays["float32"], expected, atol=1e-3 * expected.std())
        assert precision._near(arrays["bfloat16"], expected)
