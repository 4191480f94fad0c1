"""Renders the mails, each as HTML and as text, from the templates in include/emails; `plugins.notifier` sends them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

import include
from monitoring.accuracy.measure import Measured
from monitoring.mail import formatting
from monitoring.mail.class_recalls import class_recalls
from monitoring.tasks import describe_task
from pipelines.config.metrics import METRIC_TITLES, metric_title
from pipelines.config.metrics import percent as rate
from pipelines.config.project import Project, load_project
from pipelines.config.settings import settings
from pipelines.steps import Decision, Estimate, EvaluationReport, Outcome, Run, VersionMetrics

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+")
_SUBJECT_LENGTH = 180  # characters
_ORDER = {name: place for place, name in enumerate(METRIC_TITLES)}
_SHOWN = 12  # columns listed in a mail; the report has them all


@dataclass(frozen=True)
class Mail:
    """One mail.

    Attributes:
        subject: one line of at most 180 characters; control characters are replaced and the rest is cut off.
        text: the plain-text part.
        html: the HTML part.
        to: addresses; if empty, nothing is sent.
    """

    subject: str
    text: str
    html: str
    to: tuple[str, ...]

    def __post_init__(self) -> None:
        """Prevent header injection."""
        subject = _CONTROL.sub(" ", self.subject).strip()
        if len(subject) > _SUBJECT_LENGTH:
            subject = subject[: _SUBJECT_LENGTH - 1].rstrip() + "…"
        object.__setattr__(self, "subject", subject)
        object.__setattr__(self, "to", tuple(self.to))
        for address in self.to:
            if _CONTROL.search(address):
                raise ValueError(f"{address!r} is not an e-mail address: it holds a control character")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as strings and a list."""
        return asdict(self) | {"to": list(self.to)}


def drift_mail(project: Project, report: Mapping[str, Any], former: Mapping[str, Any] | None = None) -> Mail:
    """Render the mail on a change of the drift state: what drifted, by how much, what to do, where the report is.

    `report` and `former`, the report mailed last (None before the first), are rows of the catalogue's drift reports.
    """
    facts = _drift_facts(project, report["state"], {**report["results"], **_numbers(report)}, report["created_at"])
    facts["link"] = report["results"].get("link")
    facts["promoted"] = former is not None and former["model_version"] != report["model_version"]
    facts["former_version"] = former["model_version"] if former else None
    facts["alarms_before"] = former is not None and not facts["promoted"] and _alarms(former["results"], "drifted")
    if report["state"] == "drift":
        subject = f"{project.title or project.name}: drift – {report['results']['reasons'][0]}"
    else:
        subject = f"{project.title or project.name}: drift is over"
    return _mail("drift", project, subject, **facts)


def drift_page(evidently: str, project: Project, state: str, results: Mapping[str, Any], now: datetime) -> str:
    """Return Evidently's HTML report, preceded by our conclusion, methods and thresholds."""
    facts = _drift_facts(project, state, results, now)
    head = _environment().get_template("drift_head.html").render(**_common(project), **facts)
    title = f"<title>{_CONTROL.sub(' ', project.name)}: drift report</title>"
    page = evidently.replace("<head>", f"<head>{title}", 1)
    return page.replace("<body>", f"<body>{head}", 1)


def accuracy_mail(
    project: Project, check: Mapping[str, Any], names: Mapping[str, str], former: Mapping[str, Any] | None = None
) -> Mail:
    """Render the mail on an accuracy that fell below the project's minimum, or meets it again.

    `check` and `former`, the check mailed last (None before the first), are rows of the catalogue's accuracy checks;
    `names` are the names of example images by SHA-256.
    """
    measured, minimum = Measured.from_json(check["results"]["measured"]), check["results"]["minimum"]
    shown = formatting.tenths(measured.accuracy.value)
    fallen = check["state"] == "below"
    return _mail(
        "accuracy",
        project,
        f"{project.title or project.name}: accuracy {shown} "
        + (f"is below {rate(minimum)}" if fallen else f"meets {rate(minimum)} again"),
        state=check["state"],
        version=check["model_version"],
        version_id=check["version_id"],
        measured=measured,
        minimum=minimum,
        names=names,
        former=former
        and {
            "accuracy": former["results"]["measured"]["accuracy"]["value"],
            "version": former["model_version"],
        },
        when=check["created_at"],
        retrain=f"{settings().airflow_url}/dags/{project.name}_retrain",
        mlflow=_version_url(project.name, check["model_version"]),
    )


def digest_mail(project: Project, week: Mapping[str, Any]) -> Mail:
    """Render the weekly digest; `week` comes from `monitoring.mail.digest.facts`."""
    subject = f"{project.title or project.name}: {week['title']}"
    return _mail("digest", project, subject, week=week)


