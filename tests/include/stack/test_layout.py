import socket
import stat
from pathlib import Path

import pytest

from include.stack.errors import StackError
from include.stack.layout import Stack, open_stack, taken_ports
from pipelines.config.settings import REPOSITORY

PORTS = {"airflow": 8080, "mlflow": 5000, "serving": 8000, "s3": 9000, "smtp": 1025}


def test_stack_when_nothing_is_said_is_in_var_of_the_repository():
    assert open_stack(environ={}, env_file=None).home == REPOSITORY / "var"


def test_stack_when_its_folder_is_named_is_there_on_the_usual_ports(tmp_path):
    stack = open_stack(environ={"INSPECTLINE_HOME": str(tmp_path)}, env_file=None)

    assert (stack.home, stack.ports) == (tmp_path, PORTS)


def test_port_when_a_variable_names_it_is_that_one(tmp_path):
    stack = open_stack(tmp_path, {"AIRFLOW_PORT": "18080"}, None)

    assert stack.ports == PORTS | {"airflow": 18080}
    assert stack.url("airflow") == "http://127.0.0.1:18080"


def test_port_when_the_stack_runs_with_another_is_found_again(tmp_path):
    started = open_stack(tmp_path, {"S3_PORT": "19000"}, None)
    started.make_folders()
    started.remember_ports()

    assert open_stack(tmp_path, {}, None).ports["s3"] == 19000

    started.forget_ports()
    assert open_stack(tmp_path, {}, None).ports["s3"] == 9000


def test_port_when_the_env_file_names_it_counts_unless_the_shell_says_otherwise(tmp_path):
    file = tmp_path / ".env"
    file.write_text("MLFLOW_PORT=15000\nSERVING_PORT=18000\n")

    stack = open_stack(tmp_path, {"SERVING_PORT": "28000"}, file)

    assert (stack.ports["mlflow"], stack.ports["serving"]) == (15000, 28000)


@pytest.mark.parametrize("value", ["eighty", "0", "65536", "-1", "80.5"])
def test_port_when_it_is_none_names_the_variable_and_what_is_allowed(tmp_path, value):
    with pytest.raises(StackError, match=r"^AIRFLOW_PORT is .*: give a port between 1 and 65535"):
        open_stack(tmp_path, {"AIRFLOW_PORT": value}, None)


def test_port_when_two_share_it_names_both_variables(tmp_path):
    with pytest.raises(StackError, match="AIRFLOW_PORT and MLFLOW_PORT are both 7000"):
        open_stack(tmp_path, {"AIRFLOW_PORT": "7000", "MLFLOW_PORT": "7000"}, None)


def test_taken_port_when_another_program_listens_names_port_and_variable(stack):
    with socket.socket() as other:
        other.bind(("127.0.0.1", stack.ports["mlflow"]))
        other.listen()

        assert taken_ports(stack) == [
            f"port {stack.ports['mlflow']} for MLflow is taken by another program: "
            "stop that, or choose another port with MLFLOW_PORT=… make up"
        ]
    assert taken_ports(stack) == []


def test_socket_when_the_folder_is_deep_stays_short_enough_for_one():
    deep = Stack(Path("/srv") / ("x" * 90), PORTS)

    assert len(str(deep.socket)) < 100
    assert deep.socket != Stack(Path("/srv") / ("y" * 90), PORTS).socket


def test_folders_when_made_keep_the_supervisors_socket_private(stack):
    assert stat.S_IMODE(stack.socket.parent.stat().st_mode) == 0o700
