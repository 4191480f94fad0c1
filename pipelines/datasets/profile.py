"""The profile: fg-data-profiling's report (formerly ydata-profiling) on a dataset version's descriptor table.

One row a sample: its descriptors, label, type, subset, group, and when it was taken. It shows what a dataset is made of
before a model does: subsets that differ in light, a batch out of focus, a label that goes with a brightness.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.project import load_project
from pipelines.config.settings import settings
from pipelines.datasets.bit_depth import descriptors_at
from pipelines.datasets.versions import read_manifest
from pipelines.images.descriptors import DESCRIPTORS
from pipelines.steps import DatasetVersion, Record
from pipelines.storage import keys
from pipelines.storage.s3 import Storage

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
# The report's numbers do not gain from more rows, and its time grows with them.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Profile(Record):
    """A profile in S3.

    Attributes:
        uri: address of the HTML page in S3.
        url: a signed link that opens it for some days.
    """

    uri: str
    url: str


def profile(dataset: DatasetVersion, mlflow_run_id: str | None = None) -> Profile:
    """Write the profile of a dataset version to S3, unless it is there, and log it to the run in MLflow.

    Raises:
        BadDataset, StorageError: the manifest cannot be read, or S3 does not do what is asked.
    """
    project = load_project(dataset.project)
    storage = Storage(project.bucket)
    key = keys.profile(project.name, dataset.version_id)
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        page = Path(folder) / "profile.html"
        if storage.exists(key):
            storage.download(key, page)
        else:
            title = f"{project.title or project.name}, dataset version {dataset.version_id}"
            manifest = read_manifest(dataset.manifest_uri)
            _write(descriptor_table(project.name, manifest, dataset.bits), title, page)
            storage.upload(page, key, "text/html; charset=utf-8")
        url = storage.url(key)
        if mlflow_run_id:
            _log_to_run(mlflow_run_id, page, storage.uri(key))
    return Profile(storage.uri(key), url)


def descriptor_table(project: str, manifest: pd.DataFrame, bits: int | None = None) -> pd.DataFrame:
    """Return a row for each sample of the manifest: label, type, subset, group, acquired_at, and its descriptors."""
    import pandas as pd

    hashes = list(manifest["sha256"])
    descriptors = descriptors_at(project, hashes, bits)
    described = pd.DataFrame([descriptors.get(sha256, {}) for sha256 in hashes], columns=list(DESCRIPTORS), dtype=float)
    named = manifest[["label", "type", "subset", "group_key", "acquired_at"]].rename(columns={"group_key": "group"})
    table = pd.concat([named.reset_index(drop=True), described], axis=1)
    table["acquired_at"] = table["acquired_at"].dt.tz_localize(None)  # the report takes no zones; these are UTC
    return table


def _write(table: pd.DataFrame, title: str, page: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")  # there is no screen, and a worker's thread may not open windows
    from data_profiling import ProfileReport

    if len(table) > MOST_ROWS:
        log.info("the profile shows %s of %s samples, drawn at random", MOST_ROWS, len(table))
        table = table.sample(MOST_ROWS, random_state=0)
    # What is empty throughout says nothing, and the report warns of it at length.
    table = table.dropna(axis="columns", how="all")
    if table["group"].is_unique:
        table = table.drop(columns="group")
    report = ProfileReport(
        table,
        title=title,
        progress_bar=False,
        interactions={"continuous": False},  # a scatter plot for each pair of columns: the slow part
        correlations={"auto": {"calculate": True}},
        missing_diagrams={"bar": True, "matrix": False, "heatmap": False},
        duplicates={"head": 0},
        samples={"head": 5, "tail": 5, "random": 0},
    )
    with contextlib.redirect_stderr(io.StringIO()):  # it draws a progress bar there whatever one asks
        report.to_file(page, silent=True)


def _log_to_run(mlflow_run_id: str, page: Path, uri: str) -> None:
    import mlflow

    client = mlflow.MlflowClient(settings().tracking_uri)
    client.log_artifact(mlflow_run_id, str(page), "profile")
    client.set_tag(mlflow_run_id, "profile_uri", uri)
