"""The programs of the local stack: what each runs, and in which order they start and stop."""

import sys
from dataclasses import dataclass
from importlib.util import find_spec

from include.stack.environment import BUCKET
from include.stack.layout import HOST, Stack


@dataclass(frozen=True)
class Program:
    """One supervised program.

    `order` is supervisord's priority: lower starts earlier and stops later. `after` names the listener that has to
    answer before it starts; `patience` is how many seconds it may take to stop before it is killed.
    """

    name: str
    command: tuple[str, ...]
    order: int
    listener: str | None = None
    after: str | None = None
    patience: int = 10


def programs(stack: Stack) -> list[Program]:
    """Return the stack's programs in the order in which they start; serving only where it is installed."""
    python = (sys.executable, "-m")
    airflow = (*python, "airflow")
    found = [
        Program(
            "s3",
            (*python, "localbucket", "--host", HOST, "--port", str(stack.ports["s3"]), str(stack.objects)),
            order=10,
            listener="s3",
        ),
        Program(
            "mailbox",
            (*python, "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Mailbox")
            + ("-l", f"{HOST}:{stack.ports['smtp']}", str(stack.mail)),
            order=10,
            listener="smtp",
        ),
        Program(
            "mlflow",
            (*python, "mlflow", "server", "--host", HOST, "--port", str(stack.ports["mlflow"]), "--workers", "1")
            + ("--backend-store-uri", f"sqlite:///{stack.home / 'mlflow.db'}")
            + ("--artifacts-destination", f"s3://{BUCKET}/mlflow"),
            order=20,
            listener="mlflow",
        ),
        Program("api-server", (*airflow, "api-server"), order=30, listener="airflow", patience=15),
        Program("dag-processor", (*airflow, "dag-processor"), order=40),
        # Task logs are read from the folder itself: nothing more has to listen.
        Program("triggerer", (*airflow, "triggerer", "--skip-serve-logs"), order=40, patience=20),
        Program("scheduler", (*airflow, "scheduler", "--skip-serve-logs"), order=50, after="airflow", patience=25),
    ]
    if find_spec("serving.app") is not None:
        found.append(
            Program(
                "serving",
                (*python, "serving", "--host", HOST, "--port", str(stack.ports["serving"])),
                order=60,
                listener="serving",
                patience=35,  # it finishes the requests that it has begun
            )
        )
    found.append(Program("guard", (*python, "include.stack.guard"), order=90))
    return found
