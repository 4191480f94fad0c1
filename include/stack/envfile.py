"""Files of `NAME=value` lines, as Docker Compose reads `.env`."""

from pathlib import Path

from dotenv.parser import parse_stream

from include.stack.errors import StackError


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of an env file, read by python-dotenv without interpolation.

    Raises:
        StackError: a line is neither `NAME=value` nor a comment.
    """
    values = {}
    with path.open(encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.error or (binding.key and binding.value is None):
                text = binding.original.string
                # A binding begins with the blank lines before it.
                line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                raise StackError(f"{path}, line {line}: write NAME=value, or # before a comment")
            if binding.key:
                values[binding.key] = binding.value or ""
    return values
