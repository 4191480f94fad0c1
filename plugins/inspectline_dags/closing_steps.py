"""The last tasks of a run: record its result and complete the requests that it served."""

import logging
from typing import Any

from airflow.sdk import TriggerRule, task
from airflow.sdk.exceptions import AirflowFailException

from inspectline_dags.model_steps import asked_by
from notifier import InspectlineNotifier

log = logging.getLogger(__name__)

_SKIPPING = ("freeze", "begin")
_ENDED = {
    "success": "ended, but left no result",
    "failed": "was ended before it could say why",
    "gone": "could not be started, or was deleted",
}


class NotifierOfOwnFailures(InspectlineNotifier):
    """Mails failures of a closing task itself; the failures that it sums up were mailed when they occurred."""

    def notify(self, context: Any) -> None:
        """Send the mail unless the task failed deliberately."""
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
    from pipelines.requests.close import close
    from pipelines.steps import Outcome, Skip

    ti, run_id = context["ti"], context["run_id"]
    outcome, skips = ti.xcom_pull(task_ids="complete"), ti.xcom_pull(task_ids=_SKIPPING, key="skipped")
    skip = next((skip for skip in skips if skip), None)
    closing = close(
        project,
        ti.dag_id.removeprefix(f"{project}_"),
        run_id,
        asked_by(context),
        states=ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id])[run_id],
        outcome=Outcome.from_json(outcome) if outcome else None,
        skip=Skip.from_json(skip) if skip else None,
        why=next((why for why in ti.xcom_pull(task_ids=_SKIPPING, key="why") if why), None),
    )
    if closing.failure:
        raise AirflowFailException(closing.failure)
    return closing.result


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
    """Return the state of a DAG run, or `gone` if Airflow has no such run."""
    if not ti.get_dr_count(dag_id=dag_id, run_ids=[run_id]):
        return "gone"
    state = ti.get_dagrun_state(dag_id=dag_id, run_id=run_id)
    return str(getattr(state, "value", state))  # an enumeration in a worker, a word in `dag.test()`
