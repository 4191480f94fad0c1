"""A project of two drawn classes, and a run that trains on it briefly."""

import numpy as np
import pytest

from pipelines.datasets.versions import freeze
from pipelines.steps import PackRef, Run
from pipelines.training import runs
from tests.pipelines.line import Line, pack_of

CLASSES = ("bar", "disc")


def drawn_shape(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Draw a disc or a bar somewhere on noise, uint8 [64, 80, 3]."""
    pixels = rng.integers(90, 130, (64, 80, 3), dtype=np.uint8)
    down, across = np.mgrid[:64, :80]
    y, x = rng.integers(24, 40), rng.integers(30, 50)
    shape = (down - y) ** 2 + (across - x) ** 2 < 14**2
    if kind == "bar":
        shape = (abs(down - y) < 5) & (abs(across - x) < 26)
    pixels[shape] = rng.integers(180, 250, 3)
    return pixels


@pytest.fixture
def shapes(line: Line, projects) -> Line:
    """Fill the line's project with discs and bars."""
    model = {"input_size": 64, "batch_size": 8, "open_layers": 2}
    promotion = {"bootstrap_samples": 400, "minimum_accuracy": 0.6}
    projects.write(line.project, task="classification", model=model, promotion=promotion)
    for side, count in (("training", 12), ("validation", 6), ("test", 8)):
        for kind in CLASSES:
            line.add(side, kind, count, draw=lambda rng, kind=kind: drawn_shape(kind, rng))
    return line


@pytest.fixture
def run(shapes: Line) -> Run:
    """Return a run that fine-tunes for two epochs."""
    begun = runs.begin(freeze(shapes.project), {"epochs": 2}, force=False, dag_run_id="manual__1")
    assert isinstance(begun, Run)
    return begun


@pytest.fixture
def pack(run: Run) -> PackRef:
    """Build the run's pack."""
    return pack_of(run)
