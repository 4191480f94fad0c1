"""Detects drift: compares the images served lately with the champion's reference, one report per DAG run.

States: `drift` and `no_drift` after a comparison, `too_few` images to compare, `no_champion` to compare with.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping

from monitoring.drift import current_window, report, reports, thresholds
from monitoring.drift.tasks import find_drift_task
from monitoring.mail import mails, outbox
from monitoring.tasks import describe_task
from pipelines.catalogue import connect, transaction
from pipelines.config.project import Project, load_project
from pipelines.config.settings import settings
from pipelines.registry import client
from pipelines.registry.client import RegisteredVersion
from pipelines.registry.package import PackageCard, read_card
from pipelines.storage import keys
from pipelines.storage.s3 import Storage
from pipelines.tasks import find_task

_LINK_DAYS = 7

log = logging.getLogger(__name__)


def detect(project_name: str, dag_run_id: str, now: datetime | None = None) -> dict[str, Any]:
    """Compare the images served in the project's drift window with its champion's reference, and store the report.

    If the run already has a report, that one is returned. `dag_run_id` must be unique across the project's DAGs.

    Returns:
        A dictionary of state, changed (whether the state differs from that of the last comparison), report_id,
        report_uri, url (where the report opens; both None without a comparison), reasons (in words), reference_n,
        current_n, and mail (the argument of `plugins.notifier.send` if a mail is due, else None).

    Raises:
        RegistryError, StorageError, CatalogueError: try again.
    """
    project, moment = load_project(project_name), now or datetime.now(UTC)
    with connect() as connection:
        row = reports.find(connection, project.name, dag_run_id)
    if row is None:
        row = _report(project, dag_run_id, moment)
    return _answer(project, row, moment)


def _report(project: Project, dag_run_id: str, now: datetime) -> RowMapping:
    """Create the report of one run and insert it into the catalogue."""

    def enter(state: str, results: dict[str, Any], **values: Any) -> RowMapping:
        with transaction() as connection:
            return reports.enter(connection, project.name, dag_run_id, state, created_at=now, results=results, **values)

    version = client.champion(project.name)
    if version is None:
        return enter("no_champion", {"reasons": ["the project has no champion yet: nothing to compare with"]})
    folder = client.fetch(version)
    made_for = read_card(folder, PackageCard).task
    if made_for != project.task:
        why = f"the champion, version {version.version}, is of the task {made_for}: retrain for {project.task}"
        return enter("no_champion", {"reasons": [why]})
    task, package = find_drift_task(project.task), find_task(project.task).open_package(folder)
    reference = task.reference(package)
    current = current_window.collect(project, task, version.version, package, reference, now)
    found = task.examine(project, version.version, package, current)
    results: dict[str, Any] = {
        "window_days": project.drift.window_days,
        "since": current.since.isoformat(),
        "until": current.until.isoformat(),
        "served": current.served,
        "distinct": current.distinct,
        "reused": current.reused,
        "rescored": current.rescored,
        "lost": current.lost,
        "dataset_version": package.card.version_id,
        **found.results,
    }
    numbers = {"model_version": version.version, "reference_n": len(reference), "current_n": len(current)}
    lacking = _lacking(project, len(reference), len(current), current.lost)
    if lacking:
        reasons = [lacking, *found.reasons]  # what people said needs no comparison
        return enter("too_few", results | {"reasons": reasons}, **numbers)
    comparison, html = report.compare(reference, current.observed, found.alarms)
    state = "drift" if comparison.drifted else "no_drift"
    results |= comparison.as_dict()
    results["left_out"] |= found.left_out
    results["reasons"] += [reason for reason in found.reasons if reason not in comparison.reasons]
    log.info("%s: %s", state, "; ".join(results["reasons"]) or "nothing moved beyond its threshold")
    page = mails.drift_page(html, project, state, results | numbers, now)
    name = hashlib.sha256(f"{project.name}\n{dag_run_id}".encode()).hexdigest()[:16]
    key = keys.drift_report(project.name, package.card.version_id, name)
    storage = Storage(project.bucket)
    storage.put(key, page.encode(), "text/html; charset=utf-8")
    with connect() as connection:
        last = reports.last_compared(connection, project.name)
    if state != (last["state"] if last else "no_drift"):
        results["link"] = _link(version, storage, key, name, page, now)
    return enter(state, results, report_key=key, **numbers)


def _lacking(project: Project, reference_n: int, current_n: int, lost: int) -> str | None:
    """Return in words what is missing for a comparison, or None."""
    if reference_n < thresholds.MINIMUM_REFERENCE:
        return (
            f"the champion's reference has {reference_n} images and a comparison needs {thresholds.MINIMUM_REFERENCE}: "
            f"{describe_task(project.task).more_reference}"
        )
    if current_n < project.drift.minimum_images:
        gone = f" ({lost} more are no longer kept)" if lost else ""
        return (
            f"{current_n} different images in {project.drift.window_days} days{gone}, and a comparison needs "
            f"{project.drift.minimum_images} (drift.minimum_images)"
        )
    return None


def _link(
    version: RegisteredVersion, storage: Storage, key: str, name: str, page: str, now: datetime
) -> dict[str, str]:
    """Return the address at which a recipient can open the report, and until when it works.

    It is the report's copy in MLflow, next to the model version, because people can reach MLflow and the address does
    not expire. A presigned S3 link, which may name a host inside the stack and expires within hours if signed with a
    role's credentials, is the fallback when MLflow does not accept the file.
    """
    try:
        return {
            "url": _publish(version, name, page),
            "opens": "in MLflow, beside the model version, for as long as that is kept",
        }
    except Exception as error:  # MLflow raises many types; the report is valid without this copy
        log.warning("MLflow did not take the drift report (%s): the mail links to S3", str(error).splitlines()[0])
    until = now + timedelta(days=_LINK_DAYS)
    return {
        "url": storage.url(key, _LINK_DAYS * 86_400),
        "opens": f"without a login until {until:%d %B %Y %H:%M} UTC",
    }


def _publish(version: RegisteredVersion, name: str, page: str) -> str:
    """Log the report to the champion's MLflow run and return the address of the page that shows it."""
    from mlflow import MlflowClient

    client = MlflowClient(settings().tracking_uri)
    run = client.get_run(version.run_id)
    client.log_text(version.run_id, page, f"drift/{name}.html")
    experiment = run.info.experiment_id
    return f"{settings().mlflow_url}/#/experiments/{experiment}/runs/{version.run_id}/artifacts/drift/{name}.html"


def _answer(project: Project, row: RowMapping, now: datetime) -> dict[str, Any]:
    storage = Storage(project.bucket)
    uri = url = None
    if row["report_key"]:
        uri = storage.uri(row["report_key"])
        link = row["results"].get("link")
        url = link["url"] if link else storage.url(row["report_key"], _LINK_DAYS * 86_400)
    return {
        "state": row["state"],
        "changed": bool(row["changed"]),
        "report_id": row["id"],
        "report_uri": uri,
        "url": url,
        "reasons": row["results"].get("reasons", []),
        "reference_n": row["reference_n"],
        "current_n": row["current_n"],
        "mail": outbox.due(project, row, now),
    }
