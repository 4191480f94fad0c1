"""Decides whether a challenger becomes champion.

Both are scored now, on the same test samples as they were sent. With 20 or more test anomalies their AUROC decides: the
project's minimum, and a paired bootstrap of the difference. With fewer, the false-positive rate on good test images and
a fixed set of synthetic defects decide. Whatever the metrics, the alias moves only from where the run found it, never
from a version held by hand, and not if the run was asked to register only.
"""

from __future__ import annotations

import json

from pipelines.catalogue.schema import now
from pipelines.config.project import load_project
from pipelines.errors import BadPackage, RegistryError
from pipelines.registry import client, pinning, register
from pipelines.registry.client import RegisteredVersion
from pipelines.registry.package import Package
from pipelines.steps import Decision, Registration, Run, VersionMetrics
from pipelines.storage import keys
from pipelines.storage.s3 import Storage
from pipelines.tasks import find_task
from pipelines.tasks.interface import Comparison, Contender, Task


def decide(run: Run, registered: Registration) -> Decision:
    """Judge the version that `register` returned, and make it champion if it is fit.

    A decision once made and written is returned as it is. A champion
    that cannot be read is reported and the challenger judged alone. Raises RegistryError if the registry gives no
    answer: only its own "not found" means that there is no champion.
    """
    from pipelines.datasets.versions import read_manifest

    name, version = run.project, registered.version
    storage = Storage(load_project(name).bucket)
    key = keys.decision(name, run.version_id, run.training_id)
    if storage.exists(key):
        return Decision.from_json(json.loads(storage.get(key)))

    notes: list[str] = []
    task = find_task(run.task)
    challenger = Contender(version, task.open_package(client.fetch(pinning.version_of(name, version)), threads=2))
    opponent = _opponent(run, version)
    package = _open_champion(task, opponent, notes) if opponent else None
    champion = Contender(opponent.version, package) if opponent and package else None

    manifest = read_manifest(run.dataset.manifest_uri)
    samples = manifest[manifest["subset"].isin(["test", "anomaly/test"])].sort_values("sha256")
    comparison = task.compare(run, challenger, champion, samples)
    if opponent and comparison.failure:
        notes.append(_unreadable_note(opponent, comparison.failure))
    promoted, why = _act(run, version, comparison)
    decision = Decision(
        promoted=promoted,
        why=why,
        basis=comparison.basis,
        champion=comparison.champion or _unreadable(opponent),
        challenger=comparison.challenger,
        difference=comparison.difference,
        notes=[*notes, *comparison.notes],
        report_uri=storage.uri(key),
    )
    _record(run, version, decision)
    storage.put(key, json.dumps(decision.to_json(), indent=2).encode(), "application/json")
    return decision


def _opponent(run: Run, version: str) -> RegisteredVersion | None:
    """Return the champion to compare with: the present one, or where an earlier try promoted, the one before it."""
    present = client.champion(run.project)
    if present is None or present.version != version:
        return present
    champion_then = run.champion.version if run.champion else None
    return pinning.version_of(run.project, champion_then) if champion_then and champion_then != version else None


def _open_champion(task: Task, opponent: RegisteredVersion, notes: list[str]) -> Package | None:
    """Return the champion's package, or None with a note if it is damaged or a file of it is gone."""
    try:
        return task.open_package(client.fetch(opponent), threads=2)
    except BadPackage as error:
        notes.append(_unreadable_note(opponent, str(error)))
        return None
    except RegistryError:
        missing = client.missing_files(opponent)
        if not missing:
            raise
        notes.append(_unreadable_note(opponent, f"{', '.join(missing)} is no longer in the registry"))
        return None


def _unreadable_note(opponent: RegisteredVersion, why: str) -> str:
    return f"Champion version {opponent.version} cannot be read, so the challenger was judged alone: {why}"


def _unreadable(opponent: RegisteredVersion | None) -> VersionMetrics | None:
    """Return the metrics of a champion that could not be scored: none."""
    if opponent is None:
        return None
    threshold = opponent.tags.get("threshold")
    return VersionMetrics(opponent.version, float(threshold) if threshold else None)


def _act(run: Run, version: str, comparison: Comparison) -> tuple[bool, str]:
    """Move the alias if everything allows it; return whether it points at the version, and why in words."""
    reasons = "; ".join(comparison.reasons)
    if not run.parameters.promote:
        fitness = "it could have been promoted" if comparison.fit else "it would not have been promoted"
        return False, f"Only registered, as the run was asked to; {fitness}: {reasons}."
    if not comparison.fit:
        return False, f"Not promoted: {reasons}."
    if obstacle := register.promote(run.project, version, expected=run.champion.version if run.champion else None):
        return False, f"Not promoted: {obstacle}. By its metrics it could have been: {reasons}."
    return True, f"Promoted: {reasons}."


def _record(run: Run, version: str, decision: Decision) -> None:
    """Note the decision on the version and in the MLflow run."""
    import mlflow

    mlflow_client = mlflow.MlflowClient()
    against = decision.champion.version if decision.champion else "none"
    tags = {
        "decision": "promoted" if decision.promoted else "not promoted",
        "decision_why": decision.why[:4000],
        "decision_basis": decision.basis,
        "decided_against": against,
        "decided_at": now().isoformat(timespec="seconds"),
    }
    for key, value in tags.items():
        mlflow_client.set_model_version_tag(run.project, version, key, value)
    mlflow_client.log_dict(str(run.mlflow_run_id), decision.to_json(), "decision.json")
    mlflow_client.set_tag(str(run.mlflow_run_id), "decision", tags["decision"])
