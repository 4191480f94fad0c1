"""The tasks: one package each, and the table that finds them.

A new task is one package with the same file names, and one line in `_TASKS`.
"""

from functools import cache
from importlib import import_module

from pipelines.errors import SettingsError
from pipelines.tasks.interface import Task

_TASKS = {
    "anomaly": "pipelines.tasks.anomaly.task:AnomalyTask",
    "classification": "pipelines.tasks.classification.task:ClassificationTask",
}


@cache
def find_task(name: str) -> Task:
    """Return the task that a project file, a run or a package names.

    >>> find_task("anomaly").name
    'anomaly'

    Raises:
        SettingsError: there is no such task.
    """
    if name not in _TASKS:
        raise SettingsError(f"there is no task {name!r}; tasks are {', '.join(sorted(_TASKS))}")
    module, _, attribute = _TASKS[name].partition(":")
    task: Task = getattr(import_module(module), attribute)()
    return task


def task_names() -> list[str]:
    """Return the names of all tasks, sorted."""
    return sorted(_TASKS)
