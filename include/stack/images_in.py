"""Import images into a project's inbox: the user's own, or drawn battery cells or mushroom caps."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from include import demo_caps, demo_images
from include.stack.layout import Stack
from include.stack.project_file import declare
from include.stack.screen import console

if TYPE_CHECKING:
    from pipelines.ingest.import_plan import ImportPlan


def use(environ: Mapping[str, str]) -> None:
    """Set this process's environment to that of the stack, from which `pipelines` reads its settings."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "INSPECTLINE_", "MLFLOW_"))]:
        del os.environ[name]
    os.environ.update(environ)


def plan_images(
    folder: Path,
    maps: Sequence[str] = (),
    *,
    ask: bool = False,
    task: str = "anomaly",
    known: Collection[str] = (),
) -> ImportPlan:
    """Print what an import of a folder would do, before anything is started for it, and return the plan.

    Args:
        folder: the folder of images.
        maps: what folders are, as FOLDER=MEANING. Default empty.
        ask: whether to ask before going on, on a terminal. Default False.
        task: the project's task. Default anomaly.
        known: classes that the project has already. Default empty.

    Raises:
        BadFolder: it holds no images or is not understood, or the answer was no.
    """
    from pipelines.ingest.folder_maps import read_maps
    from pipelines.ingest.import_folder import confirm
    from pipelines.ingest.import_plan import BadFolder
    from pipelines.ingest.plan_import import plan_import

    plan = plan_import(folder, read_maps(maps), task=task, known=known)
    for line in plan.lines():
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    plan.check()
    if ask and not confirm(plan, os.environ.get("YES") == "1"):
        raise BadFolder("nothing was imported")
    return plan


def declare_project(stack: Stack, project: str, source: Path | None, task: str = "anomaly") -> None:
    """Write a project file if there is none, and say so."""
    origin = str(source.expanduser().resolve()) if source else "the demo's image generator"
    path = declare(stack, project, origin, task)
    if path:
        console.print(f"Project [bold]{project}[/] is new: its settings are in {path}")


def import_images(plan: ImportPlan, project: str) -> None:
    """Upload the images of a plan to the project's inbox, with a progress bar."""
    from pipelines.ingest.import_folder import upload_plan

    columns = (TextColumn("  into the inbox"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        imported = upload_plan(plan, project, lambda done, total: bar.update(task, completed=done, total=total))
    for line in imported.lines:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def draw_demo_images(stack: Stack, task: str = "anomaly") -> Path:
    """Draw what is missing of the demo's battery cells, or mushroom caps, into the stack's folder and return it."""
    if task == "classification":
        folder = stack.home / "demo" / "mushroom_caps"
        demo_caps.write_images(folder)
    else:
        folder = stack.home / "demo" / "battery_cells"
        demo_images.write_images(folder)
    return folder
