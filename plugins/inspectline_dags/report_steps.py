"""The tasks that watch for drift and write to people."""

from typing import Any

from airflow.sdk import TriggerRule, task

from inspectline_dags.defaults import run_name
from inspectline_dags.model_steps import Made


@task
def drift(project: str, **context: Any) -> Made:
    """Compare what serving saw lately with the champion's reference (Evidently), and keep the report."""
    from monitoring.drift import detect

    found = detect(project, run_name(context))
    context["ti"].xcom_push(key="drift", value=found["url"])
    return found


# One success is enough: a failed drift report must not keep back the mail about the training. So nothing but `complete`
# and `drift` may be upstream: what the mail says of the other steps is fetched, not passed.
@task(trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
def report(outcome: Made, drift: Made, **context: Any) -> Made:
    """Mail what was trained, its figures beside the champion's, and what was promoted."""
    from monitoring.mails import training_mail
    from notifier import send

    run, decision = (context["ti"].xcom_pull(task_ids=name) for name in ("begin", "gate"))
    return send(training_mail(run, outcome, decision, drift))


@task
def mail_drift(found: Made) -> Made:
    """Mail a change of the drift state, and once a week what the week brought."""
    from notifier import send

    return send(found["mail"])


@task(trigger_rule=TriggerRule.ALL_DONE)
def purge(project: str) -> dict[str, int]:
    """Delete the served images that were kept for as long as the project file says; their predictions stay."""
    from pipelines.served import purge_expired

    return purge_expired(project)
