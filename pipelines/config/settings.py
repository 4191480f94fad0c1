"""Settings of the installation, read from environment variables; projects are in `pipelines.config.project`."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import SettingsError

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """Addresses and folders shared by all parts of Inspectline, one environment variable each.

    Attributes:
        projects: folders of project files, in order of precedence.
        database_url: SQLAlchemy URL of the catalogue.
        cache: folder for cached files.
        default_project: project of commands that name none.
        training_queue: Airflow queue of training tasks.
        airflow_url: address of Airflow for people, for links in mails and reports.
        mlflow_url: address of MLflow for people.
        serving_url: address of serving for people.
        tracking_uri: address at which programs reach MLflow.
        bucket_folder: the folder on this machine that the S3 server serves, a folder for each bucket; None elsewhere.
        rest_seconds: for how long a file of the inbox must not have changed; None: as long as the S3 server needs.
    """

    projects: tuple[Path, ...]
    database_url: str
    cache: Path
    default_project: str
    training_queue: str
    airflow_url: str
    mlflow_url: str
    serving_url: str
    tracking_uri: str
    bucket_folder: Path | None
    rest_seconds: float | None


def settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ` (default: the process's environment); nothing is cached.

    Raises:
        SettingsError: a variable has an invalid value.
    """
    env = os.environ if environ is None else environ

    def text(name: str, default: str) -> str:
        return env.get(name, "").strip() or default

    folders = text("INSPECTLINE_PROJECTS", str(REPOSITORY / "include" / "projects"))
    database_url = text("INSPECTLINE_DATABASE_URL", f"sqlite:///{Path.cwd() / 'var' / 'catalogue.db'}")
    if "://" not in database_url:
        raise SettingsError(
            f"INSPECTLINE_DATABASE_URL is {database_url!r}: give an SQLAlchemy address, "
            "such as sqlite:////data/catalogue.db or postgresql+psycopg://user@host/inspectline"
        )
    bucket_folder, rest = text("INSPECTLINE_BUCKET_FOLDER", ""), text("INSPECTLINE_REST_SECONDS", "")
    if rest and not re.fullmatch(r"\d{1,5}(\.\d+)?", rest):
        raise SettingsError(f"INSPECTLINE_REST_SECONDS is {rest!r}: give a number of seconds, such as 30")
    return Settings(
        projects=tuple(Path(folder) for folder in folders.split(os.pathsep) if folder),
        database_url=database_url,
        cache=Path(text("INSPECTLINE_CACHE", str(Path.home() / ".cache" / "inspectline"))),
        default_project=text("INSPECTLINE_DEFAULT_PROJECT", "ev_batteries"),
        training_queue=text("INSPECTLINE_TRAINING_QUEUE", "default"),
        airflow_url=text("INSPECTLINE_AIRFLOW_URL", "http://localhost:8080").rstrip("/"),
        mlflow_url=text("INSPECTLINE_MLFLOW_URL", "http://localhost:5000").rstrip("/"),
        serving_url=text("INSPECTLINE_SERVING_URL", "http://localhost:8000").rstrip("/"),
        bucket_folder=Path(bucket_folder) if bucket_folder else None,
        rest_seconds=float(rest) if rest else None,
        tracking_uri=text("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000").rstrip("/"),
    )
