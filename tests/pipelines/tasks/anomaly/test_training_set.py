"""The training set: the good images of a subset, which of them are new, and the annotated anomalies."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.config.project import load_project
from pipelines.datasets.versions import read_manifest
from pipelines.steps import Champion, DatasetVersion, Run, RunSettings, TrainingParameters
from pipelines.storage.s3 import Storage
from pipelines.tasks.anomaly.training_set import annotated_anomalies, known_samples, select
from tests.pipelines.line import pack_of


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def run(projects, database, cache, project_name: str) -> Run:
    """Four square and two long training images, and three anomalies, two of them with a mask, one of those long."""
    projects.write(project_name, model={"input_size": 32, "resize": "tile"})
    storage, generator, rows = Storage(projects.bucket), np.random.default_rng(0), []
    shapes = [("training", 32, 32)] * 4 + [("training", 32, 80)] * 2
    shapes += [("anomaly/training", 32, 32)] * 2 + [("anomaly/training", 32, 80)] * 2
    for number, (subset, height, width) in enumerate(shapes):
        data = png(generator.integers(0, 255, (height, width, 3), dtype=np.uint8))
        sha256 = hashlib.sha256(data).hexdigest()
        key, mask_key = f"{project_name}/samples/{sha256[:2]}/{sha256}.png", None
        storage.put(key, data)
        if number in (6, 8):
            mask = np.zeros((height, width), np.uint8)
            mask[10:20, width - 12 : width - 4] = 255
            mask_key = f"{project_name}/samples/{sha256[:2]}/{sha256}_mask.png"
            storage.put(mask_key, png(mask))
        label = "good" if subset == "training" else "anomaly"
        row = {"sha256": sha256, "key": key, "label": label, "type": None, "subset": subset, "mask_key": mask_key}
        rows.append(row | {"width": width, "height": height, "group_key": sha256, "acquired_at": None})
    uris = []
    for version, kept in (("v1", rows[:3]), ("v2", rows)):
        manifest = io.BytesIO()
        pd.DataFrame(kept).sort_values("sha256").to_parquet(manifest, index=False)
        uris.append(storage.put(f"{project_name}/{version}/dataset/manifest.parquet", manifest.getvalue()))
    return Run(
        project=project_name,
        kind="retrain",
        training_id="t2",
        dataset=DatasetVersion(project_name, "v2", "", uris[1]),
        parameters=TrainingParameters(None, None, "champion", promote=True),
        settings=RunSettings(model=load_project(project_name).model),
        champion=Champion("1", package_uri=storage.uri(f"{project_name}/v1/model/t1")),
    )


def test_select_gives_every_tile_of_the_subset_and_says_which_show_the_same_part(run):
    chosen = select(pack_of(run), "training")
    assert len(chosen) == 4 + 2 * 3
    assert chosen.places is not None
    assert chosen.fresh is None
    _, counts = np.unique(chosen.places, return_counts=True)
    assert sorted(counts) == [2, 2, 2, 4]
    assert len(chosen.of_one_part()) == 4
    assert len(select(pack_of(run), "validation")) == 0


def test_select_when_the_champion_knows_some_calls_the_others_fresh(run):
    messages: list[str] = []
    old_samples = known_samples(run, messages.append)
    assert old_samples == set(read_manifest(run.dataset.manifest_uri.replace("/v2/", "/v1/"))["sha256"])
    assert len(old_samples) == 3
    chosen = select(pack_of(run), "training", old_samples)
    assert chosen.fresh is not None
    assert chosen.fresh.sum() == 1 + 2 * 3
    assert not messages


def test_known_samples_from_scratch_or_with_a_lost_manifest_are_none(run):
    messages: list[str] = []
    assert (
        known_samples(replace(run, parameters=replace(run.parameters, start_from="scratch")), messages.append)
        == frozenset()
    )
    assert not messages
    lost = replace(run, champion=Champion("1", package_uri=run.champion.package_uri.replace("/v1/", "/v0/")))
    assert known_samples(lost, messages.append) == frozenset()
    assert "all count alike" in messages[0]


def test_annotated_anomalies_are_the_marked_tiles_and_whole_images_without_a_mask(run):
    annotated = annotated_anomalies(run, pack_of(run))
    # The mask of the long one lies in the last of its tiles; the long one without a mask could be anywhere.
    assert len(annotated.located) == len(annotated.masks) == 2
    assert len(annotated.unlocated) == 1
    assert annotated.left_out == 1  # the long one without a mask
    assert annotated.masks.shape == (2, 32, 32)
    assert all(mask[12:18, -10:-6].min() > 200 and mask[:8].max() < 60 for mask in annotated.masks)
