"""Build the environment of the stack's programs; the only module that defines local settings."""

import json
import os
import sys
from pathlib import Path

from include.stack.credentials import ADMIN, credentials
from include.stack.envfile import read_env
from include.stack.layout import ENV_FILE, HOST, Stack
from pipelines.config.settings import REPOSITORY

BUCKET = "inspectline"
# Inherited from a shell, these would direct parts of the stack to foreign servers.
_FOREIGN = ("AIRFLOW", "AWS_", "INSPECTLINE_", "MLFLOW_", "_MLFLOW_", "SERVING_", "PYTHONPATH", "SUPERVISOR_")
# Variables of `.env` that apply to the local stack; the others are for docker compose.
_SETTABLE = ("INSPECTLINE_", "AIRFLOW_CONN_", "AIRFLOW_VAR_", "KERAS_BACKEND")


def environment(stack: Stack, env_file: Path | None = ENV_FILE) -> dict[str, str]:
    """Return the environment of the stack's programs and of commands that use a running stack.

    `_SETTABLE` variables in `env_file` take precedence, so that a real SMTP server, for instance, is configured there.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    from_file = read_env(env_file) if env_file and env_file.exists() else {}
    chosen = {name: value for name, value in from_file.items() if name.startswith(_SETTABLE)}
    generated = credentials(stack)
    return kept | _shared(stack) | _airflow(stack) | generated | chosen


def _shared(stack: Stack) -> dict[str, str]:
    programs = Path(sys.executable).parent
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "SPT_NOENV": "1",  # setproctitle would overwrite /proc/<pid>/environ, where `processes` looks
        "MALLOC_ARENA_MAX": "2",  # glibc's arenas for each thread cost these servers some 50 MB each
        "AWS_ENDPOINT_URL": stack.url("s3"),
        "MLFLOW_S3_ENDPOINT_URL": stack.url("s3"),
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",  # localbucket checks neither
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "MLFLOW_TRACKING_URI": stack.url("mlflow"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "INSPECTLINE_HOME": str(stack.home),
        "INSPECTLINE_PROJECTS": f"{REPOSITORY / 'include' / 'projects'}{os.pathsep}{stack.projects}",
        "INSPECTLINE_BUCKET_FOLDER": str(stack.objects),
        "INSPECTLINE_DATABASE_URL": f"sqlite:///{stack.home / 'catalogue.db'}",
        "INSPECTLINE_CACHE": str(stack.home / "cache"),
        "INSPECTLINE_AIRFLOW_URL": stack.url("airflow", "localhost"),
        "INSPECTLINE_MLFLOW_URL": stack.url("mlflow", "localhost"),
        "INSPECTLINE_SERVING_URL": stack.url("serving", "localhost"),
    }


def _airflow(stack: Stack) -> dict[str, str]:
    smtp = {
        "conn_type": "smtp",
        "host": HOST,
        "port": stack.ports["smtp"],
        "extra": {"disable_tls": True, "disable_ssl": True, "from_email": "inspectline@localhost", "retry_limit": 3},
    }
    sections = {
        "core": {
            "executor": "LocalExecutor",
            "parallelism": "4",
            "load_examples": "false",
            "dags_folder": str(REPOSITORY / "dags"),
            "plugins_folder": str(REPOSITORY / "plugins"),
            "simple_auth_manager_users": f"{ADMIN}:admin",
            "simple_auth_manager_passwords_file": str(stack.airflow / "passwords.json"),
            "execution_api_server_url": f"{stack.url('airflow')}/execution/",
        },
        # SQLite writers wait for each other longer than the default of five seconds.
        "database": {"sql_alchemy_conn": f"sqlite:///{stack.airflow / 'airflow.db'}?timeout=60"},
        "api": {
            "host": HOST,
            "port": str(stack.ports["airflow"]),
            "workers": "1",
            "base_url": stack.url("airflow", "localhost"),
        },
        # During a start on two cores, the API may exceed a task's default timeout of five seconds.
        "workers": {"execution_api_timeout": "30"},
        "logging": {"base_log_folder": str(stack.airflow / "logs")},
        "dag_processor": {"parsing_processes": "1", "min_file_process_interval": "30"},
        # Detects tasks whose process has died within 90 seconds instead of five minutes.
        "scheduler": {
            "task_instance_heartbeat_timeout": "60",
            "task_instance_heartbeat_timeout_detection_interval": "10",
            "orphaned_tasks_check_interval": "30",
        },
        "usage_data_collection": {"enabled": "false"},
    }
    variables = {
        f"AIRFLOW__{section.upper()}__{key.upper()}": value
        for section, keys in sections.items()
        for key, value in keys.items()
    }
    return variables | {"AIRFLOW_HOME": str(stack.airflow), "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(smtp)}
