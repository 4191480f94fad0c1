"""An S3 server over a folder, for the benchmarks that need one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.environment import free_port


@contextmanager
def local_s3(folder: Path) -> Iterator[None]:
    """Serve the buckets in a folder, and set the `AWS_*` variables of this process to it."""
    port = free_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "localbucket", "--host", "127.0.0.1", "--port", str(port), str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/")
        yield
    finally:
        server.terminate()
        server.wait()


def _wait_for(address: str) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            requests.get(address, timeout=5)
            return
        except requests.RequestException:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
