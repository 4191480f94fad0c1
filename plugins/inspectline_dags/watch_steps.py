"""The tasks of `watch` around its sensor: claim what is due, and choose what to start."""

from datetime import timedelta
from typing import Any

from airflow.sdk import task

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
