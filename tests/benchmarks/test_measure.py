"""A training and its evaluation: on the smallest valid set, and reproducibly by steps."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.baselines import BASELINES
from benchmarks.folders import read_set
from benchmarks.measure import OURS, Judgement, judge, measure
from pipelines.training.step_process import run_module
from tests.benchmarks.conftest import write_set


def job(folder: Path, method: str, **changes: Any) -> dict[str, Any]:
    """Return a job with a training of two steps."""
    entries = {"folder": str(folder), "types": None, "method": method, "preset": "small", "seed": 0}
    return {**entries, "minutes": None, "steps": 2, "rate": 0.01, "page": None, **changes}


def test_measure_on_sixteen_images_fits_on_twelve_and_promises_what_four_can_keep(tmp_path: Path):
    figures = measure(job(write_set(tmp_path / "few", trained=16), OURS))
    assert (figures["fitted_images"], len(figures["validation"])) == (12, 4)
    assert figures["promised_fpr"] == pytest.approx(1 / 5)
    assert len(figures["scores"]["score"]) == 12
    assert all(0 <= score <= 1 for score in figures["scores"]["score"])


# Each in a process of its own, as the yardstick runs them; `test_accuracy` trains our own network twice.
@pytest.mark.parametrize("method", list(BASELINES))
def test_measure_a_baseline_by_steps_twice_gives_the_very_same_figures(parts: Path, method: str):
    first, second = (
        run_module("benchmarks.measure", {"job": job(parts, method, seed=7, steps=10)}, print) for _ in range(2)
    )
    assert first == second


def test_judge_keeps_no_error_map_longer_than_it_counts_it(parts: Path):
    images = read_set(parts)
    maps: list[weakref.ref[np.ndarray]] = []

    def detect(files: list[Path]) -> Iterator[Judgement]:
        for number, _ in enumerate(files):
            # The caller holds the last one at most.
            assert sum(reference() is not None for reference in maps) <= 1
            error_map = np.full((48, 48), number, np.float32)
            maps.append(weakref.ref(error_map))
            yield Judgement(float(number), error_map)
            del error_map

    judge(images, detect, images.training[:8], rate=0.2)
    assert len(maps) == 8 + len(images.test)
