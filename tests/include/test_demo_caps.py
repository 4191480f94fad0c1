import re

import numpy as np
import pytest
from PIL import Image

from include import demo_caps
from include.demo_caps import SPECIES, draw, write_images
from pipelines.config.project import load_project
from pipelines.images.perceptual_hash import perceptual_hash
from pipelines.ingest.plan_import import plan_import


def test_cap_when_drawn_again_is_the_same():
    assert np.array_equal(draw(3, "boletus edulis", 17, 1), draw(3, "boletus edulis", 17, 1))


@pytest.mark.parametrize(
    "other", [(4, "boletus edulis", 17, 1), (3, "russula emetica", 17, 1), (3, "boletus edulis", 18, 1)]
)
def test_cap_when_seed_species_or_number_differ_is_another(other):
    assert not np.array_equal(draw(3, "boletus edulis", 17, 1), draw(*other))


@pytest.mark.parametrize("species", SPECIES)
def test_cap_of_each_species_is_a_photograph(species):
    pixels = draw(0, species, 0)

    assert pixels.shape == (192, 192, 3)
    assert pixels.dtype == np.uint8
    assert perceptual_hash(pixels) is not None


def test_mean_colour_when_compared_does_not_tell_species_apart():
    caps, kept = range(14), range(9)
    means = {(name, cap): draw(1, name, cap).reshape(-1, 3).mean(axis=0) for name in SPECIES for cap in caps}
    centres = {name: np.mean([means[name, cap] for cap in kept], axis=0) for name in SPECIES}
    right = [
        min(SPECIES, key=lambda other: float(np.linalg.norm(mean - centres[other]))) == name
        for (name, cap), mean in means.items()
        if cap not in kept
    ]

    assert np.mean(right) < 0.5


def test_set_when_written_is_a_folder_for_each_species_with_finds_photographed_twice(tmp_path):
    counts = write_images(tmp_path, per_species=4)

    assert counts == dict.fromkeys(SPECIES, 4)
    plan = plan_import(tmp_path, task="classification")
    assert {image.label for image in plan.images} == set(SPECIES)
    rule = load_project("mushrooms").group.regex
    finds = [re.search(rule, f"x/{image.file.name}")[1] for image in plan.images]
    assert len(set(finds)) == 20
    with Image.open(plan.images[0].file) as image:
        assert image.size == (192, 192)


def test_set_when_interrupted_is_completed_and_the_rest_left_alone(tmp_path):
    write_images(tmp_path, per_species=1)
    first, second = sorted(tmp_path.glob("*/*.jpg"))[:2]
    before = first.read_bytes(), first.stat().st_mtime_ns
    second.unlink()

    write_images(tmp_path, per_species=1)

    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    assert len(list(tmp_path.glob("*/*.jpg"))) == 10


def test_command_when_run_says_what_it_wrote(tmp_path, capsys):
    assert demo_caps.main([str(tmp_path), "--per-species", "1"]) == 0

    assert capsys.readouterr().out.startswith("1 amanita muscaria")
