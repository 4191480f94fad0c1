"""What all DAGs and tasks share: owner, tags, documentation, retries, assets."""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Asset, Context, RetryDecision, RetryPolicy

from notifier import InspectlineNotifier
from pipelines.config.project import Project
from pipelines.errors import InspectlineError

MINUTE = timedelta(minutes=1)
START = datetime(2024, 1, 1, tzinfo=UTC)  # a continuous DAG needs one; any date in the past works


class RetryPassingErrors(RetryPolicy):
    """Retry transient failures (S3, MLflow, the network, a lost worker) but never bad data."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Fail at once on an `InspectlineError` that a retry cannot fix."""
        if isinstance(exception, InspectlineError) and not exception.passing:
            return RetryDecision.fail(f"{type(exception).__name__}: trying again does not help")
        return RetryDecision.default()


def default_args(project: Project) -> dict[str, Any]:
    """Return the default arguments of every task of `project`: four tries within about four minutes."""
    return {
        "owner": "inspectline",
        "retries": 3,
        "retry_delay": timedelta(seconds=20),
        "retry_exponential_backoff": 2,
        "max_retry_delay": 5 * MINUTE,
        "retry_policy": RetryPassingErrors(),
        "execution_timeout": 30 * MINUTE,
        "on_failure_callback": InspectlineNotifier(project.name),
    }


def declaration(project: Project, kind: str, doc: str | None) -> dict[str, Any]:
    """Return the arguments of every DAG: id, documentation, tags, defaults; one run at a time, no catch-up."""
    return {
        "dag_id": f"{project.name}_{kind}",
        "dag_display_name": f"{project.name}_{kind}",
        "description": (doc or "").partition("\n")[0],
        "doc_md": f"# {project.title or project.name}: {kind}\n\n{doc}",
        "tags": ["inspectline", project.name, kind],
        "default_args": default_args(project),
        "catchup": False,
        "max_active_runs": 1,
        "max_active_tasks": 8,
    }


def dataset_asset(project: Project) -> Asset:
    """Return the asset that stands for the project's dataset versions."""
    return Asset(f"{project.name}_dataset", group="inspectline")


def model_asset(project: Project) -> Asset:
    """Return the asset that stands for the project's registered model versions."""
    return Asset(f"{project.name}_model", group="inspectline")


def run_name(context: Any) -> str:
    """Return a name that is unique across DAGs: runs of two DAGs scheduled at the same minute share a run id."""
    return f"{context['ti'].dag_id}/{context['run_id']}"
