"""Batches rendered on the GPU equal those drawn in numpy, and so do trainings on them."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from pipelines.errors import TrainingFailed
from pipelines.tasks.anomaly.fitting import batches, trainer
from pipelines.tasks.anomaly.fitting.batches import BatchStream
from pipelines.tasks.anomaly.fitting.state import FitSettings, Fitted
from pipelines.tasks.anomaly.fitting.trainer import Restoration, fit
from pipelines.tasks.anomaly.restoration.network import TRAINED_OUTPUTS, build_network
from pipelines.tasks.anomaly.synthetic import device
from pipelines.tasks.anomaly.synthetic.batch_spec import KINDS, SLOTS, Recipe, recipe
from pipelines.tasks.anomaly.synthetic.defects import Painter, augment
from pipelines.tasks.anomaly.synthetic.device import draws_on_device, has_gpu, is_gpu, painted
from pipelines.tasks.anomaly.synthetic.fills import FILLINGS
from pipelines.tasks.anomaly.synthetic.real_defects import Annotated
from pipelines.training.state import Progress
from tests.pipelines.tasks.anomaly.pictures_of_parts import good_parts

# Matrix products on a GPU have lower precision.
NEAR = 1e-3 if has_gpu() else 2e-5
DRAW = """
import sys
import jax
import keras
import numpy as np
from pipelines.tasks.anomaly.synthetic.device import painted
assert keras.backend.backend() == sys.argv[1]
with np.load(sys.argv[2]) as arrays:
    spec = {name: keras.ops.convert_to_tensor(arrays[name]) for name in arrays.files}
