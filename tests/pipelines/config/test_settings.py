"""Settings from environment variables."""

import os
from pathlib import Path

import pytest

from pipelines.config.settings import settings
from pipelines.errors import SettingsError


def test_settings_when_nothing_is_set_use_the_defaults() -> None:
    defaults = settings({})
    assert defaults.default_project == "ev_batteries"
    assert defaults.projects[0].name == "projects"
    assert defaults.tracking_uri == "http://127.0.0.1:5000"
    assert defaults.database_url.endswith("/var/catalogue.db")


def test_settings_when_set_follow_the_environment() -> None:
    configured = settings(
        {
            "INSPECTLINE_PROJECTS": os.pathsep.join(["/a", "/b"]),
            "INSPECTLINE_AIRFLOW_URL": "https://airflow.example.com/",
            "INSPECTLINE_TRAINING_QUEUE": " gpu ",
        }
    )
    assert configured.projects == (Path("/a"), Path("/b"))
    assert configured.airflow_url == "https://airflow.example.com"
    assert configured.training_queue == "gpu"


def test_settings_when_the_database_is_no_address_shows_one() -> None:
    with pytest.raises(SettingsError, match="INSPECTLINE_DATABASE_URL is 'catalogue.db': give an SQLAlchemy address"):
        settings({"INSPECTLINE_DATABASE_URL": "catalogue.db"})


def test_settings_when_the_rest_is_no_number_says_so() -> None:
    assert settings({"INSPECTLINE_REST_SECONDS": "2.5"}).rest_seconds == 2.5
    with pytest.raises(SettingsError, match="INSPECTLINE_REST_SECONDS is 'soon': give a number of seconds"):
        settings({"INSPECTLINE_REST_SECONDS": "soon"})
