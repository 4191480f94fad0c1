"""MLflow's model registry as Inspectline writes it: versions, each registered once, and the aliases on them.

A project's registered model bears its name. A version is MLflow's ONNX flavour (`mlflow.onnx.load_model` works, without
unpickling anything) with the files of our package in the same folder.

Aliases: `champion` is what serving serves, `challenger` the last one registered. The registered model's tag `held`
names a version that somebody chose by hand: no run replaces a champion while it is set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.catalogue.locks import registry_turn
from pipelines.config.metrics import METRIC_TITLES
from pipelines.config.project import load_project
from pipelines.registry.client import CHAMPION, champion
from pipelines.registry.package import GRAPH, Package
from pipelines.registry.package_store import fetched_package, working_folder
from pipelines.registry.pinning import HELD, held
from pipelines.steps import EvaluationReport, ModelPackage, Registration, Run

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHALLENGER = "challenger"
_MODEL = "model"
# Seconds for an answer, and further tries: an upload is answered when the server has brought the file to S3.
_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}


def register(run: Run, package: ModelPackage, evaluation: EvaluationReport) -> Registration:
    """Register the run's package as a version of the project's model and set the alias `challenger` on it.

    A training is registered once, however often and by how many at a time this is called: the version with its
    `training_id` is returned. Raises BadPackage if the package is not whole.
    """
    client = _client()
    project = run.project
    with fetched_package(package.package_uri, Package.open) as opened:
        digest = opened.digest
        # Files and version in one turn: a task that was thought dead may still be at it.
        with registry_turn(project):
            version = registered(client, project, run.training_id)
            if version is None:
                model_id = _logged_model(client, run, opened)
                _ensure_model(client, project)
                created = client.create_model_version(
                    project,
                    source=f"models:/{model_id}",
                    run_id=run.mlflow_run_id,
                    model_id=model_id,
                    tags=_tags(run, package, opened, evaluation),
                    description=describe(run, opened, evaluation, package.notes),
                )
                version = str(created.version)
            client.set_registered_model_alias(project, CHALLENGER, version)
    return Registration(version, digest)


def _client() -> MlflowClient:
    """Return MLflow's client, which gives up on a server that does not answer: by default it tries for 20 minutes.

    While it waits it may hold the project's turn, and nobody else can promote.
    """
    import mlflow

    for name, value in _LIMITS.items():
        os.environ.setdefault(name, value)  # read at each request
    return mlflow.MlflowClient()


def registered(client: MlflowClient, project: str, training_id: str) -> str | None:
    """Return the version that the training was registered as, or None."""
    versions = client.search_model_versions(f"name='{project}' and tags.training_id='{training_id}'")
    return min((str(version.version) for version in versions), key=int, default=None)


def promote(project: str, version: str, *, expected: str | None) -> str | None:
    """Move `champion` to `version` if it still points at `expected` (None: there was none) and is not held.

    Returns None if it points at `version` now, else the reason in words. Checked and moved in the project's turn, so
    that of two runs that saw the same champion one alone replaces it.
    """
    client = _client()
    with registry_turn(project):
        kept, now = held(project), champion(project)
        current = now.version if now else None
        if current == version:
            return None
        if kept:
            return f"version {kept.version} is held by hand: release it to let a run replace the champion"
        if current != expected:
            return f"the champion was {_named(expected)} when the run began and is {_named(current)} now"
        client.set_registered_model_alias(project, CHAMPION, version)
    return None


def describe(run: Run, package: Package, evaluation: EvaluationReport, notes: list[str]) -> str:
    """Return the version's page in Markdown: metrics, threshold, notes and where it came from."""
    card = package.card
    lines = [
        f"Dataset version `{run.version_id}`, training `{run.training_id}`, code `{card.git_revision}`.",
        "",
        *_threshold_lines(evaluation),
        "| metric (test images) | value | 95 % interval |",
        "| --- | --- | --- |",
    ]
    for name, title in METRIC_TITLES.items():
        if estimate := evaluation.metrics.get(name):
            lines.append(f"| {title} | {estimate.value:.4g} | {estimate.low:.4g} to {estimate.high:.4g} |")
    if all_notes := [*notes, *evaluation.notes]:
        lines += ["", *(f"- {note}" for note in all_notes)]
    return "\n".join(lines)