drawn = jax.jit(painted)(spec, spec.pop("textures"))
np.savez(sys.argv[3], *map(keras.ops.convert_to_numpy, drawn))
"""


def on_a_ground(count: int, size: int) -> np.ndarray:
    """Return parts on a plain background, [count, size, size, 3]."""
    images = np.full((count, size, size, 3), 240, np.uint8)
    images[:, size // 4 : -size // 4, size // 4 : -size // 4] = good_parts(count, size // 2)
    return images


def drawn(spec: Recipe, painter: Painter) -> tuple[np.ndarray, np.ndarray]:
    """Render a recipe with the current backend: the damaged and the clean images."""
    tensors = {name: keras.ops.convert_to_tensor(array) for name, array in spec.items()}
    damaged, clean = painted(tensors, keras.ops.convert_to_tensor(np.stack(painter.textures)))
    return keras.ops.convert_to_numpy(damaged), keras.ops.convert_to_numpy(clean)


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize(("turns", "objects"), [(False, False), (True, False), (False, True)])
def test_painted_draws_the_images_and_defects_that_numpy_draws(size: int, turns: bool, objects: bool):
    images = on_a_ground(90, size) if objects else good_parts(90, size)
    painter = Painter(size, 5, None, turns, objects)
    generator = np.random.default_rng(1)
    clean = augment(images, generator, turns)
    damaged = painter.add_defects(clean, generator)
    spec = recipe(images, painter, np.random.default_rng(1), turns)
    there, clean_there = drawn(spec, painter)
    np.testing.assert_allclose(clean_there, clean, atol=1e-6)
    np.testing.assert_allclose(there, damaged, atol=NEAR)
    assert 0.35 < np.mean(np.abs(there - clean_there).max(axis=(1, 2, 3)) > 0.02) < 0.65
    if not turns:
        assert set(np.unique(spec["whole"][..., 0])) == {-1, *range(len(KINDS))}


def test_kinds_are_all_fillings_there_are():
    assert set(KINDS) == set(FILLINGS)


def test_painted_on_jax_draws_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    painter = Painter(32, 2)
    spec = recipe(good_parts(60, 32), painter, np.random.default_rng(3), False)
    np.savez(tmp_path / "spec.npz", textures=np.stack(painter.textures), **spec)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    subprocess.run(
        [sys.executable, "-c", DRAW, "jax", str(tmp_path / "spec.npz"), str(tmp_path / "drawn.npz")], check=True
    )
    with np.load(tmp_path / "drawn.npz") as arrays:
        for there, here in zip((arrays[name] for name in arrays.files), drawn(spec, painter), strict=True):
            np.testing.assert_allclose(there, here, atol=NEAR)


def test_recipe_has_the_same_shapes_for_any_seed():
    painter, images = Painter(32, 0), good_parts(6, 32)
    shapes = {
        tuple((name, array.shape, array.dtype) for name, array in recipe(images, painter, generator, turns).items())
        for turns in (False, True)
        for generator in map(np.random.default_rng, range(5))
    }
    assert len(shapes) == 1
    assert recipe(images, painter, np.random.default_rng(0), False)["shapes"].shape == (6, SLOTS, 32, 32)


def test_batches_for_a_device_are_those_for_processors():
    here, there = (BatchStream(good_parts(9), 4, 3, on_device=on_device) for on_device in (False, True))
    for step in (0, 7):
        damaged, (clean, _) = here.batch(step)
        spec, unlocated = there.batch(step)
        assert not unlocated.any()
        pair = drawn(spec, there._painter)
        np.testing.assert_allclose(pair[0], damaged, atol=NEAR)
        np.testing.assert_allclose(pair[1], clean, atol=1e-6)


def test_batches_for_a_device_are_drawn_by_processors_where_anomalies_are_annotated():
    nothing = np.empty((0, 32, 32, 3), np.uint8)
    place = Annotated(good_parts(1, 32), np.full((1, 32, 32), 255, np.uint8), nothing)
    whole = Annotated(nothing, nothing[..., 0], good_parts(1, 32))
    for annotated, draws in ((place, False), (whole, False), (Annotated(nothing, nothing[..., 0], nothing), True)):
        stream = BatchStream(good_parts(9, 32), 4, 3, annotated, on_device=True)
        assert (stream.textures is not None) == draws
        assert isinstance(stream.batch(0)[0], dict) == draws


def test_fit_on_a_device_is_the_training_that_it_is_on_processors(monkeypatch: pytest.MonkeyPatch):
    settings = FitSettings(input_size=32, batch_size=8, steps=40, seconds=float("inf"), precision="float32")
    images, drew = good_parts(16, 32), []
    monkeypatch.setattr(trainer, "painted", lambda *arguments: drew.append(1) or painted(*arguments))

    def trained(on_device: bool) -> tuple[list[float], Fitted]:
        losses: list[float] = []

        def only_ends(progress: Progress) -> None:
            if progress.ended:  # a slow machine also reports every ten seconds
                losses.append(progress.loss)

        monkeypatch.setattr(trainer, "draws_on_device", lambda: on_device)
        result = fit(images, settings, validation=images, on_progress=only_ends)
        return losses, result

    losses, fitted = trained(False)
    assert not drew
    there, fitted_there = trained(True)
    assert drew
    # Losses agree in the first epoch; afterwards, rounding errors grow.
    assert there[0] == pytest.approx(losses[0], rel=2e-3)
    assert there[-1] == pytest.approx(losses[-1], rel=0.1)
    # The fitted network has no layers for rendering.
    assert [layer.name for layer in fitted_there.network.layers] == [layer.name for layer in fitted.network.layers]
    assert trained(True)[0] == there


def test_restoration_that_draws_still_judges_images():
    stream = BatchStream(good_parts(8, 32), 4, 0, on_device=True)
    model = Restoration(build_network("small", 32), stream.textures)
    spec, _ = stream.batch(0)
    answer = model({name: keras.ops.convert_to_tensor(array) for name, array in spec.items()})
    assert set(answer) == {"damaged", "clean", *TRAINED_OUTPUTS}
    assert not np.array_equal(answer["damaged"], answer["clean"])
    assert set(model(keras.ops.convert_to_tensor(answer["clean"]))) == set(TRAINED_OUTPUTS)


def test_draws_on_device_with_a_gpu_unless_the_variable_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    for gpu in (True, False):
        monkeypatch.setattr(device, "has_gpu", lambda gpu=gpu: gpu)
        monkeypatch.delenv("INSPECTLINE_DRAW_ON", raising=False)
        assert draws_on_device() == gpu
        monkeypatch.setenv("INSPECTLINE_DRAW_ON", "device")
        assert draws_on_device()
        monkeypatch.setenv("INSPECTLINE_DRAW_ON", "processors")
        assert not draws_on_device()
    monkeypatch.setenv("INSPECTLINE_DRAW_ON", "gpu")
    with pytest.raises(TrainingFailed, match="INSPECTLINE_DRAW_ON is 'gpu': set it to device or processors"):
        draws_on_device()


def test_has_gpu_agrees_with_the_devices_that_keras_lists():
    assert has_gpu() == bool(keras.distribution.list_devices("gpu"))


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("/job:localhost/replica:0/task:0/device:GPU:0", True),
        ("cuda:0", True),
        ("rocm:0", True),
        ("/job:localhost/replica:0/task:0/device:CPU:0", False),
        ("TFRT_CPU_0", False),
        ("TPU_0(process=0,(0,0,0,0))", False),
        ("cpu", False),
    ],
)
def test_is_gpu_recognises_the_device_names_of_all_backends(device: str, expected: bool):
    assert is_gpu(device) == expected


def test_workers_for_a_device_are_more_where_recipes_are_small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipelines.tasks.anomaly.fitting.batches.usable_cores", lambda: 64)
    images = good_parts(2, 512)
    assert BatchStream(images, 64, 3).workers() == 1
    stream = BatchStream(images, 64, 3, on_device=True)
    spec, _ = stream.batch(0)
    held = sum(array.nbytes for array in spec.values())
    assert stream.workers() == batches.BYTES_AHEAD // held == 5
