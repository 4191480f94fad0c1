"""`python -m pipelines.datasets withdraw|restore|decide SAMPLE …`: correct one sample from a shell."""

import argparse
import getpass
import sys
from collections.abc import Sequence

from pipelines.config.project import load_project
from pipelines.config.settings import settings
from pipelines.datasets.decisions import decide, restore, withdraw
from pipelines.errors import InspectlineError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `withdraw SAMPLE`, `restore SAMPLE` or `decide SAMPLE good|anomaly` from a shell; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.datasets", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    parts = [commands.add_parser("withdraw", help="take a sample out of every later dataset version")]
    parts.append(commands.add_parser("decide", help="settle the label of a sample"))
    parts.append(commands.add_parser("restore", help="undo the withdrawal of a sample"))
    for part in parts:
        part.add_argument("sample", help="SHA-256 or its first digits, S3 address, or file name")
        part.add_argument("--project", default=settings().default_project)
    parts[0].add_argument("--reason", default="withdrawn by hand")
    parts[1].add_argument("label", choices=("good", "anomaly"))
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
