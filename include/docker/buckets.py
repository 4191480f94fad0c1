"""Create the missing buckets of the project files and those given as arguments (MLflow's)."""

import sys
import time

from pipelines.config.project import Project, load_projects
from pipelines.errors import InspectlineError
from pipelines.storage.s3 import Storage

PATIENCE = 90.0  # seconds; an S3 server that has just started may answer before it can write


def wanted(extra: list[str]) -> list[str]:
    """Return the distinct bucket names; invalid project files are skipped, since Airflow reports them."""
    projects = [project.bucket for project in load_projects().values() if isinstance(project, Project)]
    return list(dict.fromkeys(projects + extra))


def main(arguments: list[str]) -> int:
    """Create the buckets and return the exit status."""
    end = time.monotonic() + PATIENCE
    for bucket in wanted(arguments):
        while True:
            try:
                Storage(bucket).ensure_bucket()
            except InspectlineError as error:
                if time.monotonic() > end:
                    print(error, file=sys.stderr)
                    return 1
                time.sleep(2)
            else:
                print(f"bucket {bucket} is there")
                break
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
