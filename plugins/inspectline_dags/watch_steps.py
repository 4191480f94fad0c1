"""The tasks of `watch` after its sensor: claim what is due, and choose what to start."""

from datetime import timedelta
from typing import Any

from airflow.sdk import task
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from inspectline_dags.forms import evaluate_form, retrain_form
from pipelines.config.project import load_project

KINDS = ("retrain", "evaluate")
# The sensor always runs, and a deferred sensor can fail through no fault of its own (airflow issue 72716).
UNTIRING: dict[str, Any] = {
    "retries": 10,
    "retry_delay": timedelta(seconds=10),
    "execution_timeout": timedelta(hours=7),
    "timeout": timedelta(hours=7).total_seconds(),
}


@task(multiple_outputs=True)
def claim(project: str, **context: Any) -> dict[str, Any]:
    """Claim the new images and the requests that wait: each starts one run, once; refuse what the form would refuse."""
    from pipelines.requests.watch import claim, end

    claimed = claim(project, context["run_id"])
    for kind in KINDS:
        if (conf := claimed[kind]) and (why := refusal(project, kind, conf)):
            end(conf["request_ids"], done=False, result={"why": why})
            claimed[kind] = None
            print(f"refused: {conf['reason']}: {why}")
        elif conf:
            print(conf["reason"])
    return claimed


def refusal(project: str, kind: str, conf: dict[str, Any]) -> str | None:
    """Return in one line why the form of `kind` rejects these parameters, or None."""
    form = ParamsDict(retrain_form(load_project(project)) if kind == "retrain" else evaluate_form())
    try:
        form.update(conf)
    except ParamValidationError as error:
        return str(error).partition("\n")[0]
    return None


@task.branch
def choose(claimed: Any) -> list[str]:
    """Start what was claimed: a retraining, an evaluation, both, or nothing."""
    return [kind for kind in KINDS if claimed[kind]]
