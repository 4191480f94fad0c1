"""One trained network as it is, in int8, and fine-tuned."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.folders import BadSet, read_set
from benchmarks.variants import annotated_tiles, choose, main
from pipelines.config.model_settings import AnomalySettings


@pytest.mark.slow
def test_main_prints_and_writes_every_variant(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "told.json"
    assert main([str(parts), "--steps", "10", "--annotated", "2", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")][2:]
    variants = json.loads(path.read_text())["variants"]
    assert [row[0].removeprefix("| ") for row in rows] == list(variants)
    assert list(variants) == [
        "float32",
        "int8",
        "reconstruction error alone",
        "float32, other test images",
        "fine-tuned with 2 annotated",
        "without",
    ]
    for row, variant in zip(rows, variants.values(), strict=True):
        assert row[4] == f"{variant['auroc']['value']:.4f}"
    assert "good images and as many synthetic defects" in lines[-1]
    assert [variant.get("steps") for variant in variants.values()] == [10, None, None, None, 3, 3]
    # What was annotated is not judged.
    assert [variant["judged"] for variant in variants.values()] == [12, 12, 12, 10, 10, 10]
    # The same steps on the same images but for the annotated ones.
    assert variants["without"]["threshold"] != variants["fine-tuned with 2 annotated"]["threshold"]


def test_main_when_too_many_are_to_be_annotated_then_one_line(parts: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(parts), "--annotated", "6"]) == 1
    assert capsys.readouterr().err == ("parts: has 6 anomalous test images with a mask, too few to annotate 6\n")


def test_choose_takes_other_images_for_another_seed_and_never_good_ones(parts: Path):
    images = read_set(parts)
    chosen = [[image.file.name for image in choose(images, 3, seed)] for seed in range(8)]
    assert chosen[0] == [image.file.name for image in choose(images, 3, 0)]
    assert len({tuple(names) for names in chosen}) > 1
    assert {image.type for image in choose(images, 5, 0)} == {"spot"}
    assert choose(images, 0, 0) == []
    with pytest.raises(BadSet, match="too few to annotate 7"):
        choose(images, 7, 0)


def test_annotated_tiles_hold_the_marked_parts_where_the_mask_says(parts: Path):
    annotated = annotated_tiles(choose(read_set(parts), 4, 0), AnomalySettings())
    assert annotated.located.shape[0] == annotated.masks.shape[0] == 4
    for tile, mask in zip(annotated.located, annotated.masks, strict=True):
        marked = mask > 127
        assert marked.any()
        assert np.abs(tile[marked].astype(int) - 20).mean() < 30
