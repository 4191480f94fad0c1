"""The profile of a dataset version: a readable page in S3 and in the run."""

import time

import mlflow
import pytest

from pipelines.datasets.profile import descriptor_table, profile
from pipelines.datasets.versions import freeze, read_manifest
from pipelines.images.descriptors import DESCRIPTORS
from pipelines.steps import DatasetVersion
from pipelines.storage.s3 import Storage
from tests.pipelines.ingest.conftest import Line


@pytest.fixture
def dataset(projects, database, project_name: str) -> DatasetVersion:
    projects.write(project_name, title="Lids", group={"regex": "image-00(..)"})
    line = Line(projects.bucket, project_name)
    line.send_images(50)
    line.send_images(4, "anomaly/dent", first=100)
    line.ingest()
    return freeze(project_name)


def test_descriptor_table_when_made_then_has_a_row_a_sample(dataset):
    table = descriptor_table(dataset.project, read_manifest(dataset.manifest_uri))
    assert len(table) == 54
    assert set(DESCRIPTORS) < set(table.columns)
    assert table[list(DESCRIPTORS)].notna().all().all()
    assert set(table["subset"]) >= {"training", "validation", "test"}


@pytest.mark.slow
def test_profile_when_made_then_lies_in_s3_and_in_the_run_and_is_made_once(dataset, mlflow_server, bucket):
    experiment = mlflow.MlflowClient().create_experiment(dataset.project)
    mlflow_run = mlflow.MlflowClient().create_run(experiment).info.run_id
    started = time.process_time()  # not wall time: other work on the machine does not count
    stored = profile(dataset, mlflow_run)
    assert time.process_time() - started < 60
    assert stored.uri == f"s3://{bucket}/{dataset.project}/{dataset.version_id}/profile/profile.html"
    import requests

    page = requests.get(stored.url, timeout=10)
    assert page.headers["Content-Type"].startswith("text/html")
    assert f"Lids, dataset version {dataset.version_id}" in page.text
    for name in ("brightness", "sharpness", "entropy", "subset"):
        assert name in page.text
    assert [item.path for item in mlflow.MlflowClient().list_artifacts(mlflow_run, "profile")] == [
        "profile/profile.html"
    ]
    assert mlflow.MlflowClient().get_run(mlflow_run).data.tags["profile_uri"] == stored.uri

    key = stored.uri.removeprefix(f"s3://{bucket}/")
    written = Storage(bucket).stat(key)
    assert profile(dataset).uri == stored.uri
    assert Storage(bucket).stat(key) == written
