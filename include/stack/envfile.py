"""Parse files of `NAME=value` lines as Docker Compose parses `.env`."""

import re
from pathlib import Path

from include.stack.errors import StackError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of an env file; enclosing quotes are removed, and ` #` outside of quotes begins a comment.

    Raises:
        StackError: a line is neither `NAME=value` nor a comment.
    """
    variables = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise StackError(f"{path}, line {number}: write NAME=value, or # before a comment")
        variables[match[1]] = _value(match[2].strip())
    return variables


def _value(text: str) -> str:
    if text[:1] in ("'", '"') and (end := text.find(text[0], 1)) > 0:
        return text[1:end]
    return re.split(r"\s#", text, maxsplit=1)[0].rstrip()
