"""The catalogue's database: one engine for each process and address, and short write transactions.

On SQLite every write transaction takes the write lock at its start (`BEGIN IMMEDIATE`), so that two writers wait for
each other (at most `BUSY_SECONDS`) instead of failing in the middle.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from pipelines.config.settings import settings
from pipelines.errors import CatalogueError

BUSY_SECONDS = 30
CONNECT_SECONDS = 10
MIGRATIONS = Path(__file__).parent / "migrations"
CHUNK = 500  # values to an IN (…): every database takes that many parameters
T = TypeVar("T")
_lock = threading.Lock()
_engines: dict[tuple[int, str], Engine] = {}


def _make(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        patience = {} if "connect_timeout" in parsed.query else {"connect_timeout": CONNECT_SECONDS}
        return create_engine(parsed, pool_pre_ping=True, pool_size=5, max_overflow=10, connect_args=patience)
    if parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    made = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(made, "connect")
    def _pragmas(connection, _record) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would come too late: see _begin
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # a committed sample outlives a power cut
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(made, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("inspectline_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return made


def engine() -> Engine:
    """Return this process's engine for the catalogue that the settings name."""
    url = settings().database_url
    made_for = (os.getpid(), url)
    with _lock:
        if made_for not in _engines:
            _engines[made_for] = _make(url)
        return _engines[made_for]


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        where = make_url(settings().database_url).render_as_string(hide_password=True)
        cause = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        raise CatalogueError(
            f"the catalogue at {where} cannot be used: {cause}; check INSPECTLINE_DATABASE_URL"
        ) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise CatalogueError(f"the catalogue's database went away: {error.orig}; try again") from error
        raise


@contextmanager
def transaction() -> Iterator[Connection]:
    """Open a write transaction: committed at the end, rolled back on any error. Keep it short, do no I/O inside.

    Raises:
        CatalogueError: the database cannot be reached or stays locked.
    """
    with _told(), engine().connect().execution_options(inspectline_writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def connect() -> Iterator[Connection]:
    """Open a connection for reading.

    Raises:
        CatalogueError: the database cannot be reached.
    """
    with _told(), engine().connect() as connection:
        yield connection


def lock_project(connection: Connection, project: str) -> None:
    """Let one transaction at a time pass this point for `project`, until it ends (SQLite has one writer anyway)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"inspectline:{project}"})


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield `values` in order, in lists of at most `CHUNK`, each fit for one IN (…)."""
    remaining = list(values)
    for start in range(0, len(remaining), CHUNK):
        yield remaining[start : start + CHUNK]


def insert_new(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], key: Sequence[str] | None = None
) -> None:
    """Insert rows, all with the same columns, leaving out those whose key is already in the table.

    Args:
        connection: a write transaction.
        table: the table to insert into.
        rows: the values by column name; none insert nothing.
        key: the columns of the unique key that may be taken; None (default) means any unique key.
    """
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing(index_elements=key)
    connection.execute(statement, [dict(row) for row in rows])


def migrate() -> None:
    """Bring the database's tables to this version's, whatever their version; safe to run by several at once."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _told():
        command.upgrade(config, "head")
