"""Of several processes, one does the work: whoever holds the lock on a file, until it ends, however it ends."""

import fcntl
import os
from pathlib import Path


class Charge:
    """The lock on the file at `path`, taken by whoever asks first."""

    def __init__(self, path: Path):
        self._path = path
        self._file: int | None = None

    def mine(self) -> bool:
        """Tell whether this process has it, and take it if it is free. The lock goes with the process that held it."""
        if self._file is not None:
            return True
        file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Let another have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
