"""Create project files for imported images without a declared project, in the stack's folder."""

import re
import unicodedata
from pathlib import Path

import yaml

from include.stack.errors import StackError
from include.stack.layout import Stack
from pipelines.config.project import PROJECT_NAME, load_project, project_files
from pipelines.storage.files import write_atomically

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


def declare(stack: Stack, project: str, source: str) -> Path | None:
    """Write a project file unless the project has one; return its path, or None.

    Raises:
        SettingsError: the existing project file is invalid.
    """
    files = project_files()
    if project in files:
        load_project(project)
        return None
    declared = {
        "title": project.replace("_", " ").capitalize(),
        "bucket": "inspectline",
        "timezone": "UTC",
        "model": {"preset": "small", "input_size": 128, "time_budget_minutes": 10},
        "threshold": {
            "policy": "least_cost",
            "false_positive_rate": 0.01,
            "cost_false_alarm": 1,
            "cost_miss": 20,
            "defect_rate": 0.02,
        },
        "promotion": {"minimum_auroc": 0.6, "margin": 0.02},
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
