"""What docker-compose.yaml promises, read from the file: no engine is needed. `make docker-proof` runs it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.docker.make_env import assigned
from include.stack.layout import LISTENERS

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = ["include/docker/airflow.Dockerfile", "serving/Dockerfile"]
REQUIRED = re.compile(r"\$\{(\w+):\?")
SECRET_NAME = re.compile(
    r"PASSWORD|SECRET|_KEY$|ACCESS_KEY_ID|REDISCLI_AUTH|RESULT_BACKEND|BROKER_URL|SQL_ALCHEMY|STORE_URI"
)


class _Loader(yaml.SafeLoader):
    """YAML with compose's own tags, which say how a file is laid over another."""


_Loader.add_multi_constructor(
    "!",
    lambda loader, _tag, node: (
        loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else None
    ),
)


def read(name: str) -> dict[str, Any]:
    return yaml.load((ROOT / name).read_text(encoding="utf-8"), Loader=_Loader)


COMPOSE = read("docker-compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LASTING = [name for name in SERVICES if name != "init"]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


def test_services_are_those_that_the_design_names():
    assert set(SERVICES) == {
        *("postgres", "redis", "s3", "mailpit", "mlflow", "init", "serving"),
        *("api-server", "scheduler", "dag-processor", "triggerer", "worker", "worker-gpu"),
    }


@pytest.mark.parametrize("name", SERVICES)
def test_service_when_it_runs_has_no_root_and_no_privilege(name):
    service = SERVICES[name]
    assert str(service["user"]).split(":")[0] not in ("", "0", "root")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_published_ports_are_bound_to_this_machine_unless_told_otherwise(name):
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:")


@pytest.mark.parametrize("name", ["postgres", "redis"])
def test_databases_are_not_published(name):
    assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", LASTING)
def test_service_that_lasts_has_a_health_check_and_comes_back(name):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"])


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_wait_for_health(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other == "init" else "service_healthy"
        assert how == {"condition": expected}


@pytest.mark.parametrize("name", LASTING)
def test_service_that_needs_tables_or_buckets_waits_for_init(name):
    if "build" in SERVICES[name] or "inspectline" in SERVICES[name]["image"]:
        assert "init" in SERVICES[name]["depends_on"]


@pytest.mark.parametrize("name", SERVICES)
def test_data_is_kept_in_named_volumes_and_files_of_ours_are_read_only(name):
    for mount in SERVICES[name].get("volumes", []):
        source, _, mode = mount.partition(":")[0], None, mount.split(":")[2:]
        if source.startswith("."):
            assert mode == ["ro"]
            assert (ROOT / source).exists()
        else:
            assert source in COMPOSE["volumes"]


def test_volumes_are_all_used():
    used = {mount.partition(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= used


def test_profiles_hold_the_gpu_worker_alone():
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "worker-gpu": ["gpu"]
    }
    gpu = SERVICES["worker-gpu"]
    assert "--queues=gpu" in gpu["command"]
    assert gpu["build"]["args"]["ACCELERATOR"] == "gpu"
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_env_and_are_refused_when_missing(name):
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRET_NAME.search(variable):
            assert REQUIRED.search(str(value)), f"{variable} of {name} has a value of its own"


def test_required_variables_are_those_that_the_example_leaves_empty():
    required = set(REQUIRED.findall((ROOT / "docker-compose.yaml").read_text(encoding="utf-8")))
    assert required == {variable for variable, value in assigned(EXAMPLE).items() if not value}


def test_optional_variables_of_the_example_are_read_somewhere():
    compose = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
    for variable in re.findall(r"^# ([A-Z][A-Z0-9_]*)=", EXAMPLE, re.MULTILINE):
        assert f"${{{variable}:-" in compose or variable == "COMPOSE_PROFILES", variable


def test_ports_are_those_of_the_local_stack():
    compose = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
    for _, variable, usual in LISTENERS.values():
        assert f"${{{variable}:-{usual}}}" in compose


@pytest.mark.parametrize("name", SERVICES)
def test_images_of_others_name_a_version(name):
    image = SERVICES[name]["image"]
    if "inspectline" not in image:
        assert re.search(r":v?\d", image)


def test_serving_listens_on_the_port_that_is_published():
    serving = SERVICES["serving"]
    assert serving["ports"] == [
        f"${{BIND_ADDRESS:-127.0.0.1}}:{serving['environment']['PORT']}:{serving['environment']['PORT']}"
    ]


def test_serving_holds_no_credential_of_airflow_nor_the_pipelines_keys():
    environment = SERVICES["serving"]["environment"]
    assert not [name for name in environment if name.startswith("AIRFLOW")]
    assert "SERVING_S3" in environment["AWS_ACCESS_KEY_ID"]
    assert "SERVING_S3" in environment["AWS_SECRET_ACCESS_KEY"]


def test_airflow_services_share_one_environment():
    airflow = [
        SERVICES[name]["environment"] for name in ("api-server", "scheduler", "dag-processor", "triggerer", "worker")
    ]
    assert all(environment == airflow[0] for environment in airflow)
    assert airflow[0]["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert airflow[0]["AIRFLOW__CORE__LOAD_EXAMPLES"] == "false"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfile_ends_as_an_ordinary_user_on_a_named_base(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert users
    assert users[-1].split(":")[0] not in ("0", "root")
    assert "python:3.12-slim" in text
    assert "# syntax=" not in text  # fetched from a registry, which not every builder reaches


def test_stand_ins_replace_only_what_cannot_be_had_everywhere():
    stand_ins = read("tests/docker/stand-ins.yaml")
    assert set(stand_ins["services"]) == {"s3", "mailpit", "postgres"}
