"""Mutual exclusion across processes and machines for read-modify-write steps on the model registry.

MLflow's registry has no compare-and-set, so registering a version and moving an alias require the project's lock. It is
an advisory lock on PostgreSQL, and a lock file beside the database on SQLite, which is confined to one machine. Neither
blocks other use of the catalogue, and both are released when the process that holds them exits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import CatalogueError

PATIENCE = 120.0  # seconds; the lock is typically held for about a second


@contextmanager
def registry_turn(project: str, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the project's registry lock.

    Raises:
        CatalogueError: the lock was not acquired within `patience` seconds.
    """
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
