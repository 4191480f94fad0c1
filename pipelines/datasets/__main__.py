"""`python -m pipelines.datasets withdraw|restore|decide SAMPLE …` corrects one sample; `export FOLDER` writes files."""

import argparse
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.config.project import load_project
from pipelines.config.settings import settings
from pipelines.datasets.decisions import decide, restore, withdraw
from pipelines.datasets.export_dataset import FORMATS, export_dataset
from pipelines.errors import InspectlineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `withdraw`, `restore` or `decide` of a sample, or `export`, from a shell; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.datasets", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    parts = [commands.add_parser("withdraw", help="take a sample out of every later dataset version")]
    parts.append(commands.add_parser("decide", help="settle the label of a sample"))
    parts.append(commands.add_parser("restore", help="undo the withdrawal of a sample"))
    for part in parts:
        part.add_argument("sample", help="SHA-256 or its first digits, S3 address, or file name")
    exported = commands.add_parser("export", help="write a dataset version to a folder")
    exported.add_argument("folder", type=Path, help="a new or empty folder")
    exported.add_argument("--format", choices=FORMATS, default="mvtec")
    exported.add_argument("--version", help="id of the dataset version; the newest without it")
    for part in (*parts, exported):
        part.add_argument("--project", default=settings().default_project)
    parts[0].add_argument("--reason", default="withdrawn by hand")
    parts[1].add_argument("label", help="good or anomaly; of a classifier one of its classes")
    parts[1].add_argument("--type", help="what kind of anomaly")
    asked = parser.parse_args(arguments)
    try:
        project = load_project(asked.project).name
        if asked.command == "withdraw":
            sha256 = withdraw(project, asked.sample, asked.reason)
            print(f"{project}: sample {sha256} is withdrawn ({asked.reason}); its history stays")
        elif asked.command == "restore":
            sha256 = restore(project, asked.sample, _user())
            print(f"{project}: sample {sha256} is not withdrawn any more; the next dataset version has it again")
        elif asked.command == "export":
            print(export_dataset(project, asked.version, asked.format, asked.folder))
        else:
            sha256 = decide(project, asked.sample, asked.label, asked.type, _user())
            print(f"{project}: sample {sha256} is {asked.label} by decision")
    except InspectlineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in many containers
        return None


if __name__ == "__main__":
    sys.exit(main())
