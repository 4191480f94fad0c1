"""The tasks that detect drift, check the accuracy, and send mails."""

from typing import Any

from airflow.sdk import TriggerRule, task

from inspectline_dags.defaults import run_name
from inspectline_dags.model_steps import result
from monitoring.tasks import describe_task
from pipelines.config.project import Project


@task
def drift(project: str, **context: Any) -> Any:
    """Compare what serving saw lately with the champion's reference (Evidently), and keep the report."""
    from monitoring.drift.detect import detect

    summary = detect(project, run_name(context))
    context["ti"].xcom_push(key="drift", value=summary["url"])
    return summary


# Follows `complete` and `drift`: one success is enough, since a failed drift report must not suppress the mail.
@task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
def report(**context: Any) -> Any:
    """Mail what was trained, its metrics beside the champion's, what was promoted, and what ingest left out."""
    from monitoring.mail.mails import training_mail
    from notifier import send
    from pipelines.config.project import load_project
    from pipelines.ingest.open_notes import forget, open_notes
    from pipelines.steps import Decision, EvaluationReport, Outcome, Run
    from pipelines.storage.s3 import Storage

    run = Run.from_json(result(context, "begin"))
    storage = Storage(load_project(run.project).bucket)
    notes = open_notes(storage, run.project)
    sent = send(
        training_mail(
            run,
            Outcome.from_json(result(context, "complete")),
            Decision.from_json(result(context, "gate")),
            result(context, "drift"),
            notes,
            report=EvaluationReport.from_json(result(context, "evaluate")),
            trigger=_trigger(context),
        )
    )
    if sent["sent"]:
        forget(storage, run.project, notes)
    return sent


def _trigger(context: Any) -> str:
    """Return what started the run: the new images or requests that `watch` found, the schedule, or somebody by hand."""
    run = context["dag_run"]
    if reason := (run.conf or {}).get("reason"):
        return str(reason).partition(": ")[2] or str(reason)
    return "the schedule" if run.run_type == "scheduled" else "hand, by Airflow's form or API"


def accuracy_checks(project: Project) -> list[Any]:
    """Return the task that checks the champion's accuracy; none where the project's task has no minimum of it."""
    return [accuracy(project.name)] if describe_task(project.task).minimum_accuracy else []


@task
def accuracy(project: str, **context: Any) -> Any:
    """Compare the champion's accuracy on the newest test set with the project's minimum; mail a change.

    What was measured before, of the same version on the same dataset version, is not measured again.
    """
    from dataclasses import asdict

    from monitoring.accuracy.check import check
    from notifier import send

    begun = result(context, "begin")
    found = check(project, run_name(context), begun["dataset"]["version_id"] if begun else None)
    print(found.why)
    return asdict(found) | send(found.mail)


@task
def mail_drift(**context: Any) -> Any:
    """Mail a change of the drift state, and once a week what the week brought."""
    from notifier import send

    return send(result(context, "drift")["mail"])


@task(trigger_rule=TriggerRule.ALL_DONE)
def purge(project: str) -> dict[str, int]:
    """Delete the served images that were kept for as long as the project file says; their predictions stay."""
    from pipelines.catalogue.predictions import purge_expired

    return purge_expired(project)
