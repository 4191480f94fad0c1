"""One bit depth for all images of a project: fixed by the first dataset version, kept, and used by every step."""

import numpy as np
import pytest
from sqlalchemy import update

from pipelines.catalogue import transaction
from pipelines.catalogue.schema import dataset_versions, samples
from pipelines.config.model_settings import AnomalySettings
from pipelines.config.project import load_project, read_project
from pipelines.datasets.bit_depth import descriptors_at
from pipelines.datasets.original_images import original_images
from pipelines.datasets.pack import build, open_pack
from pipelines.datasets.profile import descriptor_table
from pipelines.datasets.versions import freeze, read_manifest
from pipelines.errors import BadDataset, BadImage, SettingsError
from pipelines.images.decode import open_image
from pipelines.images.descriptors import describe
from pipelines.images.preprocess import prepare
from pipelines.ingest.submission import Posted, take_in
from tests.conftest import Projects
from tests.pipelines.hostile import textured
from tests.pipelines.image_files import png16, tiff
from tests.pipelines.ingest.conftest import Line

MODEL = AnomalySettings(input_size=64, resize="stretch")


@pytest.fixture
def line(projects: Projects, database: str, cache: object) -> Line:
    projects.write("line")
    return Line(projects.bucket)


def camera(seed: int, bits: int, darkness: int = 1, colour: bool = False) -> np.ndarray:
    """Return a picture as a camera of `bits` sees it, uint16."""
    pixels = np.asarray(textured(40, 40, seed)) // darkness
    return np.rint((pixels if colour else pixels[..., 0]).astype(float) * (2**bits - 1) / 255).astype(np.uint16)


def send(line: Line, first: int, count: int, bits: int, darkness: int = 1) -> None:
    for seed in range(first, first + count):
        line.send(f"good/{seed}.png", png16(camera(seed, bits, darkness, colour=seed % 2 == 0)))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_freeze_when_auto_then_fixes_the_least_depth_that_holds_all_samples(line: Line, bits: int):
    send(line, 0, 40, bits, darkness=8)
    line.send("good/lamp.png", png16(np.full((40, 40), 2**bits - 1, np.uint16)))
    line.ingest()
    dataset = freeze("line")
    assert dataset.bits == bits
    assert [row["bits"] for row in line.rows(dataset_versions)] == [bits]


def test_freeze_when_all_have_eight_bits_then_nothing_is_fixed_until_deep_images_come(line: Line):
    line.send_images(40)
    line.ingest()
    first = freeze("line")
    assert first.bits is None
    send(line, 100, 2, 12)
    line.ingest()
    second = freeze("line")
    assert second.bits == 12
    assert second.version_id != first.version_id


def test_freeze_when_the_depth_was_fixed_then_stays_and_brighter_images_are_refused_in_one_line(line: Line):
    send(line, 0, 40, 12, darkness=8)
    line.send("good/lamp.png", png16(np.full((40, 40), 4095, np.uint16)))
    line.ingest()
    assert freeze("line").bits == 12
    send(line, 100, 3, 10, darkness=8)
    line.send("good/bright.png", png16(camera(200, 16)))
    report = line.ingest()
    assert (report["accepted"], report["rejected"]) == (3, 1)
    reason = next(text for text in report["lines"] if "bright.png" in text)
    assert "4,095" in reason
    assert "image.bits" in reason
    assert freeze("line").bits == 12
    with pytest.raises(BadImage, match=r"image\.bits"):
        take_in(load_project("line"), Posted(png16(camera(201, 16)), "good"), "retrain")


def test_freeze_when_the_project_file_says_the_depth_then_it_holds_and_a_change_makes_another_version(
    line: Line, projects: Projects
):
    projects.write("line", image={"bits": 12})
    send(line, 0, 40, 10)
    line.ingest()
    twelve = freeze("line")
    assert twelve.bits == 12
    projects.write("line", image={"bits": 16})
    sixteen = freeze("line")
    assert sixteen.bits == 16
    assert sixteen.version_id != twelve.version_id
    projects.write("line", image={"bits": 8})
    with pytest.raises(BadDataset, match=r"image\.bits") as refusal:
        freeze("line")
    assert "\n" not in str(refusal.value)


def test_project_file_when_bits_are_none_that_there_are_then_refused(projects: Projects):
    projects.write("line", image={"bits": 11})
    with pytest.raises(SettingsError, match=r"image\.bits"):
        read_project(projects.folder / "line.yaml")


def test_freeze_when_samples_are_floats_from_0_to_1_then_fixes_that(line: Line):
    for seed in range(40):
        line.send(f"good/{seed}.tif", tiff((camera(seed, 8) / 255).astype(np.float32)))
    line.ingest()
    assert freeze("line").bits == 1


@pytest.mark.parametrize("values", [(-1, 4000), (0, 70_000)])
def test_ingest_when_samples_fit_no_bit_depth_then_rejected_by_name(line: Line, values: tuple[int, int]):
    line.send("good/odd.tif", tiff(np.linspace(*values, 1600).astype(np.int32).reshape(40, 40)))
    report = line.ingest()
    assert report["rejected"] == 1
    assert "16 bits" in next(text for text in report["lines"] if "odd.tif" in text)


def test_every_step_when_the_depth_is_fixed_then_decodes_at_it(line: Line):
    send(line, 0, 40, 12, darkness=20)  # dark enough for every image alone to look like one of ten bits or fewer
    line.send("good/lamp.png", png16(np.full((40, 40), 65535, np.uint16)))
    line.ingest()
    dataset = freeze("line")
    assert dataset.bits == 16
    manifest = read_manifest(dataset.manifest_uri)
    expected = [
        open_image(line.storage.get(key), max_pixels=10**6, min_side=1, bits=16).pixels for key in manifest["key"]
    ]
    pack = open_pack(build(dataset, MODEL))
    for number, (pixels, original) in enumerate(zip(expected, original_images("line", manifest, 16), strict=True)):
        np.testing.assert_array_equal(original, pixels)
        np.testing.assert_array_equal(pack.images[number], prepare(pixels, 64, "stretch")[0])
    table = descriptor_table("line", manifest, dataset.bits)
    brightness = [describe(pixels)["brightness"] for pixels in expected]
    np.testing.assert_allclose(table["brightness"], brightness, atol=1e-6)
    # Measured once at that depth, they are kept.
    kept = {row["sha256"]: row["descriptors"]["brightness"] for row in line.rows(samples)}
    np.testing.assert_allclose([kept[sha256] for sha256 in manifest["sha256"]], brightness, atol=1e-6)
    assert {row["described_bits"] for row in line.rows(samples)} == {16}
    hashes = list(manifest["sha256"])
    assert descriptors_at("line", hashes, 16) == descriptors_at("line", hashes, 16)


def test_freeze_when_rows_are_of_before_then_reads_the_depth_from_the_files(line: Line):
    for seed in range(40):
        line.send(f"good/{seed}.png", png16(camera(seed, 12)))
    line.ingest()
    with transaction() as connection:
        connection.execute(update(samples).values(sample_bits=None, sample_peak=None, described_bits=None))
    assert freeze("line").bits == 12
    assert all(row["sample_bits"] == 16 and row["sample_peak"] > 1023 for row in line.rows(samples))
