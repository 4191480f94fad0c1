"""What serving says of images that no training saw: a good one and defective ones of the test subsets."""

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


@dataclass(frozen=True)
class Verdict:
    """Serving's answer for one test sample, beside what is known of it."""

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
        """Tell whether serving agrees with the annotation."""
        return self.is_anomaly == (self.label == "anomaly")


def await_served(stack: Stack, project: str, seconds: float = _SWAP_SECONDS) -> str:
    """Wait until serving has the version that the registry says is to serve, and return it.

    Raises:
        StackError: there is none yet, or serving does not take it.
    """
    serve = load_project(project).serve
    meant = to_serve(project, serve)
    if meant is None:
        raise StackError(f"{project} has no {serve} version yet, so nothing serves")
    end = time.monotonic() + seconds
    said: dict[str, Any] = {}
    while time.monotonic() < end:
        try:
            said = requests.get(f"{stack.url('serving')}/projects/{project}/status", timeout=5).json()
        except (requests.RequestException, ValueError):
            said = {}
        if str(said.get("version")) == meant.version:
            return meant.version
        time.sleep(0.5)
    why = (said.get("refused") or {}).get("why") or (said.get("last_poll") or {}).get("problem") or "it does not answer"
    raise StackError(f"serving does not take version {meant.version} of {project} within {seconds:g} s: {why}")


def pick_samples(manifest_uri: str) -> list[dict[str, Any]]:
    """Return the first good sample of the test subsets, in order of hashes, and the first of each kind of defect.

    Nobody looked at their scores before: the verdicts are as good as the model is. At most `_KINDS` defects.
    """
    from pipelines.datasets.versions import read_manifest

    manifest = read_manifest(manifest_uri).sort_values("sha256")
    good = manifest[manifest["subset"] == "test"].head(1)
    defective = manifest[manifest["subset"] == "anomaly/test"]
    firsts = defective.assign(kind=defective["type"].fillna("")).drop_duplicates("kind").head(_KINDS)
    return [{str(name): value for name, value in row.items()} for part in (good, firsts) for _, row in part.iterrows()]


def login() -> tuple[str, str]:
    """Return the name and password of the stack's first account, whose environment this process has taken on."""
    return FIRST, os.environ.get("INSPECTLINE_ADMIN_PASSWORD", "")


def ask(stack: Stack, project: str, sample: dict[str, Any]) -> Verdict:
    """Send a sample's image to serving as a camera would.

    Raises:
        StackError: serving does not judge it.
    """
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
        said = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise StackError(f"serving does not answer at {stack.url('serving')} ({type(error).__name__})") from None
    if answer.status_code == 401:
        raise StackError(
            f"serving does not know {FIRST} by the password in {stack.secrets}: set it again with "
            f"(. {stack.secrets}; echo $INSPECTLINE_ADMIN_PASSWORD) | make account NAME={FIRST}"
        )
    if not answer.ok:
        raise StackError(f"serving answers {answer.status_code} for a test image: {said}")
    return Verdict(
        name=name,
        label=str(sample["label"]),
        type=sample["type"] if isinstance(sample["type"], str) else None,
        is_anomaly=bool(said["is_anomaly"]),
        score=float(said["anomaly_score"]),
        threshold=float(said["threshold"]),
        version=str(said["model_version"]),
        milliseconds=(time.monotonic() - began) * 1000,
    )
