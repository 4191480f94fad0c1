"""How drift reads each task's packages and predictions: one module a task, and the table that finds it."""

from importlib import import_module

from monitoring.drift.tasks.interface import DriftTask
from pipelines.errors import SettingsError

_TASKS = {
    "anomaly": "monitoring.drift.tasks.anomaly:AnomalyDrift",
    "classification": "monitoring.drift.tasks.classification:ClassificationDrift",
}


def find_drift_task(name: str) -> DriftTask:
    """Return how drift reads the task that a project file names.

    >>> find_drift_task("classification").score_name
    'certainty'

    Raises:
        SettingsError: there is no such task.
    """
    if name not in _TASKS:
        raise SettingsError(f"drift does not know the task {name!r}: add it to monitoring/drift/tasks")
    module, _, attribute = _TASKS[name].partition(":")
    task: DriftTask = getattr(import_module(module), attribute)()
    return task
