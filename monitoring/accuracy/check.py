"""Checks the champion's accuracy on the newest test set against `promotion.minimum_accuracy`.

States: `below` and `met` after a check; without one, why there is nothing to check.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, select

from monitoring.accuracy.checks import LOG
from monitoring.accuracy.measure import Measured, measure
from pipelines.catalogue import connect, transaction
from pipelines.catalogue.schema import dataset_versions
from pipelines.config.project import Project, load_project
from pipelines.datasets.versions import read_manifest
from pipelines.registry import client
from pipelines.registry.client import RegisteredVersion
from pipelines.registry.package import PackageCard, read_card
from pipelines.storage.s3 import Storage
from pipelines.tasks import find_task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        state: `below` or `met`; None if there was nothing to check.
        why: the state in words.
        measured_now: whether the images were classified in this run; an earlier measurement of the same version on the
            same dataset version is used again.
        mail: the argument of `plugins.notifier.send` if a mail is due.
    """

    state: str | None
    why: str
    measured_now: bool = False
    mail: dict[str, Any] | None = None


def check(project_name: str, dag_run_id: str, version_id: str | None = None) -> Check:
    """Check the champion's accuracy, and record it; the same run again finds the same.

    Args:
        project_name: name of the project.
        dag_run_id: unique across the project's DAGs.
        version_id: dataset version whose test images are used. Default None: the newest.

    Raises:
        RegistryError, StorageError, CatalogueError: try again.
        BadPackage, BadDataset: the champion or a test image cannot be read.
    """
    project = load_project(project_name)
    champion = client.champion(project.name)
    if champion is None:
        return Check(None, "the project has no champion yet: nothing to check")
    with connect() as connection:
        dataset = _dataset(connection, project.name, version_id)
        row = LOG.find(connection, project.name, dag_run_id)
        last = LOG.last(connection, project.name)
    measured_now = False
    if row is None:
        if dataset is None:
            return Check(None, "the project has no dataset version yet: nothing to check")
        earlier = last and (last["model_version"], last["version_id"]) == (champion.version, dataset["version_id"])
        if last and earlier:
            measured = Measured.from_json(last["results"]["measured"])
        else:
            found = _measure(project, champion, dataset)
            if isinstance(found, str):
                return Check(None, found)
            measured, measured_now = found, True
        row = _enter(project, dag_run_id, champion.version, dataset["version_id"], measured)
    with connect() as connection:
        due = LOG.mail_due(connection, row)
    mail = {"report_id": row["id"], "due": ["accuracy"]} if due else None
    return Check(row["state"], _words(row), measured_now, mail)


def _dataset(connection: Any, project: str, version_id: str | None) -> RowMapping | None:
    """Return the row of a dataset version, by default the newest; None if there is none."""
    query = select(dataset_versions).where(dataset_versions.c.project == project)
    if version_id is not None:
        query = query.where(dataset_versions.c.version_id == version_id)
    row: RowMapping | None = (
        connection.execute(query.order_by(dataset_versions.c.created_at.desc()).limit(1)).mappings().first()
    )
    return row


def _measure(project: Project, champion: RegisteredVersion, dataset: RowMapping) -> Measured | str:
    """Return the champion's accuracy on the test images of a dataset version, or why there is none."""
    folder = client.fetch(champion)
    made_for = read_card(folder, PackageCard).task
    if made_for != project.task:
        return f"the champion, version {champion.version}, is of the task {made_for}: retrain for {project.task}"
    manifest = read_manifest(Storage(project.bucket).uri(dataset["manifest_key"]))
    rows = manifest[manifest["subset"] == "test"].sort_values("sha256").reset_index(drop=True)
    if not len(rows):
        return f"dataset version {dataset['version_id']} has no test images: nothing to check"
    return measure(project.name, project.task, find_task(project.task).open_package(folder, threads=2), rows)


def _enter(project: Project, dag_run_id: str, version: str, version_id: str, measured: Measured) -> RowMapping:
    minimum = project.promotion.minimum_accuracy
    state = "below" if measured.accuracy.value < minimum else "met"
    with transaction() as connection:
        return LOG.enter(
            connection,
            project.name,
            dag_run_id,
            state,
            model_version=version,
            version_id=version_id,
            results={"measured": measured.to_json(), "minimum": minimum},
        )


def _words(row: RowMapping) -> str:
    measured, minimum = Measured.from_json(row["results"]["measured"]), row["results"]["minimum"]
    relation = "below" if row["state"] == "below" else "meets"
    return (
        f"accuracy of version {row['model_version']} on {measured.images} test images of {row['version_id']}: "
        f"{measured.accuracy}; {relation} the minimum of {minimum:g}"
    )
