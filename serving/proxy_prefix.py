"""The path prefix under which a reverse proxy offers serving (`X-Forwarded-Prefix`), as far as it is one."""

import re
from collections.abc import Callable, Iterable
from typing import Any

_WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]
_HEADER = "HTTP_X_FORWARDED_PREFIX"
# Segments without dot segments; `//host` would make a redirect lead to another host.
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.~!$&'()*+;=:@%-]+)+", re.ASCII)


def with_safe_prefix(application: _WSGI) -> _WSGI:
    """Drop prefixes that are no plain path, before `application` puts one into addresses; `/a/` becomes `/a`."""

    def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        given = [prefix.strip().rstrip("/") for prefix in environ.pop(_HEADER, "").split(",")]
        kept = [prefix if _PREFIX.fullmatch(prefix) else '""' for prefix in given]
        if any(prefix != '""' for prefix in kept):
            environ[_HEADER] = ",".join(kept)
        return application(environ, start_response)

    return call
