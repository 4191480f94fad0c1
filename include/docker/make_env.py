"""Write `.env` for docker compose from `.env.example`: `python3 include/docker/make_env.py [.env]`.

Every empty value gets a random one. A `.env` that is there keeps what it says; only what is new in the example is
added. Needs nothing but Python, so that it runs before anything is set up.
"""

import base64
import os
import re
import secrets
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"
_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")


def secret(name: str) -> str:
    """Generate a random, URL-safe value for the variable `name`."""
    if name.endswith("_FERNET_KEY"):
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    if name.endswith("_JWT_SECRET"):
        return secrets.token_hex(64)
    if name.endswith("_ADMIN_PASSWORD"):  # people type it
        return secrets.token_hex(8)
    if name.endswith("_ACCESS_KEY_ID"):
        return secrets.token_hex(10).upper()
    return secrets.token_hex(24)


def assigned(text: str) -> dict[str, str]:
    """Return the variables that the lines of an env file set."""
    return {m[1]: m[2].strip() for line in text.splitlines() if (m := _ASSIGNMENT.fullmatch(line.strip()))}


def fill(example: str, present: str = "") -> tuple[str, list[str]]:
    """Return the completed `.env`, from the example and the existing `.env`, and the names of the generated values."""
    present_values = assigned(present)
    if not present_values:
        generated = [name for name, value in assigned(example).items() if not value]
        lines = [f"{line}{secret(line[:-1])}" if line[:-1] in generated else line for line in example.splitlines()]
        return "\n".join(lines) + "\n", generated
    generated = [name for name in assigned(example) if not present_values.get(name)]
    # Empty assignments are left in place, since the last assignment of a variable takes effect.
    added = [f"{name}={assigned(example)[name] or secret(name)}" for name in generated]
    return "\n".join([present.rstrip("\n"), *added]) + "\n", generated


def main(arguments: list[str]) -> int:
    """Write the file with mode 0600 and print what changed."""
    target = Path(arguments[0]) if arguments else EXAMPLE.with_name(".env")
    present = target.read_text(encoding="utf-8") if target.exists() else ""
    text, generated = fill(EXAMPLE.read_text(encoding="utf-8"), present)
    if generated:
        half = target.with_name(f"{target.name}.{os.getpid()}")
        half.touch(mode=0o600)
        half.write_text(text, encoding="utf-8")
        half.replace(target)
    print(f"{target}: {len(generated)} values made" if generated else f"{target} is complete; nothing changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
