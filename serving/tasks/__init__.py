"""What serving has to know of a task: one module each behind the protocol `ServedModel`, and the table that finds them.

A new task is one module with a class that implements the protocol, and one line in `_MODULES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.project import Project
from pipelines.errors import BadPackage
from pipelines.images.preprocess import PreparedImage
from pipelines.registry.package import CARD, Package, PackageCard, read_card

# Images in one run: larger batches are no faster per image, and delay the first image. A batch of four would take 30 MB
# less memory, and a tenth more time.
MOST_AT_ONCE = 8

_MODULES = {
    "anomaly": ("serving.tasks.anomaly", "ServedDetector"),
    "classification": ("serving.tasks.classification", "ServedClassifier"),
}


class Output(Protocol):
    """What a task's `predict` returns for one image, as far as serving looks at it."""

    @property
    def embedding(self) -> NDArray[np.float32]:
        """The image's embedding, float32 [d]."""
        ...


@dataclass(frozen=True)
class Judgement:
    """What a version answers about an image.

    Attributes:
        answer: the fields of `POST /predict` that differ between tasks.
        columns: the columns of the catalogue's `predictions` that hold the answer.
        verdict: the answer in one word, for the metrics; one of a handful.
    """

    answer: dict[str, Any]
    columns: dict[str, Any] = field(default_factory=dict)
    verdict: str = ""


class ServedModel(Protocol):
    """A package of one task, opened and checked on its stored examples; immutable, shared between threads.

    Attributes:
        task: the task's name.
        draws_maps: whether there is a heat map.
        package: the package.
    """

    task: ClassVar[str]
    draws_maps: ClassVar[bool]

    @property
    def package(self) -> Package:
        """The package, with its ONNX Runtime session."""
        ...

    @property
    def bits(self) -> int | None:
        """The bit depth that images of more than eight bits are scaled by; None: each by its own samples."""
        ...

    @classmethod
    def open(cls, folder: Path, threads: int) -> Self:
        """Open the package in `folder`, and predict its stored examples again.

        Raises:
            BadPackage: it is incomplete or altered, or does not reproduce what is stored.
        """
        ...

    def following(self, project: Project) -> Self:
        """Return the model with the settings of the project file that serving alone applies; itself if unchanged."""
        ...

    def prepare(self, pixels: NDArray[np.uint8]) -> PreparedImage:
        """Return an image, uint8 [H, W, 3], as the network takes it."""
        ...

    def run(self, images: Sequence[PreparedImage]) -> Sequence[Any]:
        """Run the network on at most `MOST_AT_ONCE` images, and return an `Output` for each."""
        ...

    def result(self, output: Any) -> Any:
        """Return the part of an output that `judge` takes; it is cached for each image, so it is small."""
        ...

    def judge(self, result: Any) -> Judgement:
        """Return the answer for a result."""
        ...

    def draw(self, picture: Image.Image, output: Any) -> bytes:
        """Return the heat map of an output over its image, as PNG; only where `draws_maps`."""
        ...

    def report(self) -> dict[str, Any]:
        """Return what `GET /status` says of this model beyond its version."""
        ...


# What `report` says of every task, while nothing is served as well.
NOTHING_SERVED: dict[str, Any] = {"threshold": None, "review_threshold": None, "threshold_policy": None}


def open_model(folder: Path, threads: int) -> ServedModel:
    """Return the model in `folder`, of the task that `model.json` names, checked; a run uses `threads` threads.

    Raises:
        BadPackage: it cannot serve.
    """
    task = read_card(folder, PackageCard).task
    if task not in _MODULES:
        raise BadPackage(f"{folder / CARD}: the task is {task!r}, of which this server knows nothing; update serving")
    module, name = _MODULES[task]
    opened: ServedModel = getattr(import_module(module), name).open(folder, threads)
    return opened


def ramp(side: int) -> NDArray[np.uint8]:
    """Return a synthetic image, uint8 [side, side, 3], for a package without stored examples."""
    return np.dstack([np.broadcast_to(np.linspace(0, 255, side).astype(np.uint8), (side, side))] * 3)
