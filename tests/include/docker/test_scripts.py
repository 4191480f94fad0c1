"""The scripts that the containers run, against a real S3 server and a real PostgreSQL."""

import json
import os
import subprocess
from pathlib import Path

import boto3
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from include.docker import buckets

SCRIPTS = Path(buckets.__file__).parent
PASSWORDS = {"AIRFLOW_DB_PASSWORD": "one", "MLFLOW_DB_PASSWORD": "t'wo", "CATALOGUE_DB_PASSWORD": "three"}


def test_buckets_are_made_once_for_all_projects_and_mlflow(bucket, projects):
    projects.write("first", bucket=f"{bucket}-a")
    projects.write("second", bucket=f"{bucket}-a")
    for _ in range(2):
        assert buckets.main([f"{bucket}-mlflow"]) == 0
    names = [each["Name"] for each in boto3.client("s3").list_buckets()["Buckets"]]
    assert {f"{bucket}-a", f"{bucket}-mlflow"} <= set(names)


def test_buckets_when_s3_refuses_say_so_and_fail(bucket, projects, monkeypatch, capsys):
    monkeypatch.setattr(buckets, "PATIENCE", 0.0)
    assert buckets.main(["No Such Name!"]) == 1
    assert "No Such Name!" in capsys.readouterr().err


@pytest.fixture
def psql_path():
    """PATH with PostgreSQL's programs."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return os.pathsep.join([*(str(each) for each in folders[-1:]), os.environ["PATH"]])


def test_databases_when_prepared_belong_to_one_role_each(postgres_server, psql_path):
    server = make_url(postgres_server)
    environ = {"PATH": psql_path, "PGHOST": server.host, "PGPORT": str(server.port), **PASSWORDS}
    admin = create_engine(f"{postgres_server}/postgres", isolation_level="AUTOCOMMIT")
    try:
        for _ in range(2):  # a second time, as after a change of passwords
            subprocess.run(
                [SCRIPTS / "postgres" / "10-databases.sh"],
                env=environ | {"POSTGRES_USER": server.username, "POSTGRES_DB": "postgres"},
                check=True,
                capture_output=True,
            )
        for name in ("airflow", "mlflow", "inspectline"):
            own = create_engine(server.set(username=name if name != "inspectline" else server.username, database=name))
            with own.begin() as connection:
                connection.execute(text("CREATE TABLE proof (x integer)"))
            own.dispose()
        foreign = create_engine(server.set(username="mlflow", database="airflow"))
        with pytest.raises(OperationalError, match="permission denied"):
            foreign.connect()
    finally:
        with admin.connect() as connection:
            for name in ("airflow", "mlflow", "inspectline"):
                connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
            for name in ("airflow", "mlflow"):
                connection.execute(text(f"DROP ROLE IF EXISTS {name}"))
        admin.dispose()


def test_seaweedfs_when_started_knows_three_identities_and_keeps_its_name(tmp_path):
    config, program = tmp_path / "s3.json", tmp_path / "weed"
    program.write_text('#!/bin/sh\necho "$@"\n')  # the real one cannot be had everywhere; `make docker-proof` runs it
    program.chmod(0o755)
    keys = {
        f"{who}S3_{what}": f"{who}{what}"
        for who in ("", "MLFLOW_", "SERVING_")
        for what in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    }
    completed = subprocess.run(
        ["sh", SCRIPTS / "seaweedfs.sh"],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "S3_CONFIG": str(config),
            "S3_PORT": "9000",
            "MLFLOW_BUCKET": "mlflow",
        }
        | keys,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    identities = {each["name"]: each for each in json.loads(config.read_text())["identities"]}
    assert identities["pipeline"]["actions"] == ["Admin"]
    assert identities["mlflow"]["actions"] == ["Read:mlflow", "Write:mlflow", "List:mlflow", "Tagging:mlflow"]
    assert identities["serving"]["actions"] == ["Read", "Write", "List"]
    assert identities["serving"]["credentials"] == [
        {"accessKey": "SERVING_ACCESS_KEY_ID", "secretKey": "SERVING_SECRET_ACCESS_KEY"}
    ]
    assert config.stat().st_mode & 0o077 == 0
    assert "-ip=s3" in completed
    assert "-s3.port=9000" in completed
