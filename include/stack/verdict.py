"""Query serving about test images, which training never uses: a good one and defective ones."""

import os
import time
from dataclasses import dataclass
from typing import Any

import requests

from include.stack.errors import StackError
from include.stack.layout import Stack
from pipelines.catalogue.users import FIRST
from pipelines.config.project import load_project
from pipelines.registry.pinning import to_serve
from pipelines.storage.s3 import Storage

_SWAP_SECONDS = 90.0
_KINDS = 4
_CLASSES = 5


@dataclass(frozen=True)
class Verdict:
    """Serving's answer for one test sample, beside its annotation."""

    name: str
    label: str
    type: str | None
    is_anomaly: bool
    score: float
    threshold: float
    version: str
    milliseconds: float

    @property
    def right(self) -> bool:
        """Return whether serving agrees with the annotation."""
        return self.is_anomaly == (self.label == "anomaly")


@dataclass(frozen=True)
class ClassVerdict:
    """A classifier's answer for one test sample, beside its annotation; `others` are the next classes."""

    name: str
    label: str
    named: str
    certainty: float
    unsure: bool
    others: tuple[tuple[str, float], ...]
    version: str
    milliseconds: float

    @property
    def right(self) -> bool:
        """Return whether serving agrees with the annotation."""
        return self.named == self.label


def await_served(stack: Stack, project: str, seconds: float = _SWAP_SECONDS) -> str:
    """Wait until serving has loaded the version to serve according to the registry, and return it.

    Raises:
        StackError: there is none yet, or serving does not load it.
    """
    serve = load_project(project).serve
    meant = to_serve(project, serve)
    if meant is None:
        raise StackError(f"{project} has no {serve} version yet, so nothing serves")
    end = time.monotonic() + seconds
    status: dict[str, Any] = {}
    while time.monotonic() < end:
        try:
            status = requests.get(f"{stack.url('serving')}/projects/{project}/status", timeout=5).json()
        except (requests.RequestException, ValueError):
            status = {}
        if str(status.get("version")) == meant.version:
            return meant.version
        time.sleep(0.5)
    why = (
        (status.get("refused") or {}).get("why")
        or (status.get("last_poll") or {}).get("problem")
        or "it does not answer"
    )
    raise StackError(f"serving does not take version {meant.version} of {project} within {seconds:g} s: {why}")


def pick_samples(manifest_uri: str) -> list[dict[str, Any]]:
    """Return the first good sample of the test subsets, in order of hashes, and the first of each kind of defect.

    The choice does not depend on their scores, so that the verdicts reflect the model. At most `_KINDS` defects.
    """
    from pipelines.datasets.versions import read_manifest

    manifest = read_manifest(manifest_uri).sort_values("sha256")
    good = manifest[manifest["subset"] == "test"].head(1)
    defective = manifest[manifest["subset"] == "anomaly/test"]
    firsts = defective.assign(kind=defective["type"].fillna("")).drop_duplicates("kind").head(_KINDS)
    return [{str(name): value for name, value in row.items()} for part in (good, firsts) for _, row in part.iterrows()]


def pick_of_classes(manifest_uri: str) -> list[dict[str, Any]]:
    """Return the first test sample of each class, in order of hashes, of at most `_CLASSES` classes."""
    from pipelines.datasets.versions import read_manifest

    manifest = read_manifest(manifest_uri).sort_values("sha256")
    firsts = manifest[manifest["subset"] == "test"].drop_duplicates("label").sort_values("label").head(_CLASSES)
    return [{str(name): value for name, value in row.items()} for _, row in firsts.iterrows()]


def login() -> tuple[str, str]:
    """Return name and password of the stack's first account, from this process's environment."""
    return FIRST, os.environ.get("INSPECTLINE_ADMIN_PASSWORD", "")


def ask(stack: Stack, project: str, sample: dict[str, Any]) -> Verdict:
    """Send a sample's image to serving as a camera would.

    Raises:
        StackError: serving returns no verdict.
    """
    name, content, milliseconds = _answer(stack, project, sample)
    return Verdict(
        name=name,
        label=str(sample["label"]),
        type=sample["type"] if isinstance(sample["type"], str) else None,
        is_anomaly=bool(content["is_anomaly"]),
        score=float(content["anomaly_score"]),
        threshold=float(content["threshold"]),
        version=str(content["model_version"]),
        milliseconds=milliseconds,
    )


def ask_class(stack: Stack, project: str, sample: dict[str, Any]) -> ClassVerdict:
    """Send a sample's image to the serving of a classifier as a person would.

    Raises:
        StackError: serving returns no verdict.
    """
    name, content, milliseconds = _answer(stack, project, sample)
    return ClassVerdict(
        name=name,
        label=str(sample["label"]),
        named=str(content["class"]),
        certainty=float(content["certainty"]),
        unsure=bool(content["unsure"]),
        others=tuple(
            (str(entry["class"]), float(entry["probability"]))
            for entry in content["classes"]
            if entry["class"] != content["class"]
        ),
        version=str(content["model_version"]),
        milliseconds=milliseconds,
    )


def _answer(stack: Stack, project: str, sample: dict[str, Any]) -> tuple[str, dict[str, Any], float]:
    """Return the name of a sample's file, serving's answer for its image, and the time it took in milliseconds."""
    data = Storage(load_project(project).bucket).get(sample["key"])
    name = str(sample["key"]).rpartition("/")[2]
    began = time.monotonic()
    try:
        answer = requests.post(
            f"{stack.url('serving')}/projects/{project}/predict",
            files={"file": (name, data)},
            auth=login(),
            timeout=60,
        )
        content = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise StackError(f"serving does not answer at {stack.url('serving')} ({type(error).__name__})") from None
    if answer.status_code == 401:
        raise StackError(
            f"serving does not know {FIRST} by the password in {stack.secrets}: set it again with "
            f"(. {stack.secrets}; echo $INSPECTLINE_ADMIN_PASSWORD) | make account NAME={FIRST}"
        )
    if not answer.ok:
        raise StackError(f"serving answers {answer.status_code} for a test image: {content}")
    return name, content, (time.monotonic() - began) * 1000
