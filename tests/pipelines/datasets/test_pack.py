"""The pack: the same arrays wherever it is built, fetched by digest, and mapped from disk."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from pipelines.config.model_settings import AnomalySettings
from pipelines.datasets import pack
from pipelines.datasets.decisions import withdraw
from pipelines.datasets.pack import build, open_pack
from pipelines.datasets.versions import freeze, read_manifest
from pipelines.errors import BadDataset
from pipelines.images.decode import open_image
from pipelines.images.preprocess import prepare
from pipelines.steps import DatasetVersion
from pipelines.storage.s3 import Storage, split_uri
from tests.pipelines.hostile import every_mode
from tests.pipelines.ingest.conftest import Line

MODEL = AnomalySettings(input_size=64)


@pytest.fixture
def line(projects, database, cache) -> Line:
    projects.write("line", model={"input_size": 64})
    return Line(projects.bucket)


@pytest.fixture
def dataset(line: Line) -> DatasetVersion:
    """Ingest sixty images of all kinds and freeze them."""
    for name, data in every_mode().items():
        line.send(f"good/{name}", data)
    line.send_images(40)
    line.ingest()
    return freeze("line")


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Go to a machine with an empty cache."""
    monkeypatch.setenv("INSPECTLINE_CACHE", str(tmp_path / "elsewhere"))


def test_build_when_run_then_holds_every_image_prepared_in_manifest_order(dataset, line: Line):
    built = build(dataset, MODEL)
    opened = open_pack(built)
    manifest = read_manifest(dataset.manifest_uri)
    assert built.n == len(manifest) == len(opened.index)
    assert opened.images.shape[1:] == (64, 64, 3)
    assert opened.images.dtype == np.uint8
    assert list(opened.index["sha256"]) == list(manifest["sha256"])
    assert list(opened.index["subset"]) == list(manifest["subset"])
    for position in range(0, len(manifest), 7):
        data = line.storage.get(manifest["key"][position])
        pixels = open_image(data, max_pixels=10**6, min_side=1, bits=dataset.bits).pixels
        first, tiles = opened.index.loc[position, ["first", "tiles"]]
        np.testing.assert_array_equal(opened.images[first : first + tiles], prepare(pixels, 64, "tile"))


def test_open_pack_when_opened_then_is_mapped_and_read_only(dataset):
    built = build(dataset, MODEL)
    opened = open_pack(built)
    assert isinstance(opened.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened.images[0] = 0


def test_build_when_it_is_there_then_builds_nothing_again(dataset, line: Line, monkeypatch):
    built = build(dataset, MODEL)
    for item in line.storage.list("line/samples/"):
        line.storage.delete(item.key)
    assert build(dataset, MODEL) == built


def test_build_when_half_written_then_is_built_again_with_the_same_digest(dataset, line: Line, monkeypatch, tmp_path):
    built = build(dataset, MODEL)
    _, folder = split_uri(built.uri)
    line.storage.delete(f"{folder}/pack.json")
    line.storage.put(f"{folder}/images.npy", b"half")
    elsewhere(monkeypatch, tmp_path)
    assert build(dataset, MODEL) == built


def test_open_pack_when_on_another_machine_then_fetches_it_once(dataset, monkeypatch, tmp_path, line: Line):
    built = build(dataset, MODEL)
    here = np.array(open_pack(built).images)
    elsewhere(monkeypatch, tmp_path)
    np.testing.assert_array_equal(open_pack(built).images, here)
    for item in line.storage.list("line/d"):
        line.storage.delete(item.key)
    np.testing.assert_array_equal(open_pack(built).images, here)
    assert [path.name for path in (tmp_path / "elsewhere" / "packs").iterdir()] == [built.digest]


def test_open_pack_when_several_fetch_at_once_then_all_get_it(dataset, monkeypatch, tmp_path):
    built = build(dataset, MODEL)
    elsewhere(monkeypatch, tmp_path)
    got = []
    threads = [threading.Thread(target=lambda: got.append(open_pack(built).images.sum())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert len(set(map(int, got))) == 1


def test_open_pack_when_altered_or_missing_in_s3_then_refuses(dataset, monkeypatch, tmp_path, line: Line):
    built = build(dataset, MODEL)
    elsewhere(monkeypatch, tmp_path)
    _, folder = split_uri(built.uri)
    data = bytearray(line.storage.get(f"{folder}/images.npy"))
    data[-1] ^= 1
    line.storage.put(f"{folder}/images.npy", bytes(data))
    with pytest.raises(BadDataset, match="digest"):
        open_pack(built)
    line.storage.delete(f"{folder}/images.npy")
    with pytest.raises(BadDataset, match="not whole"):
        open_pack(built)
    assert list((tmp_path / "elsewhere" / "packs").iterdir()) == []


@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_build_when_a_sample_cannot_be_read_any_more_then_names_it(dataset, line: Line, damage: str):
    key = line.samples[5]["key"]
    if damage == "gone":
        line.storage.delete(key)
    else:
        line.storage.put(key, b"nothing")
    with pytest.raises(BadDataset, match=key):
        build(dataset, MODEL)
    withdraw("line", key, "lost")
    assert build(freeze("line"), MODEL).n == len(line.samples) - 1


def test_build_when_size_or_samples_differ_then_is_another_pack(dataset, line: Line):
    built = build(dataset, MODEL)
    larger = build(dataset, AnomalySettings(input_size=96, resize="stretch"))
    assert larger.digest != built.digest
    assert larger.uri != built.uri
    assert open_pack(larger).images.shape[1] == 96
    assert open_pack(built).images.shape[1] == 64


def test_open_pack_when_many_lie_in_the_cache_then_forgets_the_oldest(dataset, monkeypatch, cache: Path):
    monkeypatch.setattr(pack, "KEPT", 2)
    packs = [build(dataset, AnomalySettings(input_size=size, resize="fit")) for size in (32, 64, 96)]
    kept = {path.name for path in (cache / "packs").iterdir()}
    assert kept == {pack.digest for pack in packs[1:]}
    assert open_pack(packs[0]).images.shape[1] == 32


def test_build_when_written_then_needs_no_pickle(dataset):
    built = build(dataset, MODEL)
    bucket, folder = split_uri(built.uri)
    card = json.loads(Storage(bucket).get(f"{folder}/pack.json"))
    assert card["digest"] == built.digest
    assert Storage(bucket).get(f"{folder}/images.npy")[:6] == b"\x93NUMPY"
