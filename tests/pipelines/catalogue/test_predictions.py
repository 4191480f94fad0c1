"""Served images are kept for their time, and no longer."""

from datetime import timedelta
from typing import Any

import pytest

from pipelines.catalogue import connect
from pipelines.catalogue.predictions import enter, purge_expired
from pipelines.catalogue.schema import now, predictions
from pipelines.errors import StorageError
from pipelines.storage import keys
from pipelines.storage.s3 import Storage
from tests.conftest import Projects


def predicted(number: int, project: str, days: float, key: str = "") -> dict[str, Any]:
    """Return a row whose image expires in so many days."""
    moment = now()
    return {
        "request_id": f"{project}-{number}",
        "project": project,
        "sha256": f"{number:064x}",
        "created_at": moment,
        "model_version": "1",
        "score": 0.1,
        "threshold": 0.2,
        "is_anomaly": False,
        "latency_ms": 1.0,
        "width": 1,
        "height": 1,
        "descriptors": {},
        "embedding": b"",
        "image_key": key or keys.served_image(project, f"{number:064x}", "png", moment),
        "expires_at": moment + timedelta(days=days),
        "source": "upload",
    }


def image_keys(project: str) -> list[str | None]:
    """Return the image keys of the project's predictions, oldest first."""
    with connect() as connection:
        query = predictions.select().where(predictions.c.project == project).order_by(predictions.c.id)
        return [row["image_key"] for row in connection.execute(query).mappings()]


def test_purge_when_time_is_over_then_images_go_and_rows_stay(each_database: str, projects: Projects):
    projects.write("line")
    projects.write("other")
    storage = Storage(projects.bucket)
    shared = "line/served/2026-01-01/shared.png"
    made = [predicted(number, "line", -1) for number in range(3)] + [predicted(3, "line", 1)]
    made += [predicted(4, "line", -1, shared), predicted(5, "line", 1, shared), predicted(6, "other", -1)]
    for row in made:
        storage.put(row["image_key"], b"image")
    enter(made)
    enter(made)  # again changes nothing
    assert purge_expired("line") == {"images": 3, "predictions": 4}
    assert image_keys("line") == [None, None, None, made[3]["image_key"], None, shared]
    assert image_keys("other") == [made[6]["image_key"]]
    assert {stored.key for stored in storage.list("")} == {made[3]["image_key"], shared, made[6]["image_key"]}
    assert purge_expired("line") == {"images": 0, "predictions": 0}


def test_purge_when_s3_fails_midway_then_the_next_one_ends_it(
    database: str, projects: Projects, monkeypatch: pytest.MonkeyPatch
):
    projects.write("line")
    storage = Storage(projects.bucket)
    made = [predicted(number, "line", -1) for number in range(4)]
    for row in made:
        storage.put(row["image_key"], b"image")
    enter(made)
    delete = Storage.delete

    def failing(self: Storage, key: str) -> None:
        if key == sorted(row["image_key"] for row in made)[2]:
            raise StorageError("killed here")
        delete(self, key)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "delete", failing)
        with pytest.raises(StorageError):
            purge_expired("line")
    assert None not in image_keys("line")
    purge_expired("line")
    assert image_keys("line") == [None] * 4
    assert list(storage.list("")) == []
