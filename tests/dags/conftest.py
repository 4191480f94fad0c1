"""The repository's DAGs, parsed as Airflow parses them."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

DAGS = REPOSITORY / "dags"
KINDS = ("ingest", "retrain", "watch", "evaluate", "drift")


def parse(folder: Path = DAGS) -> Any:
    """Return what Airflow finds in the DAG files, for the project files that the environment names now."""
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")


@pytest.fixture(scope="session")
def shipped() -> Any:
    """Return the DAGs of the projects that the repository ships."""
    return parse()


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Make Airflow's own database in the session's Airflow home, with the pool that training waits for."""
    from airflow.models.pool import Pool
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    initdb()
    with create_session() as session:
        Pool.create_or_update_pool("gpu", slots=1, description="", include_deferred=False, session=session)
