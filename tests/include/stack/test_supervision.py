import configparser
import shlex
from importlib.util import find_spec
from pathlib import Path

from include.stack import supervision
from include.stack.environment import environment
from include.stack.layout import Stack
from include.stack.programs import programs


def read(stack):
    parser = configparser.RawConfigParser(inline_comment_prefixes=None)
    parser.read_string(supervision.configuration(stack))
    return parser


def test_configuration_when_made_has_every_program_restarted_and_ended_with_its_group(stack):
    configuration = read(stack)
    sections = {name.removeprefix("program:") for name in configuration.sections() if name.startswith("program:")}

    expected = {"s3", "mailbox", "mlflow", "api-server", "dag-processor", "triggerer", "scheduler", "serving", "guard"}
    assert find_spec("serving.app") is not None
    assert sections == expected
    for name in expected:
        section = configuration[f"program:{name}"]
        assert section["autorestart"] == "true"
        assert section["stopasgroup"] == section["killasgroup"] == "true"


def test_configuration_when_made_listens_on_this_machine_alone(stack):
    for program in programs(stack):
        words = " ".join(program.command)
        assert "0.0.0.0" not in words
        if program.listener and program.name != "api-server":  # that one reads AIRFLOW__API__HOST
            assert "127.0.0.1" in words
            assert str(stack.ports[program.listener]) in words


def test_configuration_when_made_stops_what_uses_others_before_them(stack):
    order = {program.name: program.order for program in programs(stack)}

    assert order["s3"] < order["mlflow"] < order["api-server"] < order["scheduler"] < order["serving"] < order["guard"]


def test_configuration_when_paths_hold_blanks_and_percent_signs_still_means_them(tmp_path, stack):
    odd = Stack(tmp_path / "100% of it" / "var", stack.ports)

    configuration = read(odd)
    words = shlex.split(configuration["program:s3"]["command"].replace("%%", "%"))

    assert str(odd.home) in words
    assert configuration["supervisord"]["logfile"].replace("%%", "%") == str(odd.logs / "supervisord.log")


def test_configuration_when_made_tells_no_secret(stack):
    variables = environment(stack, env_file=None)
    text = supervision.configuration(stack)

    for name in ("AIRFLOW_ADMIN_PASSWORD", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY"):
        assert variables[name] not in text


def test_scheduler_when_started_waits_for_the_api_server_and_opens_no_port(stack):
    command = shlex.split(read(stack)["program:scheduler"]["command"])

    assert command[command.index("--after") + 1] == str(stack.ports["airflow"])
    assert "--skip-serve-logs" in command


def test_digest_when_a_setting_changes_changes(stack, tmp_path):
    environ = environment(stack, env_file=None)
    first = supervision.digest(stack, environ)

    assert supervision.digest(stack, dict(environ)) == first
    assert supervision.digest(stack, environ | {"AIRFLOW_CONN_SMTP_DEFAULT": "smtp://elsewhere"}) != first
    assert supervision.digest(Stack(Path(tmp_path), stack.ports), environ) != first


def test_supervisor_when_it_does_not_run_has_no_states(stack):
    assert not supervision.running(stack)
    assert supervision.states(stack) == {}
    supervision.stop(stack)
