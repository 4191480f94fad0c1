"""Import images into a project's inbox: the user's own, or drawn battery cells."""

import os
from collections.abc import Mapping
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from include.demo_images import write_images
from include.stack.layout import Stack
from include.stack.project_file import declare
from include.stack.screen import console


def use(environ: Mapping[str, str]) -> None:
    """Set this process's environment to that of the stack, from which `pipelines` reads its settings."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "INSPECTLINE_", "MLFLOW_"))]:
        del os.environ[name]
    os.environ.update(environ)


def check_images(folder: Path) -> None:
    """Validate a folder before anything is started for it.

    Raises:
        BadFolder: it holds no images, or its layout leaves open which are good.
    """
    from pipelines.ingest.folder_layouts import BadFolder, find_images

    folder = folder.expanduser()
    if not folder.is_dir():
        raise BadFolder(f"{folder} is no folder: give one that holds images, as in DATA=../images")
    if not find_images(folder)[0]:
        raise BadFolder(f"{folder} holds no images (JPEG, PNG, BMP, TIFF, WebP): give a folder that does")


def declare_project(stack: Stack, project: str, source: Path | None) -> None:
    """Write a project file if there is none, and say so."""
    path = declare(stack, project, str(source.expanduser().resolve()) if source else "the demo's image generator")
    if path:
        console.print(f"Project [bold]{project}[/] is new: its settings are in {path}")


def import_images(folder: Path, project: str) -> None:
    """Upload a folder to the project's inbox, with a progress bar."""
    from pipelines.ingest.import_folder import import_folder

    columns = (TextColumn("  into the inbox"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        imported = import_folder(folder, project, lambda done, total: bar.update(task, completed=done, total=total))
    for line in imported.lines:
        console.print(f"  {line}")


def draw_demo_images(stack: Stack) -> Path:
    """Draw the demo's missing battery cells into the stack's folder and return it."""
    folder = stack.home / "demo" / "battery_cells"
    write_images(folder)
    return folder
