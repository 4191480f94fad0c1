"""The catalogue's database layer."""

import threading
from datetime import datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text

from pipelines.catalogue import connect, migrate, transaction
from pipelines.catalogue.database import MIGRATIONS
from pipelines.catalogue.schema import annotations, groups, metadata, now, predictions, rejections
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


def test_migrate_of_rows_from_before_tasks_keeps_their_meaning(each_database: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    command.downgrade(config, "0003")
    insert = (
        "INSERT INTO predictions (request_id, project, sha256, created_at, model_version, score, threshold, is_anomaly,"
        " latency_ms, width, height, descriptors, embedding) VALUES ('r', 'line', 'ab', '2026-01-01 00:00:00', '1',"
        " 0.5, 0.25, true, 1, 8, 8, '{}', '')"
    )
    with transaction() as connection:
        connection.execute(text(insert))
        connection.execute(
            text(
                "INSERT INTO annotations (project, sha256, label, origin, created_at)"
                " VALUES ('line', 'ab', 'anomaly', 'inbox', '2026-01-01 00:00:00')"
            )
        )
    migrate()
    with connect() as connection:
        row = connection.execute(select(predictions)).mappings().one()
        annotation = connection.execute(select(annotations)).mappings().one()
    assert (row["task"], row["score"], row["threshold"], row["is_anomaly"]) == ("anomaly", 0.5, 0.25, True)
    assert row["answer"] is None
    assert (annotation["label"], annotation["content"]) == ("anomaly", None)


def test_predictions_and_annotations_hold_the_answer_of_any_task(each_database: str) -> None:
    answer = {"species": "Amanita muscaria", "certainty": 0.93}
    with transaction() as connection:
        common = {"project": "fungi", "sha256": "ab", "created_at": now(), "model_version": "1", "latency_ms": 1.0}
        size = {"width": 8, "height": 8, "descriptors": {}, "embedding": b""}
        connection.execute(
            predictions.insert().values(request_id="r", task="classification", answer=answer, **common, **size)
        )
        regions = {"regions": [{"type": "scratch", "box": [1, 2, 3, 4]}]}
        label = "Amanita muscaria var. guessowii"
        connection.execute(
            annotations.insert().values(project="fungi", sha256="ab", label=label, origin="inbox", content=regions)
        )
    with connect() as connection:
        row = connection.execute(select(predictions)).mappings().one()
        assert (row["task"], row["answer"], row["score"]) == ("classification", answer, None)
        kept = connection.execute(select(annotations)).mappings().one()
        assert (kept["label"], kept["content"]) == (label, regions)


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
                count = connection.execute(select(func.count()).select_from(rejections)).scalar()
                connection.execute(
                    rejections.insert().values(project="p", source_key=f"{thread}/{number}", reason=f"after {count}")
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
