"""The package of an anomaly detector: its card, its reference, and the graph, ready to score.

The threshold and the way images are resized live in the card, so that serving cannot drift from evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.config.model_settings import AnomalyResize
from pipelines.images.preprocess import PreparedImage
from pipelines.registry import package
from pipelines.registry.package import GRAPH, REFERENCE, Package, PackageCard
from pipelines.registry.reference import read_reference, stored_examples
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph
from pipelines.tasks.anomaly.threshold_report import ThresholdReport

if TYPE_CHECKING:
    import onnxruntime

Finite = Annotated[float, Field(allow_inf_nan=False)]


class ScoreRange(BaseModel):
    """How the anomaly score is spread over the good validation images: what a score means beside the threshold.

    Attributes:
        p50: the median.
        p99: the 99th percentile.
        max: the largest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    p50: Finite
    p99: Finite
    max: Finite


class AnomalyCard(PackageCard):
    """`model.json` of an anomaly detector: all that has to be known to score an image with `model.onnx`.

    Attributes:
        preset: the network.
        input_size: side of the network's square input, pixels.
        resize: how an image gets there.
        bits: bit depth that images of more than eight bits per sample are scaled by; None: each by its own samples.
        threshold: an anomaly score above it is an anomaly.
        threshold_policy: the policy that set it.
        threshold_detail: how it was set; None in packages of older versions that kept less.
        score_range: how good validation images score.
        onnx_tolerance: allowed difference of anomaly scores when the stored examples are scored again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    preset: str
    input_size: Annotated[int, Field(ge=8, le=4096)]
    resize: AnomalyResize
    bits: Literal[1, 8, 10, 12, 14, 16] | None = None
    threshold: Finite
    threshold_policy: str
    threshold_detail: ThresholdReport | None = None
    score_range: ScoreRange
    onnx_tolerance: Annotated[float, Field(ge=0)]

    @field_validator("threshold_detail", mode="before")
    @classmethod
    def _known_form(cls, value: Any) -> Any:
        """Return None for the report of a package that an older version wrote in another form."""
        known = {each.name for each in fields(ThresholdReport)}
        return None if isinstance(value, dict) and not known - {"notes"} <= set(value) <= known else value


@dataclass(frozen=True)
class AnomalyPackage(Package):
    """A complete package of an anomaly detector on disk.

    Attributes:
        folder: where its files are.
        card: `model.json`.
        digest: SHA-256 that names it.
        threads: threads that one run of the graph may use; 0, the default, leaves it to ONNX Runtime.
    """

    card_type: ClassVar[type[PackageCard]] = AnomalyCard

    card: AnomalyCard
    threads: int = field(default=0, compare=False)

    @classmethod
    def open(cls, folder: Path | str, *, threads: int = 0) -> Self:
        """Check the package in `folder` and return it. Raises BadPackage as `Package.open` does."""
        opened = super().open(folder)
        assert isinstance(opened.card, AnomalyCard)
        return cls(opened.folder, opened.card, opened.digest, threads)

    @cached_property
    def graph(self) -> ScoringGraph:
        """The graph with what `predict` has to know of it."""
        return ScoringGraph(self.folder / GRAPH, self.card.input_size, self.card.resize, self.threads)

    def session(self) -> onnxruntime.InferenceSession:
        """Return the ONNX Runtime session of the graph; see `ScoringGraph.session`."""
        return self.graph.session()

    @cached_property
    def reference(self) -> dict[str, NDArray[Any]]:
        """The validation set as seen at training.

        Score [n], embedding [n, d], sha256 [n], descriptors [n, k], descriptor_names [k]; `examples` has the rest.
        """
        return read_reference(self.folder / REFERENCE)

    @property
    def examples(self) -> list[PreparedImage]:
        """The first images of the reference as the graph takes them, if any are kept: its first scores are theirs."""
        return stored_examples(self.reference)


def read_card(folder: Path) -> AnomalyCard:
    """Read and check `model.json` in `folder`. Raises BadPackage."""
    return package.read_card(folder, AnomalyCard)


def write_card(folder: Path, **fields: Any) -> AnomalyCard:
    """Write `model.json` of the package in `folder`; see `pipelines.registry.package.write_card`."""
    return package.write_card(folder, AnomalyCard, {"task": "anomaly", **fields})
