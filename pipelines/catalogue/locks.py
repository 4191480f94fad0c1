"""One at a time across processes and machines, for steps that read something elsewhere and then write it.

MLflow's registry has no compare-and-set: whoever moves an alias or registers a version takes the project's turn first.
On PostgreSQL a turn is an advisory lock, on SQLite, which lives on one machine, a lock on a file beside the database.
Neither stops anybody from using the catalogue, and both end with the process that holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import CatalogueError

PATIENCE = 120.0  # seconds; a turn takes a second or so


@contextmanager
def registry_turn(project: str, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the project's turn at the registry. Raises CatalogueError if it does not come within `patience` seconds."""
    from sqlalchemy import text

    from pipelines.catalogue import connect, engine

    if engine().dialect.name == "postgresql":
        with connect() as connection:
            connection.execute(text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": f"{patience:.0f}s"})
            connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"inspectline:registry:{project}"}
            )
            yield
            return
    from filelock import FileLock, Timeout

    database = engine().url.database or "catalogue"
    turn = FileLock(Path(f"{database}.{project}.turn"), timeout=patience, fallback_to_soft=False)
    try:
        turn.acquire()
    except Timeout:
        raise CatalogueError(
            f"another run has been registering or promoting for {project} for {patience:.0f} s: try again"
        ) from None
    try:
        yield
    finally:
        turn.release()
