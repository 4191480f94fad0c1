"""HTTP with MLflow's server: one call of its REST interface, one file; what goes wrong is one clear line.

With `requests` alone, imported by the first call: what the cache remembers is served without.
"""

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipelines.config.settings import settings
from pipelines.errors import RegistryAway, RegistryError

if TYPE_CHECKING:
    import requests

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0  # a busy MLflow takes several; for the first byte of an answer, and for the whole of it
FILE_SECONDS = 30.0  # between bytes of a file: MLflow fetches it from S3 before it sends the first one


def save(address: str, path: Path) -> None:
    """Stream what is at `address` into the file `path`, and have the disk keep it. Raises RegistryError."""
    import requests

    try:
        with requests.get(address, timeout=(CONNECT_SECONDS, FILE_SECONDS), stream=True, **_proof(address)) as response:
            if response.status_code != 200:
                raise RegistryError(f"{shown(address)}: answered {response.status_code}{_reason(response)}")
            with path.open("wb") as file:
                for chunk in response.iter_content(1 << 20):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
    except requests.RequestException as error:
        raise RegistryError(f"{shown(address)}: cannot be fetched ({_short(error)}); is MLflow up?") from error


def call(path: str, query: dict[str, Any], method: str = "GET") -> dict[str, Any] | None:
    """Make one call of MLflow's REST interface; None is its own "not found", and nothing else is.

    Raises:
        RegistryAway: no answer within seconds.
        RegistryError: any other answer.
    """
    sent: dict[str, Any] = {"params": query} if method == "GET" else {"json": query}
    return ask(method, f"{settings().tracking_uri}/api/2.0/mlflow/{path}", **sent)


def ask(method: str, address: str, **sent: Any) -> dict[str, Any] | None:
    """Make one request and return its JSON object; None and errors as `call`."""
    import requests
    import urllib3

    end = time.monotonic() + ANSWER_SECONDS
    body = bytearray()
    try:
        with requests.request(
            method, address, timeout=(CONNECT_SECONDS, ANSWER_SECONDS), stream=True, **_proof(address), **sent
        ) as response:
            while chunk := response.raw.read1(
                1 << 16, decode_content=True
            ):  # what has arrived, without waiting for more
                body += chunk
                if time.monotonic() > end:
                    raise requests.Timeout(f"its answer was not whole within {ANSWER_SECONDS:g} s")
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise RegistryAway(f"MLflow at {shown(settings().tracking_uri)} cannot be reached ({_short(error)})") from error
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        hint = "; name this host in MLFLOW_SERVER_ALLOWED_HOSTS" if response.status_code == 403 else ""
        raise RegistryError(f"{shown(address)}: answered {response.status_code}, which is not MLflow's way{hint}")
    if response.status_code == 200:
        return answer
    code, message = answer.get("error_code"), str(answer.get("message", ""))
    # A missing alias of a model that is there is called an invalid parameter (MLflow 3.17).
    missing_alias = code == "INVALID_PARAMETER_VALUE" and "alias" in message and "not found" in message
    if code == "RESOURCE_DOES_NOT_EXIST" or missing_alias:
        return None
    raise RegistryError(f"{shown(address)}: answered {response.status_code} {code}: {message}"[:500])


def _proof(address: str) -> dict[str, Any]:
    """Return what shows MLflow who we are; another server that a version's files lie on is not told."""
    server, asked = urlsplit(settings().tracking_uri), urlsplit(address)
    if (server.scheme, server.hostname, server.port) != (asked.scheme, asked.hostname, asked.port):
        return {}
    return {"auth": _credentials(), "headers": _token()}


def shown(address: str) -> str:
    """Return an address as it may be told: without the name and password that it may hold."""
    return re.sub(r"//[^/]*@", "//", address)


def _credentials() -> tuple[str, str] | None:
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    return (user, password) if user and password else None


def _token() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _reason(response: "requests.Response") -> str:
    with suppress(ValueError, AttributeError):
        return f": {response.json().get('message', '')}"[:300]
    return ""


def _short(error: Exception) -> str:
    """Return the innermost cause: requests wraps it several times."""
    while error.__cause__ or error.__context__:
        inner = error.__cause__ or error.__context__
        if not isinstance(inner, Exception):
            break
        error = inner
    return " ".join(str(error).split())[:200] or type(error).__name__
