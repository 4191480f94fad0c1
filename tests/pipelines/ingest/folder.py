"""A bucket that is a folder, as in the local stack: a real server of a folder, and files that people copy into it."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.conftest import end_process, free_port, wait_until


@dataclass(frozen=True)
class FolderBucket:
    """A running server with one bucket.

    Attributes:
        endpoint: its address.
        folder: the folder that it serves.
        bucket: name of the bucket.
        process: the server.
    """

    endpoint: str
    folder: Path
    bucket: str
    process: subprocess.Popen[bytes]

    def write(self, path: str, data: bytes, age: float = 60) -> Path:
        """Write a file into the inbox of the project `line` by the file system, `age` seconds old."""
        file = self.folder / self.bucket / "line" / "inbox" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        os.utime(file, (time.time() - age,) * 2)
        return file

    def close(self) -> None:
        """Stop the server."""
        end_process(self.process)


def serve_folder(folder: Path, bucket: str) -> FolderBucket:
    """Start a server of `folder` with one bucket."""
    (folder / bucket).mkdir(parents=True)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "localbucket", "--host", "127.0.0.1", "--port", str(port), str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    endpoint = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return requests.get(endpoint, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    wait_until(ready, 30, "the server of a folder", process)
    return FolderBucket(endpoint, folder, bucket, process)
