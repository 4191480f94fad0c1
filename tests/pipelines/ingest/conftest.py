"""Fixtures: an inbox in a real S3 bucket, a real catalogue, and a complete ingest in one call."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.samples import labelled_samples
from pipelines.catalogue.schema import annotations, groups, rejections, samples
from pipelines.ingest import ingest_batch, list_inbox, report, validate
from pipelines.storage.s3 import Storage
from tests.conftest import Projects
from tests.pipelines.hostile import encode, textured


def image_file(seed: int, kind: str = "PNG", size: tuple[int, int] = (40, 40)) -> bytes:
    """Return an image file unique to its seed."""
    return encode(textured(*size, seed=seed), kind)


@dataclass
class Line:
    """One project with its inbox."""

    bucket: str
    name: str = "line"
    runs: int = field(default=0)

    @property
    def storage(self) -> Storage:
        return Storage(self.bucket)

    def send(self, path: str, data: bytes) -> str:
        """Put an object into the inbox and return its key."""
        key = f"{self.name}/inbox/{path}"
        self.storage.put(key, data)
        return key

    def send_images(self, count: int, folder: str = "good", first: int = 0) -> None:
        for seed in range(first, first + count):
            self.send(f"{folder}/image-{seed:04}.png", image_file(seed))

    def ingest(self, run: str | None = None, batch_size: int = 100) -> dict[str, Any]:
        """List, process every batch and report; pass every result through JSON, as Airflow does."""
        self.runs += 1
        run = run or f"run-{self.runs}"
        listed = json.loads(json.dumps(list_inbox(self.name, run, batch_size)))
        results = [json.loads(json.dumps(ingest_batch(batch))) for batch in listed["batches"]]
        return json.loads(json.dumps(report(self.name, run, results)))

    def keys(self, below: str) -> list[str]:
        """Return the keys below a part of the project, without that part."""
        prefix = f"{self.name}/{below}/"
        return [item.key.removeprefix(prefix) for item in self.storage.list(prefix)]

    def rows(self, table: Any) -> list[dict[str, Any]]:
        with connect() as connection:
            rows = connection.execute(select(table).where(table.c.project == self.name).order_by(*table.primary_key))
            return [dict(row) for row in rows.mappings()]

    @property
    def samples(self) -> list[dict[str, Any]]:
        return self.rows(samples)

    @property
    def annotations(self) -> list[dict[str, Any]]:
        return self.rows(annotations)

    @property
    def rejections(self) -> list[dict[str, Any]]:
        return self.rows(rejections)

    @property
    def sides(self) -> dict[str, str]:
        return {row["group_key"]: row["side"] for row in self.rows(groups)}

    @property
    def labelled(self) -> list[dict[str, Any]]:
        with connect() as connection:
            return [dict(row) for row in labelled_samples(connection, self.name)]

    def state(self) -> dict[str, Any]:
        """Return the end state of ingest, which must not depend on interruptions."""
        return {
            "inbox": self.keys("inbox"),
            "stored": self.keys("samples"),
            "rejected": self.keys("rejected"),
            "samples": sorted((row["sha256"], row["key"], row["group_key"]) for row in self.samples),
            "annotations": sorted(
                (row["sha256"], row["label"], row["type"] or "", row["mask_key"] or "", row["source_key"])
                for row in self.annotations
            ),
            "rejections": sorted((row["source_key"], row["reason"]) for row in self.rejections),
            "groups": sorted(self.sides),
        }


@pytest.fixture(autouse=True)
def _settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the wait for incomplete files; time is the only thing faked in these tests."""
    monkeypatch.setattr(validate, "SETTLE_SECONDS", 0.1)


@pytest.fixture
def make_line(projects: Projects) -> Callable[..., Line]:
    """Return a factory of projects with the given keys in their file."""

    def make(name: str = "line", **keys: Any) -> Line:
        projects.write(name, **keys)
        return Line(projects.bucket, name)

    return make


@pytest.fixture
def line(make_line: Callable[..., Line], database: str) -> Line:
    """Return a project with an empty inbox, on SQLite."""
    return make_line()
