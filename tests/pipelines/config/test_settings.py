"""What the environment says."""

import os
from pathlib import Path

import pytest

from pipelines.config.settings import settings
from pipelines.errors import SettingsError


def test_settings_when_nothing_is_set_use_the_defaults() -> None:
    found = settings({})
    assert found.default_project == "ev_batteries"
    assert found.projects[0].name == "projects"
    assert found.tracking_uri == "http://127.0.0.1:5000"
    assert found.database_url.endswith("/var/catalogue.db")


def test_settings_when_set_follow_the_environment() -> None:
    found = settings(
        {
            "INSPECTLINE_PROJECTS": os.pathsep.join(["/a", "/b"]),
            "INSPECTLINE_AIRFLOW_URL": "https://airflow.example.com/",
            "INSPECTLINE_TRAINING_QUEUE": " gpu ",
        }
    )
    assert found.projects == (Path("/a"), Path("/b"))
    assert found.airflow_url == "https://airflow.example.com"
    assert found.training_queue == "gpu"


def test_settings_when_the_database_is_no_address_shows_one() -> None:
    with pytest.raises(SettingsError, match="INSPECTLINE_DATABASE_URL is 'catalogue.db': give an SQLAlchemy address"):
        settings({"INSPECTLINE_DATABASE_URL": "catalogue.db"})
