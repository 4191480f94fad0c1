"""Connect to the catalogue's database: one engine per process and URL, and short write transactions.

On SQLite every write transaction acquires the write lock when it begins (`BEGIN IMMEDIATE`), so that concurrent writers
wait for each other (up to `BUSY_SECONDS`) instead of failing halfway.
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
CHUNK = 500  # values per IN (…) clause, within the parameter limit of every supported database
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
    sqlite_engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(sqlite_engine, "connect")
    def _pragmas(connection, _record) -> None:
        connection.isolation_level = None  # disables the driver's implicit BEGIN; _begin issues it instead
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # committed rows survive a power failure
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(sqlite_engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("inspectline_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return sqlite_engine


def engine() -> Engine:
    """Return this process's engine for the configured database URL."""
    url = settings().database_url
    owner = (os.getpid(), url)
    with _lock:
        if owner not in _engines:
            _engines[owner] = _make(url)
        return _engines[owner]


@contextmanager
def _translated_errors() -> Iterator[None]:
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
    """Open a write transaction: commit at the end, roll back on any error. Keep it short and free of other I/O.

    Raises:
        CatalogueError: the database is unreachable or stays locked.
    """
    with (
        _translated_errors(),
        engine().connect().execution_options(inspectline_writes=True) as connection,
        connection.begin(),
    ):
        yield connection


@contextmanager
def connect() -> Iterator[Connection]:
    """Open a connection for reading.

    Raises:
        CatalogueError: the database is unreachable.
    """
    with _translated_errors(), engine().connect() as connection:
        yield connection


def lock_project(connection: Connection, project: str) -> None:
    """Serialise transactions of `project` from here to their end by an advisory lock (SQLite has a single writer)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"inspectline:{project}"})


@contextmanager
def whole_table_joins(connection: Connection) -> Iterator[None]:
    """Keep PostgreSQL from nested loops within the block, for queries over all samples of a project.

    Before it has statistics of rows that have just been inserted, as after an import, it expects a handful of them and
    compares each with each. SQLite is left alone.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.execute(text("SET LOCAL enable_nestloop = off"))
    yield  # after an error, the transaction ends, and the setting with it
    connection.execute(text("SET LOCAL enable_nestloop TO DEFAULT"))


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield `values` in order as lists of at most `CHUNK`, each short enough for one IN (…) clause."""
    remaining = list(values)
    for start in range(0, len(remaining), CHUNK):
        yield remaining[start : start + CHUNK]


def insert_new(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], key: Sequence[str] | None = None
) -> None:
    """Insert rows that share the same columns, skipping those whose key exists already.

    Args:
        connection: a write transaction.
        table: the table to insert into.
        rows: values by column name; an empty sequence inserts nothing.
        key: columns of the unique key on which conflicts are ignored; None (default) means any unique key.
    """
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).on_conflict_do_nothing(index_elements=key)
    connection.execute(statement, [dict(row) for row in rows])


def migrate() -> None:
    """Migrate the database schema to this version; safe to run concurrently."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _translated_errors():
        command.upgrade(config, "head")
