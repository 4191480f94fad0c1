"""The package of a classifier: its card, its reference, and the graph, ready to predict."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from numpy.typing import NDArray
from pydantic import ConfigDict, Field, field_validator

from pipelines.config.model_settings import Resize
from pipelines.errors import BadPackage
from pipelines.images.preprocess import PreparedImage
from pipelines.registry import package
from pipelines.registry.onnx_session import check_input, check_outputs, open_session
from pipelines.registry.package import GRAPH, REFERENCE, Package, PackageCard
from pipelines.registry.reference import read_reference, stored_examples

if TYPE_CHECKING:
    import onnxruntime

OUTPUTS = ("logits", "embedding")
LOGITS, LABEL = "logits", "label"  # further arrays of the reference

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ClassificationCard(PackageCard):
    """`model.json` of a classifier: all that has to be known to classify an image with `model.onnx`.

    Attributes:
        backbone: name of the pretrained encoder.
        backbone_sha256: digest of its weights before the training.
        layers: dense layers behind the embedding.
        fine_tuned: whether the upper blocks of the backbone were trained as well.
        input_size: side of the network's square input, pixels.
        resize: how an image gets there.
        bits: bit depth that images of more than eight bits per sample are scaled by; None: each by its own samples.
        classes: names of the classes, in the order of the logits.
        temperature: divides the logits (Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017).
        coverage: share of images whose class the conformal set holds, as promised.
        set_threshold: a class is in the conformal set if its probability is at least this.
        validation_images: number of images that temperature and conformal set rest on.
        onnx_tolerance: allowed difference of probabilities when the stored examples are predicted again.
        notes: sentences on what to mind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    backbone: str
    backbone_sha256: str
    layers: Annotated[int, Field(ge=1)]
    fine_tuned: bool
    input_size: Annotated[int, Field(ge=8, le=4096)]
    resize: Resize
    bits: Literal[1, 8, 10, 12, 14, 16] | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    temperature: Positive
    coverage: Annotated[float, Field(gt=0, lt=1)]
    set_threshold: Annotated[float, Field(ge=0, le=1)]
    validation_images: Annotated[int, Field(ge=1)]
    onnx_tolerance: Annotated[float, Field(ge=0)]
    notes: tuple[str, ...] = ()

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a class twice")
        return value


@dataclass(frozen=True)
class ClassificationPackage(Package):
    """A complete package of a classifier on disk.

    Attributes:
        folder: where its files are.
        card: `model.json`.
        digest: SHA-256 that names it.
        threads: threads that one run of the graph may use; 0, the default, leaves it to ONNX Runtime.
    """

    card_type: ClassVar[type[PackageCard]] = ClassificationCard

    card: ClassificationCard
    threads: int = field(default=0, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path | str, *, threads: int = 0) -> Self:
        """Check the package in `folder` and return it.

        Raises:
            BadPackage: a file is missing or changed, or it is another task's.
        """
        folder = Path(folder)
        task = package.read_card(folder, PackageCard).task
        if task != "classification":
            raise BadPackage(f"{folder}: is a package of the task {task}, not classification")
        opened = super().open(folder)
        assert isinstance(opened.card, ClassificationCard)
        return cls(opened.folder, opened.card, opened.digest, threads)

    def session(self) -> onnxruntime.InferenceSession:
        """Return the ONNX Runtime session of the graph, loaded once and safe to share between threads.

        Raises:
            BadPackage: it cannot be loaded, or has other inputs or outputs.
        """
        with self._lock:
            return self._session

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        path = self.folder / GRAPH
        session = open_session(path, self.threads)
        check_input(session, path, self.card.input_size)
        check_outputs(session, path, OUTPUTS)
        return session

    @cached_property
    def reference(self) -> dict[str, NDArray[Any]]:
        """The validation set as seen at training: `reference.npz`, `score` being the certainty, and beside it
        logits [n, classes] and label [n], the place of the class in the card.
        """
        return read_reference(self.folder / REFERENCE, (LOGITS, LABEL))

    @property
    def examples(self) -> list[PreparedImage]:
        """The first images of the reference as the graph takes them."""
        return stored_examples(self.reference)


def write_card(folder: Path, **fields: Any) -> ClassificationCard:
    """Write `model.json` of the package in `folder`; see `pipelines.registry.package.write_card`."""
    return package.write_card(folder, ClassificationCard, {"task": "classification", **fields})
