"""A dataset version of tiny parts in S3, its pack, and the run that trains on it."""

import hashlib
import io

import pytest
from PIL import Image

from pipelines.config.project import load_project
from pipelines.steps import DatasetVersion, PackRef, Run, RunSettings, TrainingParameters
from pipelines.storage.s3 import Storage
from tests.pipelines.tasks.anomaly.pictures_of_parts import good_parts

SUBSETS = {"training": 18, "validation": 8, "test": 2}


@pytest.fixture
def run(mlflow_server: str, projects, cache, project_name: str) -> Run:
    """Store samples and a manifest, and return the run as `runs.begin` would."""
    import pandas as pd
    from mlflow import MlflowClient

    projects.write(project_name, model={"input_size": 32, "batch_size": 8, "epochs": 3, "time_budget_minutes": 5})
    storage = Storage(projects.bucket)
    rows = []
    subsets = [subset for subset, count in SUBSETS.items() for _ in range(count)]
    for subset, pixels in zip(subsets, good_parts(len(subsets)), strict=True):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        sha256 = hashlib.sha256(stream.getvalue()).hexdigest()
        key = f"{project_name}/samples/{sha256[:2]}/{sha256}.png"
        storage.put(key, stream.getvalue())
        row = {"sha256": sha256, "key": key, "label": "good", "type": None, "subset": subset, "mask_key": None}
        rows.append(row | {"width": 32, "height": 32, "group_key": sha256, "acquired_at": None})
    manifest = io.BytesIO()
    pd.DataFrame(rows).sort_values("sha256").to_parquet(manifest, index=False)
    manifest_uri = storage.put(f"{project_name}/v1/dataset/manifest.parquet", manifest.getvalue())
    client = MlflowClient()
    return Run(
        project=project_name,
        kind="retrain",
        training_id="t1",
        dataset=DatasetVersion(project_name, "v1", "", manifest_uri),
        parameters=TrainingParameters(None, None, "scratch", promote=True),
        settings=RunSettings(model=load_project(project_name).model),
        mlflow_run_id=client.create_run(client.create_experiment(project_name)).info.run_id,
    )


@pytest.fixture
def pack(run: Run) -> PackRef:
    """Build the run's pack."""
    from pipelines.datasets.pack import build

    return build(run.dataset, run.settings.model)
