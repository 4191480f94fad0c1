"""`python -m serving` answers on $HOST:$PORT, in $INSPECTLINE_WORKERS processes, until it is told to end (SIGTERM)."""

import argparse
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvicorn

from pipelines.errors import SettingsError
from serving.logs import configuration
from serving.metrics_exposition import MULTIPROCESS
from serving.settings import ServingSettings, serving_settings

_KEEP_ALIVE_SECONDS = 15
_END_SECONDS = 28  # to finish what is under way; the local stack and the containers wait longer
_WORKER_SECONDS = 120  # without a sign of life from a worker


def options(settings: ServingSettings, host: str | None = None, port: int | None = None) -> dict[str, Any]:
    """Return the arguments of `uvicorn.run`; by default, host and port are what the environment says."""
    from serving.server.connection import Connection  # which reads the environment when it is imported

    return {
        # Each process makes it by itself: threads and ONNX Runtime's sessions do not survive a fork.
        "app": "serving.server.asgi:create",
        "factory": True,
        "host": host or os.environ.get("HOST") or "127.0.0.1",
        "port": settings.port if port is None else port,
        "workers": settings.workers,
        "http": Connection,
        "ws": "none",
        "loop": "asyncio",
        "lifespan": "on",
        "log_config": configuration(settings.log_level),
        "access_log": False,  # the app writes a line that says more (serving.app)
        "proxy_headers": False,  # the app does that (INSPECTLINE_PROXIES)
        "server_header": False,
        "timeout_keep_alive": _KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": _END_SECONDS,
        "timeout_worker_healthcheck": _WORKER_SECONDS,
    }


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.add_argument("--host", help="the address to listen on; default: $HOST, or 127.0.0.1")
    parser.add_argument("--port", type=int, help="the port to listen on; default: $PORT, or 8000")
    given = parser.parse_args()
    try:
        settings = serving_settings()
    except SettingsError as error:
        sys.exit(str(error))
    arguments = options(settings, given.host, given.port)
    # uvicorn raises the signal again once all is finished, and it is no failure to end when told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        if arguments["workers"] > 1:  # each writes its metrics where all of them can read (serving.metrics)
            shared = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  in memory
            folder = tempfile.TemporaryDirectory(prefix="inspectline-metrics-", dir=shared)
            os.environ[MULTIPROCESS] = stack.enter_context(folder)
        uvicorn.run(**arguments)


if __name__ == "__main__":
    main()
