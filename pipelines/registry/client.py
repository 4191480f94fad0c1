"""What MLflow's model registry holds, over its REST interface alone: what thin serving needs.

A registered model is named as its project. Packages come into the local cache by their digest, checked; several
processes may fetch the same one.
"""

import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pipelines.config.settings import settings
from pipelines.errors import BadPackage, RegistryError
from pipelines.registry.package import CARD, REQUIRED, WEIGHTS, Package, PackageCard, package_digest, read_card
from pipelines.registry.rest import ask, call, save, shown
from pipelines.storage.s3 import Storage

CHAMPION = "champion"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a project's registered model; `digest` is the package's SHA-256 as registered, or empty."""

    project: str
    version: str
    run_id: str = ""
    tags: dict[str, str] = field(default_factory=dict, hash=False)
    created_at: str | None = field(default=None, compare=False)  # as ISO 8601 in UTC

    @property
    def digest(self) -> str:
        """The tag `package_sha256`."""
        return self.tags.get("package_sha256", "")


def champion(project: str, alias: str = CHAMPION) -> RegisteredVersion | None:
    """Return the version that `alias` names, or None if the registry says that there is none.

    Raises:
        RegistryError: any other answer, or none.
    """
    answer = call("registered-models/alias", {"name": project, "alias": alias})
    return as_version(answer["model_version"]) if answer else None


def latest(project: str) -> RegisteredVersion | None:
    """Return the newest version, whatever its aliases, or None if there is none.

    Raises:
        RegistryError: the registry gives no answer that can be used.
    """
    newest = versions(project, 1)
    return newest[0] if newest else None


def versions(project: str, limit: int, before: str = "") -> list[RegisteredVersion]:
    """Return up to `limit` versions, newest first; with `before`, a version's number, those older than it.

    Raises:
        RegistryError: the registry gives no answer that can be used.
    """
    quoted = project.replace("'", "''")
    wanted = f"name='{quoted}'" + (f" AND version_number < {int(before)}" if before else "")
    query = {"filter": wanted, "max_results": limit, "order_by": "version_number DESC"}
    answer = call("model-versions/search", query) or {}
    return [as_version(version) for version in answer.get("model_versions", [])]


def aliases(project: str) -> dict[str, list[str]]:
    """Return the aliases by version. Raises RegistryError if the registry gives no answer that can be used."""
    model = (call("registered-models/get", {"name": project}) or {}).get("registered_model", {})
    by_version: dict[str, list[str]] = {}
    for alias in model.get("aliases", []):
        by_version.setdefault(str(alias["version"]), []).append(alias["alias"])
    return by_version


def missing_files(version: RegisteredVersion) -> list[str]:
    """Return the files that a package must have and that the registry does not list.

    MLflow calls a missing file a fault of its own (500): only its list tells that from a registry that is down.

    Raises:
        RegistryError: it gives no list.
    """
    source, needed = _source(version), (CARD, *REQUIRED)
    if source.startswith("s3://"):
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        return [name for name in needed if not Storage(bucket).exists(f"{prefix}/{name}")]
    server, _, folder = source.partition(f"{_ARTIFACTS}/")
    if not folder:
        raise RegistryError(f"{shown(source)}: cannot be listed; look whether {', '.join(needed)} are there")
    answer = ask("GET", server + _ARTIFACTS, params={"path": unquote(folder)}) or {}
    names = {str(file["path"]).rpartition("/")[2] for file in answer.get("files", [])}
    return [name for name in needed if name not in names]


def fetch(version: RegisteredVersion, *, weights: bool = False) -> Path:
    """Bring the version's package into the cache, checked by its digests, and return its folder.

    Without `weights` (the default) `model.keras` stays where it is: only fine-tuning needs it.

    Raises:
        BadPackage: what the registry holds is incomplete or altered.
        RegistryError: the registry cannot be reached or does not give a file.
    """
    shelf = settings().cache / "models" / version.project
    if version.digest:
        kept = shelf / version.digest
        if _is_whole(kept, version.digest, weights):
            os.utime(kept)  # in use: see prune
            return kept
    shelf.mkdir(parents=True, exist_ok=True)
    source = _source(version)
    arriving = Path(tempfile.mkdtemp(prefix=".arriving-", dir=shelf))
    try:
        _download(source, CARD, arriving)
        listed = list(read_card(arriving, PackageCard).files)
        for name in listed:
            if name in REQUIRED or (weights and name == WEIGHTS):
                _download(source, name, arriving)
        digest = Package.open(arriving).digest
        if version.digest and digest != version.digest:
            raise BadPackage(
                f"version {version.version} of {version.project}: its package has digest {digest[:12]}…, "
                f"registered was {version.digest[:12]}…; register it again"
            )
        return _shelve(arriving, shelf / digest, weights)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)


def prune(keep: Path, days: float = 30) -> None:
    """Take the packages beside `keep` out of the cache that nobody fetched for `days`, and what a killed fetch left."""
    oldest = time.time() - days * 86_400
    for folder in keep.parent.iterdir():
        with suppress(OSError):
            if folder != keep and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _is_whole(folder: Path, digest: str, weights: bool) -> bool:
    """Tell whether a kept package is what it should be; a damaged one is as good as none."""
    if not folder.is_dir():
        return False
    try:
        package = Package.open(folder)
    except BadPackage:
        return False
    return package.digest == digest and (
        not weights or (folder / WEIGHTS).is_file() or WEIGHTS not in package.card.files
    )


def _shelve(arriving: Path, target: Path, weights: bool) -> Path:
    """Move a checked package to its place; another process may have been faster, or an old one be damaged."""
    for _ in range(3):
        with suppress(OSError):
            arriving.rename(target)
            return target
        if _is_whole(target, package_digest(arriving), weights):
            return target
        # Moved aside before it goes: whoever has it open keeps reading, and nobody meets half a folder.
        aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=target.parent))
        with suppress(OSError):
            target.rename(aside / target.name)
        shutil.rmtree(aside, ignore_errors=True)
    raise RegistryError(f"{target}: cannot be written; check the rights and the space of INSPECTLINE_CACHE")


def as_version(answer: dict[str, Any]) -> RegisteredVersion:
    """Return a version as MLflow's REST interface describes it."""
    tags = {tag["key"]: tag.get("value", "") for tag in answer.get("tags", [])}
    created = answer.get("creation_timestamp")
    at = datetime.fromtimestamp(int(created) / 1000, UTC).isoformat(timespec="seconds") if created else None
    return RegisteredVersion(answer["name"], str(answer["version"]), answer.get("run_id", ""), tags, at)


