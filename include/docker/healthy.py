"""Check a container's health: exit status 0, or 1 with a one-line reason.

healthy.py url http://localhost:5000/health     something answers there with 200
healthy.py component triggerer                  Airflow's API server has heard of it lately
healthy.py worker                               this container's Celery worker answers through the broker
"""

import json
import os
import socket
import sys
import urllib.request
from collections.abc import Callable

MONITOR = "http://api-server:8080/api/v2/monitor/health"
SECONDS = 8


def get(url: str) -> bytes:
    """Return the body of a response with status 200; raise on any other status."""
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:  # noqa: S310  the address is ours
        body: bytes = answer.read()
    return body


def component(name: str) -> None:
    """Raise unless a component (`triggerer`, `dag_processor`) has sent a heartbeat within Airflow's limit."""
    status = json.loads(get(MONITOR)).get(name, {}).get("status")
    if status != "healthy":
        raise RuntimeError(f"Airflow's {name} is {status}")


def worker() -> None:
    """Raise unless this container's Celery worker answers a ping."""
    from celery import Celery

    name = f"worker@{socket.gethostname()}"
    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    if not app.control.ping(destination=[name], timeout=SECONDS):
        raise RuntimeError(f"the Celery worker {name} does not answer")


def main(arguments: list[str]) -> int:
    """Run one check and return the exit status."""
    checks: dict[tuple[str, int], Callable[..., object]] = {
        ("url", 2): get,
        ("component", 2): component,
        ("worker", 1): worker,
    }
    check = checks.get((arguments[0] if arguments else "", len(arguments)))
    if check is None:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        check(*arguments[1:])
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
