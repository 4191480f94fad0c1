"""`python -m pipelines.catalogue migrate`: bring the catalogue's tables up to date."""

import sys

from pipelines.catalogue.database import migrate
from pipelines.errors import InspectlineError


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status."""
    if arguments != ["migrate"]:
        print("usage: python -m pipelines.catalogue migrate", file=sys.stderr)
        return 2
    try:
        migrate()
    except InspectlineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
