"""The accuracy benchmark: the table, the result cache, and resuming an interrupted run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import accuracy
from benchmarks.measure import OURS

Lines = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the baseline that takes long to train."""
    monkeypatch.setattr(accuracy, "BASELINES", dict.fromkeys(accuracy.TIMELESS))


def measured(parts: Path, *arguments: str) -> list[dict[str, Any]]:
    """Measure with trainings of two steps, and return the results."""
    path = parts.with_suffix(".json")
    asked = [str(parts), "--steps", "2", "--seeds", "1", "--rate", "0.2", "--json", str(path), *arguments]
    assert accuracy.main(asked) == 0
    return json.loads(path.read_text(encoding="utf-8"))


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": min(1.0, value + 0.1)}


def result(seed: int, auroc: float, **others: Any) -> dict[str, Any]:
    figures = {name: estimate(0.5) for name in ("average_precision", "f1", "recall", "fpr")}
    names = {"set": "tiles", "method": OURS, "seed": seed, "minutes": 10, "steps": 3600}
    rest = {"pixel_auroc": None, "aupro": None, "promised_fpr": 0.01, "allowed_fpr": 0.04, "promise_kept": seed == 0}
    what = ["anomaly score", "warmth"][: 2 * seed]
    drifted = {"drifted": seed == 1, "what": what, "distance": 0.25 + seed, "threshold": 0.5}
    types = {"auroc_by_type": {"crack": estimate(auroc), "pit": estimate(0.5)}, "images_per_second": 98.4}
    return {**names, **figures, **rest, **types, "auroc": estimate(auroc), "drift": drifted, **others}


def test_table_shows_every_seed_then_mean_and_spread_then_types():
    lines = accuracy.table([result(0, 0.8), result(1, 0.9)]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {len(row) for row in cells} == {len(cells[0])}
    rows = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    assert [row["seed"] for row in rows] == ["0", "1", "mean", "mean", "mean"]
    assert [row["AUROC"] for row in rows] == ["0.800", "0.900", "0.850 ± 0.050", "0.850 ± 0.050", "0.500 ± 0.000"]
    assert [row["promise"] for row in rows] == ["kept", "broken", "1 of 2", "", ""]
    assert [row["set"] for row in rows[2:]] == ["**tiles**", "tiles, crack", "tiles, pit"]
    assert [row["drift"] for row in rows] == ["none (0.25 of 0.50)", "anomaly score, warmth (1.25 of 0.50)"] + [""] * 3
    assert rows[0]["95 % interval of AUROC"] == "0.700–0.900"
    assert (rows[0]["pixel AUROC"], rows[2]["AUPRO"]) == ("–", "–")
    assert rows[0]["images/s"] == "98.4"


def test_table_of_runs_by_steps_names_no_time():
    line = accuracy.table([result(0, 0.8, minutes=None, steps=10)]).splitlines()[2]
    assert "98" not in line


def test_accuracy_once_measured_is_read_again_until_the_code_changes(
    parts: Path, store: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
):
    first = measured(parts)
    assert [result["method"] for result in first] == [OURS, "brightness", "PCA"]
    assert not any("measured before" in line for line in lines())
    assert len(list(store.iterdir())) == 3
    # Six images of each are fewer than the drift report compares; baselines have no embedding to compare.
    assert [result["drift"] and result["drift"]["drifted"] for result in first] == [None, None, None]
    assert "too few images" in accuracy.table(first).splitlines()[2]

    assert measured(parts) == first
    assert [line for line in lines() if "measured before" in line] == [
        f"parts, {method}, seed 0: measured before" for method in (OURS, "brightness", "PCA")
    ]

    # Interrupted: what is missing is measured, the rest is read.
    kept = [path for path in store.iterdir() if "steps" in path.read_text(encoding="utf-8")]
    for path in kept:
        path.unlink()
    again = measured(parts)
    assert [result["auroc"] for result in again] == [result["auroc"] for result in first]
    assert again[0]["scores"] == first[0]["scores"]  # trainings by steps on a CPU are reproducible
    assert [line for line in lines() if line.endswith(("measured before", "2 steps"))] == [
        f"parts, {OURS}, seed 0: 2 steps",
        "parts, brightness, seed 0: measured before",
        "parts, PCA, seed 0: measured before",
    ]

    # Broken files are measured again as well.
    broken, whole = sorted(set(store.iterdir()) - set(kept))
    text = broken.read_text(encoding="utf-8")
    broken.write_text(text[: len(text) // 2], encoding="utf-8")
    whole.write_text('{"auroc": 1}', encoding="utf-8")
    measured(parts)
    printed = lines()
    for path in (broken, whole):
        assert printed.count(f"{path}: truncated, or not written by this benchmark; measured anew") == 1
    assert len([line for line in printed if line.endswith("measured before")]) == 1

    # A change of the baselines' code invalidates only their results.
    keys = set(store.iterdir())
    monkeypatch.setattr(accuracy, "BASELINE_CODE", (*accuracy.BASELINE_CODE, "README.md"))
    measured(parts)
    assert len(set(store.iterdir()) - keys) == 2


def test_accuracy_when_a_folder_is_no_set_says_so_in_a_line(tmp_path: Path, store: Path, capfd):
    assert accuracy.main([str(tmp_path / "nothing")]) == 1
    assert capfd.readouterr().err == f"{tmp_path / 'nothing'}: there is no such folder\n"
