import json

from include.stack.environment import environment
from pipelines.config.project import load_projects
from pipelines.config.settings import settings


def test_environment_when_the_shell_points_elsewhere_stays_with_the_stack(stack, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://production.example.com")
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    monkeypatch.setenv("INSPECTLINE_DATABASE_URL", "postgresql://production")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")

    variables = environment(stack, env_file=None)

    assert not [name for name, value in variables.items() if "production" in value or "mlflow.example" in value]
    assert variables["AWS_ENDPOINT_URL"] == stack.url("s3")
    assert settings(variables).tracking_uri == stack.url("mlflow")
    assert settings(variables).database_url == f"sqlite:///{stack.home / 'catalogue.db'}"


def test_environment_when_read_as_settings_finds_shipped_and_own_projects(stack, monkeypatch):
    (stack.projects / "own_line.yaml").write_text("bucket: inspectline\n")
    variables = environment(stack, env_file=None)
    monkeypatch.setenv("INSPECTLINE_PROJECTS", variables["INSPECTLINE_PROJECTS"])

    assert {"ev_batteries", "own_line"} <= set(load_projects())


def test_environment_when_the_env_file_names_a_mail_server_uses_it_and_nothing_of_compose(stack, tmp_path):
    file = tmp_path / ".env"
    file.write_text(
        "AIRFLOW_CONN_SMTP_DEFAULT=smtp://user:secret@smtp.example.com:587/\n"
        "KERAS_BACKEND=torch\nPOSTGRES_PASSWORD=for-compose\nAIRFLOW_ADMIN_PASSWORD=for-compose\n"
    )

    variables = environment(stack, env_file=file)

    assert variables["AIRFLOW_CONN_SMTP_DEFAULT"] == "smtp://user:secret@smtp.example.com:587/"
    assert variables["KERAS_BACKEND"] == "torch"
    assert "for-compose" not in variables.values()


def test_environment_when_nothing_is_said_mails_into_the_stacks_own_mailbox(stack):
    smtp = json.loads(environment(stack, env_file=None)["AIRFLOW_CONN_SMTP_DEFAULT"])

    assert (smtp["host"], smtp["port"]) == ("127.0.0.1", stack.ports["smtp"])
    assert smtp["extra"]["disable_tls"]
    assert smtp["extra"]["disable_ssl"]


def test_environment_when_airflow_reads_it_listens_on_this_machine_alone_with_four_workers(stack):
    variables = environment(stack, env_file=None)

    assert variables["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert variables["AIRFLOW__CORE__PARALLELISM"] == "4"
    assert variables["AIRFLOW__CORE__LOAD_EXAMPLES"] == "false"
    assert len(variables["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64


def test_environment_when_made_twice_is_the_same(stack, monkeypatch):
    first = environment(stack, env_file=None)
    for name, value in first.items():
        monkeypatch.setenv(name, value)

    again = environment(stack, env_file=None)

    assert {name: value for name, value in again.items() if name != "PATH"} == {
        name: value for name, value in first.items() if name != "PATH"
    }
