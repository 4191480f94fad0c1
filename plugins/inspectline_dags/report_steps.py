"""The tasks that detect drift and send mails."""

from typing import Any

from airflow.sdk import TriggerRule, task

from inspectline_dags.defaults import run_name
from inspectline_dags.model_steps import result


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
    from pipelines.steps import Decision, Outcome, Run
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
        )
    )
    if sent["sent"]:
        forget(storage, run.project, notes)
    return sent


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