def _threshold_lines(evaluation: EvaluationReport) -> list[str]:
    if evaluation.threshold is None or evaluation.policy is None:
        return []
    policy = evaluation.policy.replace("_", " ")
    return [f"Threshold **{evaluation.threshold:.6g}** ({policy}), score above it: anomalous.", ""]


def save_flavour(package: Package, folder: Path) -> None:
    """Write the package as an MLflow model into `folder`: the ONNX flavour, and the package's files as they are."""
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    graph = onnx.load(package.folder / GRAPH)
    signature = ModelSignature(Schema(_tensor_specs(graph.graph.input)), Schema(_tensor_specs(graph.graph.output)))
    versions = package.card.package_versions
    mlflow.onnx.save_model(
        graph,
        str(folder),
        # Given, because MLflow otherwise runs the model to find them out (PLATFORM: 24 s).
        pip_requirements=[
            f"{name}=={versions[name]}" if name in versions else name for name in ("onnxruntime", "numpy")
        ],
        signature=signature,
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
        metadata={"training_id": package.card.training_id, "version_id": package.card.version_id},
    )
    for path in package.folder.iterdir():
        if path.is_file():
            # Byte for byte as calibrated: model.json states the digests.
            (folder / path.name).write_bytes(path.read_bytes())


def _tensor_specs(values: Iterable[Any]) -> list[Any]:
    """Return MLflow's description of a graph's inputs or outputs; a free dimension is -1."""
    import onnx
    from mlflow.types import TensorSpec

    specs = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
        specs.append(TensorSpec(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape, value.name))
    return specs


def _logged_model(client: MlflowClient, run: Run, package: Package) -> str:
    """Return the id of the run's logged model, whole; one that an earlier try began is completed, not doubled."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    mlflow_run = client.get_run(str(run.mlflow_run_id))
    experiment = mlflow_run.info.experiment_id
    begun = client.search_logged_models(
        [experiment], filter_string=f"name = '{_MODEL}' AND tags.training_id = '{run.training_id}'"
    )
    if begun:
        model = begun[0]
    else:
        model = client.create_logged_model(
            experiment_id=experiment,
            name=_MODEL,
            source_run_id=run.mlflow_run_id,
            tags={"training_id": run.training_id, "version_id": run.version_id},
            model_type="onnx",
        )
    if model.status != LoggedModelStatus.READY:
        with working_folder() as folder:
            save_flavour(package, folder / _MODEL)
            client.log_model_artifacts(model.model_id, str(folder / _MODEL))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    if not mlflow_run.outputs or not mlflow_run.outputs.model_outputs:
        client.log_outputs(str(run.mlflow_run_id), [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def _ensure_model(client: MlflowClient, project: str) -> None:
    from mlflow.exceptions import MlflowException

    rules = load_project(project)
    try:
        client.create_registered_model(
            project,
            tags={"inspectline": "project"},
            description=f"{rules.title or project}: model of Inspectline for the task {rules.task}. The alias"
            f" `{CHAMPION}` is served; the tag `{HELD}` = version keeps runs from moving it.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tags(run: Run, package: ModelPackage, opened: Package, evaluation: EvaluationReport) -> dict[str, str]:
    return {
        "training_id": run.training_id,
        "version_id": run.version_id,
        "task": run.task,
        "kind": run.kind,
        "package_sha256": opened.digest,
        "package_uri": package.package_uri,
        **({} if package.threshold is None else {"threshold": repr(package.threshold)}),
        **({} if package.policy is None else {"threshold_policy": package.policy}),
        "dag_run_id": run.dag_run_id,
        "notes": json.dumps(package.notes)[:4000],
        **_accuracy_tags(evaluation),
    }


def _accuracy_tags(evaluation: EvaluationReport) -> dict[str, str]:
    """Return what serving answers to `GET /accuracy`; nothing for a task without accuracy."""
    accuracy = evaluation.metrics.get("accuracy")
    if accuracy is None:
        return {}
    values = {"accuracy": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
    tags = {name: repr(value) for name, value in values.items()}
    return tags | {"evaluated_at": datetime.now(UTC).isoformat(timespec="seconds")}


def _named(version: str | None) -> str:
    return f"version {version}" if version else "none"
