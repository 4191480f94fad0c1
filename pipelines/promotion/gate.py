"""Decides whether a challenger becomes champion.

Both are scored now, on the same test samples as they were sent. With 20 or more test anomalies their AUROC decides: the
project's minimum, and a paired bootstrap of the difference. With fewer, the false-positive rate on good test images and
a fixed set of synthetic defects decide. Whatever the figures, the alias moves only from where the run found it, never
from a version held by hand, and not if the run was asked to register only.
"""

from __future__ import annotations

import json
from typing import Any

from pipelines.catalogue.schema import now
from pipelines.config.project import PromotionRules, load_project
from pipelines.errors import BadPackage, RegistryError
from pipelines.registry import client, pinning, register
from pipelines.registry.client import RegisteredVersion
from pipelines.registry.package import Package
from pipelines.storage.s3 import Storage
from pipelines.tasks.anomaly.compare import Comparison, Contender, compare, score_contenders


def decide(run: dict[str, Any], registered: dict[str, str]) -> dict[str, Any]:
    """Judge the version that `register` returned, and make it champion if it is fit.

    Returns `promoted`, `why` (sentences), `champion` (None if there is none) and `challenger` with their figures,
    `difference`, `basis`, `notes`, and `report_uri`. A decision once made and written is returned as it is. A champion
    that cannot be read is reported and the challenger judged alone. Raises RegistryError if the registry gives no
    answer: only its own "not found" means that there is no champion.
    """
    from pipelines.datasets.versions import read_manifest

    name, version = run["project"], registered["version"]
    storage = Storage(load_project(name).bucket)
    key = f"{name}/{run['version_id']}/evaluation/{run['training_id']}_decision.json"
    if storage.exists(key):
        return dict(json.loads(storage.get(key)))

    notes: list[str] = []
    package = Package.open(client.fetch(pinning.version_of(name, version)), threads=2)
    opponent = _opponent(run, version)
    opened = _open_champion(opponent, notes) if opponent else None

    manifest = read_manifest(run["manifest_uri"])
    rows = manifest[manifest["subset"].isin(["test", "anomaly/test"])].sort_values("sha256")
    good, anomalies = rows[rows["label"] == "good"], rows[rows["label"] == "anomaly"]
    scores, opponent_scores, failure = score_contenders(name, package, opened, good, anomalies)
    challenger, champion = Contender(version, package, *scores), None
    if opponent and opened and opponent_scores:
        champion = Contender(opponent.version, opened, *opponent_scores)
    if opponent and failure:
        notes.append(_unreadable_note(opponent, failure))
    comparison = compare(
        challenger,
        champion,
        PromotionRules(**run["settings"]["promotion"]),
        good_groups=list(good["group_key"]),
        anomaly_groups=list(anomalies["group_key"]),
        notes=notes,
    )
    promoted, why = _act(run, version, comparison)
    decision = {
        "promoted": promoted,
        "why": why,
        "basis": comparison.basis,
        "champion": champion.figures() if champion else _unreadable(opponent),
        "challenger": challenger.figures(),
        "difference": comparison.difference.to_json() if comparison.difference else None,
        "notes": notes,
        "report_uri": storage.uri(key),
    }
    _record(run, version, decision)
    storage.put(key, json.dumps(decision, indent=2).encode(), "application/json")
    return decision


def _opponent(run: dict[str, Any], version: str) -> RegisteredVersion | None:
    """Return the champion to compare with: the present one, or where an earlier try promoted, the one before it."""
    present = client.champion(run["project"])
    if present is None or present.version != version:
        return present
    seen = run["champion_version"]
    return pinning.version_of(run["project"], seen) if seen and seen != version else None


def _open_champion(opponent: RegisteredVersion, notes: list[str]) -> Package | None:
    """Return the champion's package, ready to score, or None with a note if it is damaged or a file of it is gone."""
    try:
        package = Package.open(client.fetch(opponent), threads=2)
        package.session()
    except BadPackage as error:
        notes.append(_unreadable_note(opponent, str(error)))
        return None
    except RegistryError:
        missing = client.missing_files(opponent)
        if not missing:
            raise
        notes.append(_unreadable_note(opponent, f"{', '.join(missing)} is no longer in the registry"))
        return None
    return package


def _unreadable_note(opponent: RegisteredVersion, why: str) -> str:
    return f"Champion version {opponent.version} cannot be read, so the challenger was judged alone: {why}"


def _unreadable(opponent: RegisteredVersion | None) -> dict[str, Any] | None:
    """Return the figures of a champion that could not be scored: none."""
    if opponent is None:
        return None
    figures = ("auroc", "false_positive_rate", "recall", "synthetic_auroc")
    threshold = opponent.tags.get("threshold")
    return {"version": opponent.version, "threshold": float(threshold) if threshold else None} | dict.fromkeys(figures)


def _act(run: dict[str, Any], version: str, comparison: Comparison) -> tuple[bool, str]:
    """Move the alias if everything allows it; return whether it points at the version, and why in words."""
    reasons = "; ".join(comparison.reasons)
    if not run["params"].get("promote", True):
        fitness = "it could have been promoted" if comparison.fit else "it would not have been promoted"
        return False, f"Only registered, as the run was asked to; {fitness}: {reasons}."
    if not comparison.fit:
        return False, f"Not promoted: {reasons}."
    if obstacle := register.promote(run["project"], version, seen=run["champion_version"]):
        return False, f"Not promoted: {obstacle}. By its figures it could have been: {reasons}."
    return True, f"Promoted: {reasons}."


def _record(run: dict[str, Any], version: str, decision: dict[str, Any]) -> None:
    """Note the decision on the version and in the MLflow run."""
    import mlflow

    client = mlflow.MlflowClient()
    against = decision["champion"]["version"] if decision["champion"] else "none"
    tags = {
        "decision": "promoted" if decision["promoted"] else "not promoted",
        "decision_why": decision["why"][:4000],
        "decision_basis": decision["basis"],
        "decided_against": against,
        "decided_at": now().isoformat(timespec="seconds"),
    }
    for key, value in tags.items():
        client.set_model_version_tag(run["project"], version, key, value)
    client.log_dict(run["mlflow_run_id"], decision, "decision.json")
    client.set_tag(run["mlflow_run_id"], "decision", tags["decision"])
