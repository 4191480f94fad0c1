"""The model package: one registered version as files: `model.onnx`, `model.json`, `reference.npz` and, for fine-tuning,
`model.keras`.

`model.json` (the card) states the digest of every file, so opening a package checks all that can be checked without
running it; each fault is one `BadPackage` line. What else the card and the reference hold depends on the task: see
`pipelines.tasks.anomaly.package`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipelines.errors import BadPackage
from pipelines.storage.files import file_digest, write_atomically

FORMAT: Literal[1] = 1
CARD = "model.json"
GRAPH = "model.onnx"
REFERENCE = "reference.npz"
WEIGHTS = "model.keras"
REQUIRED = (GRAPH, REFERENCE)
NOTED_PACKAGES = ("numpy", "onnxruntime", "pillow", "keras", "tensorflow", "torch", "jax", "scikit-learn", "mlflow")

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PackageCard(BaseModel):
    """The part of `model.json` that the package of every task has.

    Attributes:
        format: version of the package format.
        task: the task that made it and can open it; `anomaly` in packages older than the field.
        project: the project's name.
        version_id: the dataset version that it was calibrated on.
        training_id: the training that made it.
        git_revision: the code that made it.
        package_versions: versions of the packages that its answers depend on.
        created_at: when it was completed.
        onnx_sha256: digest of `model.onnx`.
        files: digest of each file by name.
    """

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    format: Literal[1] = FORMAT
    task: str = "anomaly"
    project: Annotated[str, Field(min_length=1)]
    version_id: str
    training_id: str
    git_revision: str
    package_versions: dict[str, str] = Field(default_factory=dict)
    created_at: AwareDatetime
    onnx_sha256: Digest
    files: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")], Digest]


CardType = TypeVar("CardType", bound=PackageCard)


@dataclass(frozen=True)
class Package:
    """A complete model package on disk, checked by `Package.open`.

    Attributes:
        folder: where its files are.
        card: `model.json`.
        digest: SHA-256 that names it; see `package_digest`.
    """

    card_type: ClassVar[type[PackageCard]] = PackageCard

    folder: Path
    card: PackageCard
    digest: str

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Check the package in `folder` and return it.

        Raises BadPackage: a file missing or changed, a card that does not hold.
        """
        folder = Path(folder)
        card = read_card(folder, cls.card_type)
        for name in REQUIRED:
            if name not in card.files:
                raise BadPackage(f"{folder / CARD}: files does not name {name}; write the package again")
        for name, expected in card.files.items():
            path = folder / name
            if not path.is_file():
                if name in REQUIRED:
                    raise BadPackage(f"{path}: missing; fetch the package again")
                continue
            if (digest := file_digest(path)) != expected:
                digests = f"sha256 is {digest[:12]}…, {CARD} says {expected[:12]}…"
                raise BadPackage(f"{path}: {digests}; fetch the package again")
        if card.onnx_sha256 != card.files[GRAPH]:
            raise BadPackage(f"{folder / CARD}: onnx_sha256 and files.{GRAPH} differ; write the package again")
        return cls(folder, card, _digest_of(folder, card))


def read_card(folder: Path, card_type: type[CardType]) -> CardType:
    """Read and check `model.json` in `folder`. Raises BadPackage."""
    path = folder / CARD
    try:
        return card_type.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BadPackage(f"{path}: missing; this folder is not a model package") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise BadPackage(f"{path}: {where}: {first['msg']}; write the package again") from None


def write_card(folder: Path, card_type: type[CardType], fields: dict[str, Any]) -> CardType:
    """Complete the package in `folder`: digest its files and write `model.json` last, whole or not at all.

    `fields` are those of `card_type` but `files`, `onnx_sha256` and, if left out, `created_at` (now). Raises
    BadPackage if a file is missing.
    """
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise BadPackage(f"{folder / name}: missing; a package needs it before its {CARD} is written")
    files = {name: file_digest(folder / name) for name in (*REQUIRED, WEIGHTS) if (folder / name).is_file()}
    created = {"created_at": datetime.now().astimezone()}
    try:
        card = card_type.model_validate({**created, **fields, "files": files, "onnx_sha256": files[GRAPH]})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadPackage(f"{folder / CARD}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    write_atomically(folder / CARD, card.model_dump_json(indent=2) + "\n")
    return card


def package_digest(folder: Path) -> str:
    """Return the SHA-256 that names the package in `folder`: of the sorted names and digests of its files.

    Files other than `model.json` enter by the digest that it states, so a copy without `model.keras` has the
    digest of the whole.
    """
    return _digest_of(folder, read_card(folder, PackageCard))


def _digest_of(folder: Path, card: PackageCard) -> str:
    entries = sorted({**card.files, CARD: file_digest(folder / CARD)}.items())
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in entries).encode()).hexdigest()


def noted_versions() -> dict[str, str]:
    """Return the versions of those packages that an answer depends on and that are installed."""
    versions = {}
    for name in NOTED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
