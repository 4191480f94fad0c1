"""`python -m include.stack COMMAND`: the local stack from the command line; `make` calls it."""

import argparse
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from include.stack import boot, demo, images_in, screen, supervision
from include.stack.airflow_rest import Airflow
from include.stack.dags import unpause
from include.stack.environment import environment
from include.stack.errors import StackError
from include.stack.layout import Stack, open_stack
from include.stack.project_file import DEMO_PROJECTS, TASKS, choose_project, task_of
from pipelines.config.project_files import find_files
from pipelines.config.settings import settings
from pipelines.errors import InspectlineError


def _up(stack: Stack, options: argparse.Namespace) -> None:
    with screen.BootDisplay() as display:
        environ = boot.up(stack, display)
    airflow = Airflow.of(stack, environ)
    for project in {settings(environ).default_project, *find_files([stack.projects])[0]}:
        unpause(airflow, project)
    screen.show_addresses(stack, environ)
    screen.console.print("Stop it with [bold]make down[/]; [bold]make status[/] shows how it does.")


def _down(stack: Stack, options: argparse.Namespace) -> None:
    was_running = supervision.running(stack)
    with screen.console.status("Stopping the stack; what runs is given the time to end well …"):
        boot.down(stack)
    screen.console.print("The stack is down." if was_running else "The stack was not running.")


def _status(stack: Stack, options: argparse.Namespace) -> None:
    if not screen.show_status(stack):
        raise StackError("not everything is well" if supervision.running(stack) else "the stack is down: make up")


def _demo(stack: Stack, options: argparse.Namespace) -> None:
    default = DEMO_PROJECTS.get(options.task or "") or settings().default_project
    project = choose_project(options.project or None, options.data, default)
    demo.demo(stack, options.data, project, options.map, options.task)


def _import(stack: Stack, options: argparse.Namespace) -> None:
    project = _project(options, options.data)
    task = task_of(stack, project, options.task)
    known: list[str] = []
    if task == "classification" and supervision.running(stack):
        from pipelines.ingest.import_folder import known_classes

        images_in.use(environment(stack))
        known = known_classes(project)
    plan = images_in.plan_images(options.data, options.map, ask=True, task=task, known=known)
    environ = _running(stack)
    images_in.declare_project(stack, project, options.data, task)
    images_in.import_images(plan, project)
    unpause(Airflow.of(stack, environ), project)
    screen.console.print(f"{project}_ingest takes them in within five minutes; or start {project}_retrain now.")


def _withdraw(stack: Stack, options: argparse.Namespace) -> None:
    if options.undo:
        _datasets(stack, options, ["restore", options.sample])
        return
    reason = ["--reason", options.reason] if options.reason else []
    _datasets(stack, options, ["withdraw", options.sample, *reason])


def _decide(stack: Stack, options: argparse.Namespace) -> None:
    _datasets(stack, options, ["decide", options.sample, options.label])


def _export(stack: Stack, options: argparse.Namespace) -> None:
    project = _project(options, None)
    folder = options.to or stack.home / "exports" / f"{project}-{options.format}-{datetime.now():%Y%m%d-%H%M%S}"
    chosen = ["--version", options.version] if options.version else []
    _datasets(stack, options, ["export", str(folder), "--format", options.format, *chosen])


def _datasets(stack: Stack, options: argparse.Namespace, arguments: list[str]) -> None:
    environ = _running(stack)
    command = [sys.executable, "-m", "pipelines.datasets", *arguments, "--project", _project(options, None)]
    status = subprocess.run(command, env=environ, check=False).returncode  # noqa: S603 - our own module
    if status:
        sys.exit(status)


def _account(stack: Stack, options: argparse.Namespace) -> None:
    role = ["--role", options.role] if options.role else []
    command = [sys.executable, "-m", "pipelines.catalogue", "account", options.name, *role]
    status = subprocess.run(command, env=environment(stack), check=False).returncode  # noqa: S603 - our own module
    if status:
        sys.exit(status)


def _accounts(stack: Stack, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "pipelines.catalogue", "accounts", options.file]
    status = subprocess.run(command, env=environment(stack), check=False).returncode  # noqa: S603 - our own module
    if status:
        sys.exit(status)


def _project(options: argparse.Namespace, folder: Path | None) -> str:
    return choose_project(options.project or None, folder, settings().default_project)


def _running(stack: Stack) -> dict[str, str]:
    """Return the running stack's environment after applying it to this process."""
    if not supervision.running(stack):
        raise StackError("the stack is down: make up")
    environ = environment(stack)
    images_in.use(environ)
    return environ


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m include.stack")
    parser.add_argument("--home", type=Path, help="the stack's folder (default: INSPECTLINE_HOME, else var)")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, act: object, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=description)
        added.set_defaults(act=act)
        return added

    command("up", _up, "start the stack and wait until it is healthy")
    command("down", _down, "stop the stack")
    command("status", _status, "show every process")
    shown = command("demo", _demo, "from images to a served model")
    shown.add_argument("--data", type=Path, help="a folder of images (default: they are drawn)")
    imported = command("import", _import, "put images into a project's inbox")
    imported.add_argument("--data", type=Path, required=True)
    for part in (shown, imported):
        part.add_argument("--map", action="append", default=[], help="what a folder is: FOLDER=good, a class, …")
        part.add_argument("--task", choices=TASKS, help="task of a new project (default: anomaly)")
    withdrawn = command("withdraw", _withdraw, "keep a sample out of later dataset versions")
    withdrawn.add_argument("--reason")
    withdrawn.add_argument("--undo", action="store_true", help="let later dataset versions have it again")
    exported = command("export", _export, "write a dataset version to a folder")
    exported.add_argument("--to", type=Path, help="a new or empty folder (default: one in exports/ of the stack)")
    exported.add_argument("--format", choices=("mvtec", "coco", "yolo", "labelstudio"), default="mvtec")
    exported.add_argument("--version")
    decided = command("decide", _decide, "settle a sample's label")
    decided.add_argument("--label", required=True, help="good or anomaly; of a classifier one of its classes")
    account = command("account", _account, "make an account for serving, or give it a new password")
    account.add_argument("--name", required=True)
    account.add_argument("--role", choices=("user", "administrator"))
    accounts = command("accounts", _accounts, "make the accounts that a CSV file lists")
    accounts.add_argument("--file", required=True)
    for part in (withdrawn, decided):
        part.add_argument("--sample", required=True, help="SHA-256 or its first digits, S3 address, or file name")
    for part in (shown, imported, withdrawn, decided, exported):
        part.add_argument("--project")
    return parser


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status; errors are printed in one line."""
    options = _parser().parse_args(arguments)
    try:
        options.act(open_stack(options.home), options)
    except InspectlineError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was started goes on: make status, make down", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
