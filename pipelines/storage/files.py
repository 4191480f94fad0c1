"""Local files: atomic writes and content digests."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path


def write_atomically(path: Path, data: str | bytes, *, mode: int | None = None, durable: bool = False) -> None:
    """Write `data` so that a reader sees the old file or the new one, never a part of it.

    The data goes to a hidden file beside `path`, which then replaces it; several writers may do so at once.

    Args:
        path: the file to write; its folder must exist.
        data: text, which is encoded as UTF-8, or bytes.
        mode: permission bits; None (default) leaves them to the umask.
        durable: flush the data to the disk before the replacement, so that it survives a power cut. Default False.

    Raises:
        OSError: the file cannot be written; the old one stays and nothing is left beside it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666 if mode is None else mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if mode is not None:
            partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
