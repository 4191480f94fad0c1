"""Reads a set of real images in MVTec AD's layout for measuring: `train/good`, `test/<type>`, `ground_truth/<type>`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InspectlineError
from pipelines.images.decode import open_image, open_mask
from pipelines.ingest.folder_layouts import find_images

MAX_PIXELS = 50_000_000
HELD_BACK = 0.25
MOST_HELD_BACK = 200
LEAST_TRAINING = 16  # to fit on and to hold back together: 12 and 4


class BadSet(InspectlineError):
    """A folder cannot be measured on."""


@dataclass(frozen=True)
class TestImage:
    """One test image: its file, its type (`good`, or the defect's) and the file of its mask, if it has one."""

    __test__ = False  # not a test, whatever pytest makes of the name

    file: Path
    type: str
    mask: Path | None


@dataclass(frozen=True)
class ImageSet:
    """One set: the good images to train on, and all test images."""

    name: str
    training: list[Path]
    test: list[TestImage]

    def split(self, seed: int) -> tuple[list[Path], list[Path]]:
        """Return the images to fit on, and those held back for the threshold: a quarter, at most 200."""
        order = np.random.default_rng([seed, 77]).permutation(len(self.training))
        held_back = min(MOST_HELD_BACK, round(HELD_BACK * len(order)))
        chosen = {int(place) for place in order[:held_back]}
        parts: tuple[list[Path], list[Path]] = ([], [])
        for place, file in enumerate(self.training):
            parts[place in chosen].append(file)
        return parts

    def digest(self) -> str:
        """Return a name of the images' names and sizes: another set of files has another."""
        files = [*self.training, *(one.file for one in self.test), *(one.mask for one in self.test if one.mask)]
        told = "\n".join(sorted(f"{file.parent.name}/{file.name} {file.stat().st_size}" for file in files))
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def read_set(folder: Path, types: list[str] | None = None) -> ImageSet:
    """Read a set's file names, of at least 16 good training images; `types` keeps only these defect types.

    Raises BadSet.
    """
    if not folder.is_dir():
        raise BadSet(f"{folder}: there is no such folder")
    found, _ = find_images(folder)
    training = [one.file for one in found if one.split == "train" and one.folder == "good"]
    test = [
        TestImage(one.file, one.folder.removeprefix("anomaly/"), one.mask)
        for one in found
        if one.split == "test" and (one.folder == "good" or one.folder.startswith("anomaly/"))
    ]
    present = sorted({one.type for one in test} - {"good"})
    if types:
        if unknown := sorted(set(types) - set(present)):
            raise BadSet(f"{folder}: has no test/{unknown[0]}/; there are {', '.join(present) or 'none'}")
        test = [one for one in test if one.type == "good" or one.type in types]
        present = types
    if len(training) < LEAST_TRAINING:
        raise BadSet(f"{folder}: has {len(training)} images in train/good/, and {LEAST_TRAINING} are needed")
    if not present or not any(one.type == "good" for one in test):
        raise BadSet(f"{folder}: needs test/good/ and at least one test/<defect>/")
    return ImageSet(folder.resolve().name, training, test)


def read_pixels(file: Path) -> NDArray[np.uint8]:
    """Return an image as the pipeline decodes it, uint8 [H, W, 3]. Raises BadImage."""
    return open_image(file.read_bytes(), max_pixels=MAX_PIXELS, min_side=1).pixels


def read_mask(image: TestImage, height: int, width: int) -> NDArray[np.bool_] | None:
    """Return the mask of a test image, bool [height, width]; None for a defect whose pixels are unknown."""
    if image.type == "good":
        return np.zeros((height, width), dtype=bool)
    return open_mask(image.mask.read_bytes(), (width, height)) if image.mask else None
