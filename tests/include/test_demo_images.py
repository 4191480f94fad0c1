import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from include import demo_images
from include.demo_images import DEFECTS, draw, write_images
from pipelines.images.descriptors import describe


def test_image_when_drawn_again_is_the_same():
    first, again = draw(3, 17, "stain"), draw(3, 17, "stain")

    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


@pytest.mark.parametrize(("seed", "number"), [(4, 17), (3, 18)])
def test_image_when_seed_or_number_differ_is_another(seed, number):
    assert not np.array_equal(draw(3, 17)[0], draw(seed, number)[0])


def test_image_when_good_has_an_empty_mask():
    pixels, mask = draw(0, 5)

    assert pixels.shape == (192, 192, 3)
    assert pixels.dtype == np.uint8
    assert mask.shape == (192, 192)
    assert not mask.any()


@settings(max_examples=40)
@given(number=st.integers(0, 100_000), defect=st.sampled_from(DEFECTS))
def test_defect_when_drawn_changes_the_cell_at_its_mask_and_hardly_elsewhere(number, defect):
    good, _ = draw(0, number)
    bad, mask = draw(0, number, defect)
    change = np.abs(good.astype(int) - bad).max(axis=2)

    assert 15 <= mask.sum() <= mask.size * 0.1
    assert change[mask].mean() > 4 * change[~_grown(mask)].mean()
    assert change[mask].mean() > 1.5


def _grown(mask, by=6):
    """Return the mask with a margin: a defect's faint seam, and the camera's blur."""
    padded = np.pad(mask, by)
    side = mask.shape[0]
    shifted = [padded[dy : dy + side, dx : dx + side] for dy in range(2 * by + 1) for dx in range(2 * by + 1)]
    return np.any(shifted, axis=0)


def test_plain_figures_when_compared_do_not_tell_defects_apart():
    good = [describe(draw(1, number)[0]) for number in range(150)]
    bad = [describe(draw(1, 10_000 + number, DEFECTS[number % 4])[0]) for number in range(60)]

    for name in ("brightness", "contrast", "sharpness", "saturation", "noise", "entropy", "highlights", "warmth"):
        here, there = (np.array([each[name] for each in images]) for images in (good, bad))
        auroc = (there[:, None] > here).mean() + (there[:, None] == here).mean() / 2
        assert 0.33 < auroc < 0.67, name


def test_light_when_many_are_drawn_varies():
    brightness = [describe(draw(2, number)[0])["brightness"] for number in range(60)]

    assert max(brightness) - min(brightness) > 0.08


def test_set_when_written_holds_images_with_masks_beside_the_anomalies(tmp_path):
    counts = write_images(tmp_path, good=5, anomalies=4)

    assert counts == {"good": 5, "scratch": 1, "dent": 1, "stain": 1, "missing_weld": 1}
    assert len(list((tmp_path / "good").glob("*.jpg"))) == 5
    for path in (tmp_path / "anomaly").glob("*/*.jpg"):
        with Image.open(path) as image, Image.open(path.with_name(f"{path.stem}_mask.png")) as mask:
            assert image.size == mask.size == (192, 192)
            assert np.asarray(mask).any()


def test_set_when_interrupted_is_completed_and_the_rest_left_alone(tmp_path):
    write_images(tmp_path, good=3, anomalies=0)
    kept = tmp_path / "good" / "cell_00000.jpg"
    before = kept.read_bytes(), kept.stat().st_mtime_ns
    (tmp_path / "good" / "cell_00001.jpg").unlink()

    write_images(tmp_path, good=3, anomalies=0)

    assert (kept.read_bytes(), kept.stat().st_mtime_ns) == before
    assert len(list((tmp_path / "good").glob("*.jpg"))) == 3


def test_set_when_nothing_is_said_has_600_images_and_enough_for_a_promise_of_one_percent():
    assert demo_images.GOOD + demo_images.ANOMALIES >= 600
    assert demo_images.GOOD * 0.2 >= 99


def test_command_when_run_says_what_it_wrote(tmp_path, capsys):
    assert demo_images.main([str(tmp_path), "--good", "1", "--anomalies", "1"]) == 0

    assert capsys.readouterr().out.startswith("1 good, 1 scratch, 0 dent")
