"""The stack's passwords and keys: made once, kept in `secrets.env` with mode 0600, never replaced."""

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
    """Return the stack's secrets by variable, making those that are missing, and Airflow's password file."""
    known = read_env(stack.secrets) if stack.secrets.exists() else {}
    missing = {name: make() for name, make in _MAKERS.items() if not known.get(name)}
    if missing:
        known |= missing
        lines = ["# Made by `make up`. Keep it: Airflow's stored values cannot be read without these keys."]
        lines += [f"{name}={value}" for name, value in known.items()]
        write_atomically(stack.secrets, "\n".join(lines) + "\n", mode=0o600, durable=True)
    stack.secrets.chmod(0o600)
    passwords = json.dumps({ADMIN: known["AIRFLOW_ADMIN_PASSWORD"]}) + "\n"
    file = stack.airflow / "passwords.json"
    if not file.exists() or file.read_text() != passwords:
        write_atomically(file, passwords, mode=0o600, durable=True)
    return known
