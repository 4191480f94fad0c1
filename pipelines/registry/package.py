"""The model package: a folder with `model.onnx`, `model.json`, `reference.npz` and, for fine-tuning,
`model.keras`.

The threshold and the way images are resized live inside it, so that serving cannot drift from evaluation.
Opening a package checks everything that can be checked without running it; each fault is one `BadPackage` line.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipelines.config.project import Resize
from pipelines.errors import BadPackage, first_line
from pipelines.images.preprocess import PreparedImage
from pipelines.tasks.anomaly.onnx_graph import ScoringGraph

if TYPE_CHECKING:
    import onnxruntime

FORMAT: Literal[1] = 1
CARD = "model.json"
GRAPH = "model.onnx"
REFERENCE = "reference.npz"
WEIGHTS = "model.keras"
REQUIRED = (GRAPH, REFERENCE)
REFERENCE_ARRAYS = ("score", "embedding", "sha256", "descriptors", "descriptor_names")
# Optional in the reference: the tiles of some images one after the other, and of each image [tiles, height, width].
EXAMPLES, EXAMPLE_SHAPES = "examples", "example_shapes"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class ScoreRange(BaseModel):
    """How the anomaly score is spread over the good validation images.

    What a score means beside the threshold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    p50: Finite
    p99: Finite
    max: Finite


class ModelCard(BaseModel):
    """`model.json`: all that has to be known to score an image with `model.onnx`, and where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: Literal[1] = FORMAT
    project: Annotated[str, Field(min_length=1)]
    preset: str
    input_size: Annotated[int, Field(ge=8, le=4096)]
    resize: Resize
    threshold: Finite
    threshold_policy: str
    threshold_detail: dict[str, Any] = Field(default_factory=dict)
    score_range: ScoreRange
    version_id: str
    training_id: str
    git_revision: str
    package_versions: dict[str, str] = Field(default_factory=dict)
    created_at: AwareDatetime
    onnx_sha256: Digest
    onnx_tolerance: Annotated[float, Field(ge=0)]
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")], Digest]


@dataclass(frozen=True)
class Package:
    """A complete model package on disk, checked by `Package.open`."""

    folder: Path
    card: ModelCard
    graph: ScoringGraph
    digest: str

    @classmethod
    def open(cls, folder: Path | str, *, threads: int = 0) -> Self:
        """Check the package in `folder` and return it.

        Raises BadPackage: a file missing or changed, a card that does not hold.
        """
        folder = Path(folder)
        card = read_card(folder)
        for name in REQUIRED:
            if name not in card.files:
                raise BadPackage(f"{folder / CARD}: files does not name {name}; write the package again")
        for name, expected in card.files.items():
            path = folder / name
            if not path.is_file():
                if name in REQUIRED:
                    raise BadPackage(f"{path}: missing; fetch the package again")
                continue
            if (found := file_digest(path)) != expected:
                digests = f"sha256 is {found[:12]}…, {CARD} says {expected[:12]}…"
                raise BadPackage(f"{path}: {digests}; fetch the package again")
        if card.onnx_sha256 != card.files[GRAPH]:
            raise BadPackage(f"{folder / CARD}: onnx_sha256 and files.{GRAPH} differ; write the package again")
        graph = ScoringGraph(folder / GRAPH, card.input_size, card.resize, threads)
        return cls(folder, card, graph, _digest_of(folder, card))

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
        tiles = self.reference.get(EXAMPLES)
        if tiles is None:
            return []
        shapes = self.reference.get(EXAMPLE_SHAPES, np.array([(1, *tiles.shape[1:3])] * len(tiles)))
        parts = np.split(tiles, np.cumsum(shapes[:, 0])[:-1])
        return [PreparedImage(part, int(shape[1]), int(shape[2])) for part, shape in zip(parts, shapes, strict=True)]


def read_card(folder: Path) -> ModelCard:
    """Read and check `model.json` in `folder`. Raises BadPackage."""
    path = folder / CARD
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BadPackage(f"{path}: missing; this folder is not a model package") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise BadPackage(f"{path}: {where}: {first['msg']}; write the package again") from None


def write_card(folder: Path, **fields: Any) -> ModelCard:
    """Complete the package in `folder`: digest its files and write `model.json` last, whole or not at all.

    `fields` are those of ModelCard but `files`, `onnx_sha256` and, if left out, `created_at` (now). Raises
    BadPackage if a file is missing.
    """
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise BadPackage(f"{folder / name}: missing; a package needs it before its {CARD} is written")
    files = {name: file_digest(folder / name) for name in (*REQUIRED, WEIGHTS) if (folder / name).is_file()}
    fields.setdefault("created_at", datetime.now().astimezone())
    try:
        card = ModelCard.model_validate({**fields, "files": files, "onnx_sha256": files[GRAPH]})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadPackage(f"{folder / CARD}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    partial = folder / f"{CARD}.partial"
    partial.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / CARD)
    return card


def write_reference(
    folder: Path,
    *,
    score: NDArray[np.float32],
    embedding: NDArray[np.float32],
    sha256: list[str],
    descriptors: NDArray[np.float64],
    descriptor_names: list[str],
    examples: Sequence[PreparedImage] = (),
) -> Path:
    """Write `reference.npz` into `folder`.

    Score [n], embedding [n, d], n digests, descriptors [n, k] and their k names. No pickles. `examples` are the first
    images as prepared: serving scores them again before it takes a version.
    """
    path = folder / REFERENCE
    stored: dict[str, Any] = {}
    if examples:
        stored[EXAMPLES] = np.concatenate([one.tiles for one in examples])
        stored[EXAMPLE_SHAPES] = np.array([(len(one.tiles), one.height, one.width) for one in examples])
    np.savez_compressed(
        path,
        score=np.asarray(score, np.float32),
        embedding=np.asarray(embedding, np.float32),
        sha256=np.asarray(sha256, "U64"),
        descriptors=np.asarray(descriptors, np.float64),
        descriptor_names=np.asarray(descriptor_names, np.str_),
        **stored,
    )
    return path


def read_reference(path: Path) -> dict[str, NDArray[Any]]:
    """Read `reference.npz` without unpickling anything.

    Raises BadPackage if arrays are missing or of different lengths.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            optional = [name for name in (EXAMPLES, EXAMPLE_SHAPES) if name in archive.files]
            arrays = {name: archive[name] for name in (*REFERENCE_ARRAYS, *optional)}
    except KeyError as error:
        raise BadPackage(f"{path}: {first_line(error)}; write the package again") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadPackage(f"{path}: not a readable reference: {first_line(error)}; fetch the package again") from None
    n, k = len(arrays["score"]), len(arrays["descriptor_names"])
    fit = arrays["score"].shape == (n,) == arrays["sha256"].shape and arrays["descriptors"].shape == (n, k)
    if not fit or arrays["embedding"].ndim != 2 or len(arrays["embedding"]) != n:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise BadPackage(f"{path}: arrays do not fit together ({shapes}); write the package again")
    return arrays


def package_digest(folder: Path) -> str:
    """Return the SHA-256 that names the package in `folder`: of the sorted names and digests of its files.

    Files other than `model.json` enter by the digest that it states, so a copy without `model.keras` has the
    digest of the whole.
    """
    return _digest_of(folder, read_card(folder))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of(folder: Path, card: ModelCard) -> str:
    entries = sorted({**card.files, CARD: file_digest(folder / CARD)}.items())
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in entries).encode()).hexdigest()
