"""Reads a set of real images with a training and a test split, such as MVTec AD's layout."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import InspectlineError
from pipelines.images.decode import open_image
from pipelines.images.masks import open_mask
from pipelines.ingest.import_plan import BadFolder, PlannedImage
from pipelines.ingest.plan_import import plan_import

MAX_PIXELS = 50_000_000
HELD_BACK = 0.25
MOST_HELD_BACK = 200
LEAST_TRAINING = 16  # 12 to train on and 4 to hold back


class BadSet(InspectlineError):
    """A folder cannot be measured on."""


@dataclass(frozen=True)
class TestImage:
    """A test image.

    Attributes:
        file: its file.
        type: `good`, or the type of its defect.
        masks: files of its masks, which are merged.
    """

    __test__ = False  # keeps pytest from collecting it

    file: Path
    type: str
    masks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ImageSet:
    """A set of images.

    Attributes:
        name: name of its folder.
        training: files of the good images to train on.
        test: the test images.
    """

    name: str
    training: list[Path]
    test: list[TestImage]

    def split(self, seed: int) -> tuple[list[Path], list[Path]]:
        """Return the images to train on, and those held back for the threshold: a quarter, at most 200."""
        order = np.random.default_rng([seed, 77]).permutation(len(self.training))
        held_back = min(MOST_HELD_BACK, round(HELD_BACK * len(order)))
        chosen = {int(place) for place in order[:held_back]}
        parts: tuple[list[Path], list[Path]] = ([], [])
        for place, file in enumerate(self.training):
            parts[place in chosen].append(file)
        return parts

    def digest(self) -> str:
        """Return a digest of the names and sizes of all files."""
        files = [
            *self.training,
            *(image.file for image in self.test),
            *(mask for image in self.test for mask in image.masks),
        ]
        listing = "\n".join(sorted(f"{file.parent.name}/{file.name} {file.stat().st_size}" for file in files))
        return hashlib.sha256(listing.encode()).hexdigest()[:16]


def read_set(folder: Path, types: list[str] | None = None) -> ImageSet:
    """Read the file names of a set, which needs 16 good training images; `types` keeps only these defect types.

    Raises BadSet.
    """
    if not folder.is_dir():
        raise BadSet(f"{folder}: there is no such folder")
    plan = plan_import(folder)
    try:
        plan.check()
    except BadFolder as error:
        raise BadSet(str(error)) from None
    training = [entry.file for entry in plan.images if entry.split == "train" and entry.label == "good"]
    test = [
        TestImage(entry.file, _type(entry), entry.masks)
        for entry in plan.images
        if entry.split == "test" and entry.label
    ]
    present = sorted({entry.type for entry in test} - {"good"})
    if types:
        if unknown := sorted(set(types) - set(present)):
            raise BadSet(f"{folder}: has no test/{unknown[0]}/; there are {', '.join(present) or 'none'}")
        test = [entry for entry in test if entry.type == "good" or entry.type in types]
        present = types
    if len(training) < LEAST_TRAINING:
        raise BadSet(f"{folder}: has {len(training)} images in train/good/, and {LEAST_TRAINING} are needed")
    if not present or not any(entry.type == "good" for entry in test):
        raise BadSet(f"{folder}: needs test/good/ and at least one test/<defect>/")
    return ImageSet(folder.resolve().name, training, test)


def _type(entry: PlannedImage) -> str:
    return "good" if entry.label == "good" else entry.type or "anomaly"


def read_pixels(file: Path) -> NDArray[np.uint8]:
    """Return an image as the pipeline decodes it, uint8 [H, W, 3]. Raises BadImage."""
    return open_image(file.read_bytes(), max_pixels=MAX_PIXELS, min_side=1).pixels


def read_mask(image: TestImage, height: int, width: int) -> NDArray[np.bool_] | None:
    """Return the mask of a test image, bool [height, width]; None for a defect without a mask."""
    if image.type == "good":
        return np.zeros((height, width), dtype=bool)
    masks = [open_mask(mask.read_bytes(), (width, height)) for mask in image.masks]
    return np.logical_or.reduce(masks) if masks else None
