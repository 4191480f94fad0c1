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
    """Return a new random value for the variable `name`; it can be part of an address as it is."""
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
    """Return the new `.env`, from the example and the `.env` that is there, and the names of the values made."""
    known = assigned(present)
    if not known:
        made = [name for name, value in assigned(example).items() if not value]
        lines = [f"{line}{secret(line[:-1])}" if line[:-1] in made else line for line in example.splitlines()]
        return "\n".join(lines) + "\n", made
    made = [name for name in assigned(example) if not known.get(name)]
    # An empty value stays where it is, and the last line counts.
    added = [f"{name}={assigned(example)[name] or secret(name)}" for name in made]
    return "\n".join([present.rstrip("\n"), *added]) + "\n", made


def main(arguments: list[str]) -> int:
    """Write the file, with mode 0600, and say what was done."""
    target = Path(arguments[0]) if arguments else EXAMPLE.with_name(".env")
    present = target.read_text(encoding="utf-8") if target.exists() else ""
    text, made = fill(EXAMPLE.read_text(encoding="utf-8"), present)
    if made:
        half = target.with_name(f"{target.name}.{os.getpid()}")
        half.touch(mode=0o600)
        half.write_text(text, encoding="utf-8")
        half.replace(target)
    print(f"{target}: {len(made)} values made" if made else f"{target} is complete; nothing changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