def _source(version: RegisteredVersion) -> str:
    """Return where the version's files are: an http(s) or s3 address."""
    answer = call("model-versions/get-download-uri", {"name": version.project, "version": version.version})
    if not answer:
        raise RegistryError(f"version {version.version} of {version.project} is no longer in the registry")
    uri = str(answer["artifact_uri"])
    if uri.startswith("models:/m-"):
        model = call(f"logged-models/{quote(uri.removeprefix('models:/').strip('/'))}", {})
        uri = str(((model or {}).get("model") or {}).get("info", {}).get("artifact_uri", uri))
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https", "s3"):
        return uri.rstrip("/")
    if parts.scheme == "mlflow-artifacts":
        server = urlsplit(settings().tracking_uri)
        place = parts.netloc or server.netloc
        return f"{server.scheme}://{place}{server.path}{_ARTIFACTS}/{quote(parts.path.strip('/'))}"
    raise RegistryError(
        f"version {version.version} of {version.project} lies at {uri}, which only its own machine can read; "
        "run MLflow with --artifacts-destination s3://…"
    )


def _download(source: str, name: str, folder: Path) -> None:
    """Bring one file of a package into `folder`."""
    if source.startswith("s3://"):
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        Storage(bucket).download(f"{prefix}/{name}", folder / name)
    else:
        save(f"{source}/{quote(name)}", folder / name)
