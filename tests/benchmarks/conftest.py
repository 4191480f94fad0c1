"""A tiny set of parts in the layout of MVTec AD, and a result cache for each test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import result_cache
from tests.pipelines.tasks.anomaly.pictures_of_parts import defective_parts, good_parts

TRAINED, TESTED = 24, 6


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Write 24 good images to train on, and 6 good and 6 defective ones to test on, the latter with masks."""
    return write_set(tmp_path / "parts")


def write_set(folder: Path, size: int = 48, trained: int = TRAINED) -> Path:
    """Write the set, with `trained` images to train on, and return its folder."""
    tested = {"good": good_parts(TESTED, size, seed=3), "spot": defective_parts(TESTED, size)}
    write_images(folder / "train" / "good", good_parts(trained, size))
    for name, images in tested.items():
        write_images(folder / "test" / name, images)
    masks = (tested["spot"] == 20).all(axis=-1)
    write_images(folder / "ground_truth" / "spot", masks.astype(np.uint8) * 255, "{:03d}_mask.png")
    return folder


def write_images(folder: Path, images: np.ndarray, name: str = "{:03d}.png") -> None:
    """Write images as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(number))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache results in a folder of the test."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(result_cache, "FOLDER", folder)
    return folder


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Return a function that returns the lines printed since its last call."""
    return lambda: capfd.readouterr().out.splitlines()
