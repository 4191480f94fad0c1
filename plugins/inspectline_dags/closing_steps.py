"""The last tasks of a run: say what came of it, and end what asked for it."""

import logging
from typing import Any

from airflow.sdk import TriggerRule, task
from airflow.sdk.exceptions import AirflowFailException

from inspectline_dags.model_steps import asked_by
from notifier import InspectlineNotifier

log = logging.getLogger(__name__)

# Shown failed and mailed like any other, but the model stands without them: they do not fail the run.
SIDE_TASKS = ("profile", "drift")
_SKIPPING = ("freeze", "begin")
_ENDED = {
    "success": "ended, but left no result",
    "failed": "was ended before it could say why",
    "gone": "could not be started, or was deleted",
}


class NotifierOfOwnFailures(InspectlineNotifier):
    """Mails what goes wrong in a closing task itself: the failures that it sums up were mailed where they happened."""

    def notify(self, context: Any) -> None:
        """Send the mail unless the task failed on purpose."""
        if not isinstance(context.get("exception"), AirflowFailException):
            super().notify(context)


def close(project: str) -> Any:
    """Return the task that ends a run of `retrain` or `evaluate`."""
    return _close.override(on_failure_callback=NotifierOfOwnFailures(project))(project)


def settle(project: str) -> Any:
    """Return the task that ends a run of `watch`."""
    return _settle.override(on_failure_callback=NotifierOfOwnFailures(project))(project)


@task(task_id="close", trigger_rule=TriggerRule.ALL_DONE)
def _close(project: str, **context: Any) -> dict[str, Any]:
    """End the run in the catalogue, and the requests that it served: done with its result, or failed with why."""
    from pipelines.requests import watch
    from pipelines.training import runs

    ti, run_id = context["ti"], context["run_id"]
    served = (project, ti.dag_id.removeprefix(f"{project}_"), run_id, asked_by(context))
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id])[run_id]
    failed = sorted(name for name, state in states.items() if state == "failed" and name not in SIDE_TASKS)
    stopped = sorted(name for name, state in states.items() if state == "upstream_failed" and name not in SIDE_TASKS)
    outcome = ti.xcom_pull(task_ids="complete")
    skipped = next((found for found in ti.xcom_pull(task_ids=_SKIPPING, key="skipped") if found), None)
    why = f"failed: {', '.join(failed)}" if failed else f"not run: {', '.join(stopped)}"
    if told := [said for said in ti.xcom_pull(task_ids=_SKIPPING, key="why") if said and failed]:
        why = f"{why}: {told[0]}"
    if outcome:
        result = outcome | {"dag_run_id": run_id}
        watch.end_run(*served, done=True, result=result)
    elif skipped and not failed:
        # Who asked gets the figures of the run that did the same before.
        earlier = runs.outcome(skipped["training_id"]) if skipped["training_id"] else {}
        result = earlier | {"skipped": skipped["reason"], "link": skipped["link"], "dag_run_id": run_id}
        watch.end_run(*served, done=True, result=result)
    else:
        runs.fail(project, run_id, why)
        watch.end_run(*served, done=False, result={"why": why, "dag_run_id": run_id})
    if failed or stopped:
        raise AirflowFailException(why)
    return result


@task(task_id="settle", trigger_rule=TriggerRule.ALL_DONE)
def _settle(project: str, **context: Any) -> None:
    """Fail the requests of runs that never started, or were ended by hand before they could say so themselves."""
    from pipelines.requests import watch

    ti, run_id = context["ti"], context["run_id"]
    for kind, started in watch.unsettled(project):
        state = _state(ti, f"{project}_{kind}", started)
        if state in ("success", "failed", "gone"):
            watch.settle(project, kind, started, f"{project}_{kind} {started}: {_ENDED[state]}")
            log.info("%s %s: %s", kind, started, _ENDED[state])
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id])[run_id]
    if failed := sorted(name for name, state in states.items() if state == "failed"):
        raise AirflowFailException(f"failed: {', '.join(failed)}")


def _state(ti: Any, dag_id: str, run_id: str) -> str:
    """Return the state of a DAG run, or `gone` if Airflow knows no such run."""
    if not ti.get_dr_count(dag_id=dag_id, run_ids=[run_id]):
        return "gone"
    state = ti.get_dagrun_state(dag_id=dag_id, run_id=run_id)
    return str(getattr(state, "value", state))  # an enumeration in a worker, a word in `dag.test()`
