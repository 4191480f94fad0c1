import base64
import json
import stat

from include.stack.credentials import credentials


def test_secrets_when_made_are_long_private_and_kept(stack):
    generated = credentials(stack)

    assert stat.S_IMODE(stack.secrets.stat().st_mode) == 0o600
    assert len(base64.urlsafe_b64decode(generated["AIRFLOW__API_AUTH__JWT_SECRET"] + "==")) == 64
    assert len(base64.urlsafe_b64decode(generated["AIRFLOW__CORE__FERNET_KEY"])) == 32
    assert len(generated["AIRFLOW_ADMIN_PASSWORD"]) >= 16
    assert credentials(stack) == generated


def test_secrets_when_two_stacks_make_them_differ(stack, tmp_path):
    from include.stack.layout import Stack

    other = Stack(tmp_path / "other", stack.ports)
    other.make_folders()

    assert not set(credentials(stack).values()) & set(credentials(other).values())


def test_secrets_when_one_is_missing_keep_the_others(stack):
    generated = credentials(stack)
    lines = [line for line in stack.secrets.read_text().splitlines() if not line.startswith("SERVING")]
    stack.secrets.write_text("\n".join(lines) + "\nAIRFLOW_ADMIN_PASSWORD=chosen-by-hand\n")
    stack.secrets.chmod(0o644)

    again = credentials(stack)

    assert again["AIRFLOW__CORE__FERNET_KEY"] == generated["AIRFLOW__CORE__FERNET_KEY"]
    assert again["AIRFLOW_ADMIN_PASSWORD"] == "chosen-by-hand"
    assert again["INSPECTLINE_SECRET_KEY"]
    assert stat.S_IMODE(stack.secrets.stat().st_mode) == 0o600


def test_password_file_when_written_is_what_airflow_reads_and_private(stack):
    generated = credentials(stack)
    file = stack.airflow / "passwords.json"

    assert json.loads(file.read_text()) == {"admin": generated["AIRFLOW_ADMIN_PASSWORD"]}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
