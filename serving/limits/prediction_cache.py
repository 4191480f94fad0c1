"""What was lately said of which image, by one version: the same image again needs neither decoding nor scoring."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """All that one version says of an image; some two kilobytes."""

    score: float
    embedding: bytes  # float32, little-endian
    width: int
    height: int
    format: str
    extension: str
    descriptors: Mapping[str, float]


class Recent:
    """The answers to the `most` images seen last, by SHA-256."""

    def __init__(self, most: int):
        self._most = most
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, sha256: str) -> Known | None:
        """Return what is known of an image."""
        with self._lock:
            known = self._known.get(sha256)
            if known is not None:
                self._known.move_to_end(sha256)
            return known

    def put(self, sha256: str, known: Known) -> None:
        """Remember an image, and forget the one not seen for longest."""
        with self._lock:
            self._known[sha256] = known
            if len(self._known) > self._most:
                self._known.popitem(last=False)
