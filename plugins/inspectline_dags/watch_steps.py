"""The tasks of `watch` around its sensor: claim what is due, choose what to start, let go of what could not start."""

from datetime import timedelta
from typing import Any

from airflow.sdk import TriggerRule, task
from airflow.sdk.exceptions import AirflowFailException

KINDS = ("retrain", "evaluate")
# The sensor is there always, and a deferred one can fail for no fault of its own (airflow issue 72716).
UNTIRING: dict[str, Any] = {
    "retries": 10,
    "retry_delay": timedelta(seconds=10),
    "execution_timeout": timedelta(hours=25),
    "timeout": timedelta(hours=25).total_seconds(),
}


@task(multiple_outputs=True)
def claim(project: str, **context: Any) -> dict[str, Any]:
    """Claim the new images and the requests that wait: each starts one run, once."""
    from pipelines.watch import claim

    claimed = claim(project, context["run_id"])
    print(claimed["reason"])
    return claimed


@task.branch
def choose(claimed: Any) -> list[str]:
    """Start what was claimed: a retraining, an evaluation, both, or nothing."""
    return [kind for kind in KINDS if claimed[kind]]


@task(trigger_rule=TriggerRule.ALL_DONE)
def release(project: str, **context: Any) -> None:
    """Fail the requests whose run could not be started, so that who asked sees it."""
    from pipelines.watch import end

    ti, run_id = context["ti"], context["run_id"]
    states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id])[run_id]
    failed = sorted(name for name, state in states.items() if state in ("failed", "upstream_failed"))
    for kind in set(KINDS) & set(failed):
        if conf := ti.xcom_pull(task_ids="claim", key=kind):
            end(conf["request_ids"], done=False, result={"why": f"{project}_{kind} could not be started"})
    if failed:
        raise AirflowFailException(f"failed: {', '.join(failed)}")