def training_mail(
    run: Run,
    outcome: Outcome,
    decision: Decision,
    drift: Mapping[str, Any] | None = None,
    inbox: Sequence[str] = (),
    *,
    report: EvaluationReport | None = None,
    trigger: str | None = None,
) -> Mail:
    """Render the mail after a training or evaluation: metrics beside the champion's, what was promoted and why.

    Args:
        run: the run.
        outcome: what came of it.
        decision: the gate's decision.
        drift: what `monitoring.drift.detect.detect` returned; None without a drift report.
        inbox: notes that ingest left for the senders of images (`pipelines.ingest.open_notes`).
        report: the evaluation, of which a classifier's recall by class is shown. Default None: it is not shown.
        trigger: what started the run, in words. Default None: not said.
    """
    project = load_project(run.project)
    version = outcome.version or decision.challenger.version
    evaluated = run.kind == "evaluate"
    deed = "evaluated" if evaluated else "trained"
    verdict = "promoted" if decision.promoted else "not promoted"
    dag = f"{project.name}_{'evaluate' if evaluated else 'retrain'}"
    words = describe_task(run.task)
    return _mail(
        "training",
        project,
        f"{project.title or project.name}: version {version} {deed}, {verdict}",
        run=run,
        evaluation=outcome,
        decision=decision,
        drift=drift,
        inbox=list(inbox),
        version=version,
        deed=deed,
        champion=decision.champion,
        metrics=_metric_rows(outcome.metrics, decision.challenger, decision.champion),
        difference=words.difference and decision.difference and (words.difference, decision.difference),
        recall_title=words.recall,
        recall=class_recalls(report) if report and words.recall else [],
        trigger=trigger,
        params={key: value for key, value in asdict(run.parameters).items() if value is not None},
        notes=list(dict.fromkeys([*outcome.notes, *decision.notes])),
        airflow=_run_url(dag, run.dag_run_id),
        mlflow=_version_url(project.name, version),
    )


def failure_mail(failure: Mapping[str, Any]) -> Mail:
    """Render the mail on a task that failed after its last retry.

    `failure` has project, dag_id, task_id, run_id, and may have map_index, label (of a mapped task), try_number,
    error (one line), doc (what the task does), when.
    """
    project = load_project(failure["project"])
    subject = f"{project.title or project.name}: {failure['task_id']} failed in {failure['dag_id']}"
    index = failure.get("map_index")
    mapped = f"/mapped/{index}" if isinstance(index, int) and index >= 0 else ""
    tried = f"?try_number={failure['try_number']}" if failure.get("try_number") else ""
    facts = {"map_index": None, "label": None, "try_number": None, "error": None, "doc": None, "when": None, **failure}
    run_url = _run_url(failure["dag_id"], failure["run_id"])
    return _mail(
        "failure",
        project,
        subject,
        failure=facts,
        log_url=f"{run_url}/tasks/{quote(failure['task_id'])}{mapped}{tried}",
        run_url=run_url,
    )


def _numbers(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in ("reference_n", "current_n", "model_version")}


def _drift_facts(project: Project, state: str, results: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the template variables of one comparison; columns are sorted by distance, largest first."""
    descriptors = sorted(results["descriptors"], key=lambda column: -column["distance"] / column["threshold"])
    columns = ([results["score"]] if results["score"] else []) + descriptors
    moved = [column["name"] for column in descriptors if column["drifted"]]
    causes: dict[str, list[str]] = {}
    for name in moved:
        if name in formatting.CAUSES:
            causes.setdefault(formatting.CAUSES[name], []).append(name)
    return {
        "state": state,
        "results": results,
        "columns": columns[:_SHOWN],
        "moved": moved,
        "causes": causes,
        "when": now,
        "broken_promise": _alarms(results, "broken"),
        "only_alarms": _alarms(results, "drifted") and len(results["reasons"]) == 1,
        "many_anomalies": results.get("anomalous", 0) > max(0.05, 3 * results.get("expected_anomalous", 1)),
        "words": describe_task(project.task),
        "retrain": f"{settings().airflow_url}/dags/{project.name}_retrain",
    }


def _alarms(results: Mapping[str, Any], which: str) -> bool:
    """Return whether the known false alarms have the property `which`: `broken` (the promise) or `drifted`."""
    alarms = results.get("false_alarms") or {}
    return bool(alarms.get(which, alarms.get("broken")))  # reports of 0.1 do not distinguish the two


def _metric_rows(
    metrics: Mapping[str, Estimate], challenger: VersionMetrics, champion: VersionMetrics | None
) -> list[Any]:
    """Return rows [title, the new version's estimate, the champion's or None]; both from the gate where it has them."""
    judged, former = _judged(challenger), _judged(champion) if champion else {}
    names = sorted({*metrics, *judged}, key=lambda name: (_ORDER.get(name, len(_ORDER)), name))
    return [(metric_title(name), judged.get(name, metrics.get(name)), former.get(name)) for name in names]


def _judged(version: VersionMetrics) -> dict[str, Estimate]:
    """Return the estimates of one version on the gate's samples, by name."""
    return {name: value for name, value in vars(version).items() if isinstance(value, Estimate)}


def _version_url(project: str, version: str) -> str:
    return f"{settings().mlflow_url}/#/models/{quote(project)}/versions/{quote(str(version))}"


def _run_url(dag_id: str, run_id: str) -> str:
    return f"{settings().airflow_url}/dags/{quote(dag_id)}/runs/{quote(run_id)}"


def _common(project: Project) -> dict[str, Any]:
    return {"project": project, "title": project.title or project.name, "settings": settings()}


def _mail(kind: str, project: Project, subject: str, **facts: Any) -> Mail:
    facts |= _common(project) | {"subject": subject}
    html = _environment().get_template(f"{kind}.html").render(**facts)
    text = _environment().get_template(f"{kind}.txt").render(**facts)
    return Mail(subject, re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", html, tuple(project.recipients))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(str(include.__file__)).parent / "emails"),
        autoescape=select_autoescape(("html",)),  # text is not HTML: nothing to escape there
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": formatting.number,
        "percent": formatting.percent,
        "rate": rate,
        "estimate": formatting.estimate,
        "interval": formatting.interval,
        "setting": formatting.setting,
        "tenths": formatting.tenths,
        "signed": formatting.signed,
        "reason": formatting.reason,
        "moment": formatting.moment,
        "day": formatting.day,
    }
    environment.globals |= {"states": formatting.STATES}
    return environment
