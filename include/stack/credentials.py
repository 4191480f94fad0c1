"""The stack's passwords and keys: generated once, stored in `secrets.env` with mode 0600, never replaced."""

import base64
import json
import secrets

from include.stack.envfile import read_env
from include.stack.layout import Stack
from pipelines.storage.files import write_atomically

ADMIN = "admin"
_MAKERS = {
    "AIRFLOW_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
    "AIRFLOW__API_AUTH__JWT_SECRET": lambda: secrets.token_urlsafe(64),
    "AIRFLOW__API__SECRET_KEY": lambda: secrets.token_urlsafe(32),
    "AIRFLOW__CORE__FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "INSPECTLINE_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
    "INSPECTLINE_SECRET_KEY": lambda: secrets.token_urlsafe(48),
}


def credentials(stack: Stack) -> dict[str, str]:
    """Return the stack's secrets by variable, generating missing ones, and write Airflow's password file."""
    secrets_by_name = read_env(stack.secrets) if stack.secrets.exists() else {}
    missing = {name: make() for name, make in _MAKERS.items() if not secrets_by_name.get(name)}
    if missing:
        secrets_by_name |= missing
        lines = ["# Made by `make up`. Keep it: Airflow's stored values cannot be read without these keys."]
        lines += [f"{name}={value}" for name, value in secrets_by_name.items()]
        write_atomically(stack.secrets, "\n".join(lines) + "\n", mode=0o600, durable=True)
    stack.secrets.chmod(0o600)
    passwords = json.dumps({ADMIN: secrets_by_name["AIRFLOW_ADMIN_PASSWORD"]}) + "\n"
    file = stack.airflow / "passwords.json"
    if not file.exists() or file.read_text() != passwords:
        write_atomically(file, passwords, mode=0o600, durable=True)
    return secrets_by_name
