"""Files of `NAME=value` lines, as Docker Compose reads `.env`."""

import re
from pathlib import Path

from include.stack.errors import StackError

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of an env file; quotes around a value go, ` #` begins a comment outside of quotes.

    Raises:
        StackError: a line is neither `NAME=value` nor a comment.
    """
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise StackError(f"{path}, line {number}: write NAME=value, or # before a comment")
        found[match[1]] = _value(match[2].strip())
    return found


def _value(text: str) -> str:
    if text[:1] in ("'", '"') and (end := text.find(text[0], 1)) > 0:
        return text[1:end]
    return re.split(r"\s#", text, maxsplit=1)[0].rstrip()
