"""The database underneath the catalogue."""

import threading
from datetime import datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select

from pipelines.catalogue import connect, migrate, transaction
from pipelines.catalogue.schema import groups, metadata, rejections
from pipelines.errors import CatalogueError


def test_migrate_when_done_gives_the_tables_of_the_schema(each_database: str) -> None:
    with connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, _: not (kind == "table" and name == "inspectline_version")},
        )
        assert compare_metadata(context, metadata) == []


def test_migrate_when_several_start_at_once_does_it_once(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSPECTLINE_DATABASE_URL", postgres_url)
    import subprocess
    import sys

    started = [subprocess.Popen([sys.executable, "-m", "pipelines.catalogue", "migrate"]) for _ in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    migrate()


def test_transaction_when_the_body_fails_leaves_nothing(each_database: str) -> None:
    with pytest.raises(RuntimeError), transaction() as connection:
        connection.execute(groups.insert().values(project="p", group_key="g", side="test", origin="hashed"))
        raise RuntimeError
    with connect() as connection:
        assert connection.execute(select(func.count()).select_from(groups)).scalar() == 0


def test_transaction_when_many_write_at_once_keeps_all(each_database: str) -> None:
    def write(thread: int) -> None:
        for number in range(10):
            with transaction() as connection:
                seen = connection.execute(select(func.count()).select_from(rejections)).scalar()
                connection.execute(
                    rejections.insert().values(project="p", source_key=f"{thread}/{number}", reason=f"after {seen}")
                )

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connect() as connection:
        assert connection.execute(select(func.count()).select_from(rejections)).scalar() == 60


def test_instant_when_without_zone_is_refused(database: str) -> None:
    with pytest.raises(Exception, match="has no time zone"), transaction() as connection:
        connection.execute(
            rejections.insert().values(project="p", source_key="k", reason="r", rejected_at=datetime(2026, 1, 1))
        )


def test_connect_when_the_database_is_unreachable_says_where_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INSPECTLINE_DATABASE_URL", "postgresql+psycopg://user:secret@127.0.0.1:9/catalogue")
    with pytest.raises(CatalogueError, match=r"127\.0\.0\.1:9/catalogue cannot be used") as caught, connect():
        pass
    assert "secret" not in str(caught.value)
    assert caught.value.passing


def test_sqlite_when_opened_is_in_wal_mode(database: str, tmp_path: Path) -> None:
    with connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
