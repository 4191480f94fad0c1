"""Create project files for imported images without a declared project, in the stack's folder."""

import re
import unicodedata
from pathlib import Path

import yaml

from include.stack.errors import StackError
from include.stack.layout import Stack
from pipelines.config.project import PROJECT_NAME, load_project, project_files, read_project
from pipelines.config.project_files import find_files
from pipelines.config.settings import settings
from pipelines.storage.files import write_atomically

TASKS = ("anomaly", "classification")
# Of the demo without a folder; that of any other task is the installation's default.
DEMO_PROJECTS = {"classification": "mushrooms"}
_LONGEST = 40  # letters; DAG ids, S3 keys and tables carry the name
_HEAD = """\
# Written by `make import` or `make demo` for the images of
#   {source}
# Everything may be changed; a mistake is shown in Airflow as this project's import error. A line that is to stay
# belongs into include/projects/.
"""


def slug(name: str) -> str:
    """Convert `name` to a valid project name: lower-case letters, digits and _, beginning with a letter."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    if not words[:1].isalpha():
        words = f"line_{words}".rstrip("_")
    return words[:_LONGEST].rstrip("_")


def choose_project(project: str | None, folder: Path | None, default: str) -> str:
    """Return the project to use: the given one, else one with the folder's name, else the default.

    Raises:
        StackError: `project` cannot be the name of one.
    """
    if project is None:
        return slug(folder.expanduser().resolve().name) if folder else default
    if not PROJECT_NAME.fullmatch(project):
        raise StackError(
            f"PROJECT is {project!r}: name it with lower-case letters, digits and _, as in PROJECT={slug(project)}"
        )
    return project


def task_of(stack: Stack, project: str, asked: str | None) -> str:
    """Return the task of a project: that of its file, else the one that was asked for, else anomaly.

    Raises:
        StackError: another task was asked for than its file says.
        SettingsError: the existing project file is invalid.
    """
    files, _ = find_files([*settings().projects, stack.projects])
    if project not in files:
        return asked or "anomaly"
    task = read_project(files[project]).task
    if asked and asked != task:
        raise StackError(
            f"{project} is a line of task {task} by {files[project]}, and TASK is {asked}: name another project, as in "
            f"PROJECT={slug(f'{project}_{asked}')}"
        )
    return task


def declare(stack: Stack, project: str, source: str, task: str = "anomaly") -> Path | None:
    """Write a project file with `task` (default anomaly) unless the project has one; return its path, or None.

    Raises:
        SettingsError: the existing project file is invalid.
    """
    files = project_files()
    if project in files:
        load_project(project)
        return None
    of_task = {
        "anomaly": {
            "model": {"preset": "small", "input_size": 128, "time_budget_minutes": 10},
            "threshold": {
                "policy": "least_cost",
                "false_positive_rate": 0.01,
                "cost_false_alarm": 1,
                "cost_miss": 20,
                "defect_rate": 0.02,
            },
            "promotion": {"minimum_auroc": 0.6, "margin": 0.02},
        },
        "classification": {
            "model": {"time_budget_minutes": 15},
            "promotion": {"minimum_accuracy": 0.7, "margin": 0.02},
        },
    }
    declared = {
        "task": task,
        "title": project.replace("_", " ").capitalize(),
        "bucket": "inspectline",
        "timezone": "UTC",
        **of_task[task],
        "retrain": {"new_images": 500, "cron": "0 2 * * *"},
        "serve": "champion",
        "keep_served_days": 30,
        "recipients": ["line-quality@example.com"],
    }
    stack.projects.mkdir(parents=True, exist_ok=True)
    path = stack.projects / f"{project}.yaml"
    head = _HEAD.format(source=" ".join(source.split()))
    write_atomically(path, head + yaml.safe_dump(declared, sort_keys=False, allow_unicode=True), durable=True)
    return path
