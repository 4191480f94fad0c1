"""Does what is served lately still look like what the champion was made for? One report for each run.

States: `drift` and `no_drift` after a comparison; `too_few` images for one; `no_champion` to compare with.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping

from monitoring.drift import current_window, report, reports, thresholds
from monitoring.mail import mails, outbox
from pipelines.catalogue import connect, transaction
from pipelines.config.project import Project, load_project
from pipelines.config.settings import settings
from pipelines.registry import client
from pipelines.registry.client import RegisteredVersion
from pipelines.storage.s3 import Storage
from pipelines.tasks.anomaly.package import AnomalyPackage

_LINK_DAYS = 7

log = logging.getLogger(__name__)


def detect(project: str, dag_run_id: str, now: datetime | None = None) -> dict[str, Any]:
    """Compare the images served in the project's window with its champion's reference, and keep the report.

    A run that has a report already gets that one. `dag_run_id` must be unique over the project's DAGs.

    Returns:
        state, changed (other than at the last comparison), report_id, report_uri and url (where it opens; None without
        a comparison), reasons (in words), reference_n, current_n, and mail: what `plugins.notifier.send` takes if
        people have to be told of a change or a week is over, else None.

    Raises:
        RegistryError, StorageError, CatalogueError: try again.
    """
    rules, moment = load_project(project), now or datetime.now(UTC)
    with connect() as connection:
        known = reports.find(connection, project, dag_run_id)
    if known is None:
        known = _report(rules, dag_run_id, moment)
    return _answer(rules, known, moment)


def _report(project: Project, dag_run_id: str, now: datetime) -> RowMapping:
    """Make the report of one run and enter it."""
    version = client.champion(project.name)
    if version is None:
        results = {"reasons": ["the project has no champion yet: nothing to compare with"]}
        with transaction() as connection:
            return reports.enter(connection, project.name, dag_run_id, "no_champion", created_at=now, results=results)
    package = AnomalyPackage.open(client.fetch(version))
    reference = current_window.reference(package)
    seen = current_window.collect(project, version.version, package, now)
    found: dict[str, Any] = {
        "window_days": project.drift.window_days,
        "since": seen.since.isoformat(),
        "until": seen.until.isoformat(),
        "served": seen.served,
        "distinct": seen.distinct,
        "reused": seen.reused,
        "rescored": seen.rescored,
        "lost": seen.lost,
        "anomalous": seen.anomalous,
        "expected_anomalous": project.threshold.defect_rate,
        "dataset_version": package.card.version_id,
    }
    numbers = {"model_version": version.version, "reference_n": len(reference), "current_n": len(seen)}
    lacking = _lacking(project, len(reference), len(seen), seen.lost)
    alarms = _false_alarms(package, seen)
    if lacking:
        reasons = [lacking]
        if alarms is not None and alarms.broken:  # that takes no comparison
            reasons.append(alarms.reason())
        with transaction() as connection:
            return reports.enter(
                connection,
                project.name,
                dag_run_id,
                "too_few",
                created_at=now,
                results=found | {"reasons": reasons},
                **numbers,
            )
    comparison, html = report.compare(reference, seen.observed, alarms)
    state = "drift" if comparison.drifted else "no_drift"
    found |= comparison.as_dict()
    if alarms is None:
        found["left_out"]["false alarms"] = "this version does not say what its threshold promises"
    log.info("%s: %s", state, "; ".join(comparison.reasons) or "nothing moved beyond its threshold")
    page = mails.drift_page(html, project, state, found | numbers, now)
    name = hashlib.sha256(f"{project.name}\n{dag_run_id}".encode()).hexdigest()[:16]
    key = f"{project.name}/{package.card.version_id}/drift/{name}.html"
    storage = Storage(project.bucket)
    storage.put(key, page.encode(), "text/html; charset=utf-8")
    with connect() as connection:
        last = reports.last_compared(connection, project.name)
    if state != (last["state"] if last else "no_drift"):
        found["link"] = _link(version, storage, key, name, page, now)
    with transaction() as connection:
        return reports.enter(
            connection, project.name, dag_run_id, state, created_at=now, results=found, report_key=key, **numbers
        )


def _false_alarms(package: AnomalyPackage, seen: current_window.Current) -> report.FalseAlarms | None:
    """Return how the promise of the package's threshold is kept; None if it made none."""
    detail = package.card.threshold_detail
    if not {"promise_kept_at", "n_validation", "conformal_rank"} <= detail.keys():
        return None
    return report.FalseAlarms.of(
        seen.false_alarms, len(seen), detail["promise_kept_at"], detail["n_validation"], detail["conformal_rank"]
    )


def _lacking(project: Project, reference_n: int, current_n: int, lost: int) -> str | None:
    """Say in words what a comparison lacks, or None."""
    if reference_n < thresholds.MINIMUM_REFERENCE:
        return (
            f"the champion's reference has {reference_n} images and a comparison needs {thresholds.MINIMUM_REFERENCE}: "
            "train with more good images"
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
    """Return an address at which a recipient can open the report, and for how long.

    That is MLflow, beside the model that the report is about: its address is one that people reach, and lasts. A
    presigned S3 link may name a server inside the stack, and one signed with a role's credentials dies within hours;
    it is what remains when MLflow does not take the file.
    """
    try:
        return {
            "url": _publish(version, name, page),
            "opens": "in MLflow, beside the model version, for as long as that is kept",
        }
    except Exception as error:  # MLflow raises a wide range; a report without this copy is still a report
        log.warning("MLflow did not take the drift report (%s): the mail links to S3", str(error).splitlines()[0])
    until = now + timedelta(days=_LINK_DAYS)
    return {
        "url": storage.url(key, _LINK_DAYS * 86_400),
        "opens": f"without a login until {until:%d %B %Y %H:%M} UTC",
    }


def _publish(version: RegisteredVersion, name: str, page: str) -> str:
    """Keep the report with the champion's MLflow run and return the address of the page that shows it."""
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
