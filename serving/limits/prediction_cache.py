"""Caches the answers of one version: the same image again needs neither decoding nor scoring."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CachedPrediction:
    """The answer of one version to an image; about two kilobytes.

    Attributes:
        result: what the version's model judges: the anomaly score, or the probabilities of the classes.
        embedding: the image's embedding as float32, little-endian.
        width: of the image, in pixels.
        height: of the image, in pixels.
        format: the image's format, such as `PNG`.
        extension: the file name extension of that format.
        descriptors: the image's descriptors by name.
    """

    result: Any
    embedding: bytes
    width: int
    height: int
    format: str
    extension: str
    descriptors: Mapping[str, float]


class PredictionCache:
    """A least-recently-used cache of at most `capacity` predictions, by the image's SHA-256."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._predictions: OrderedDict[str, CachedPrediction] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, sha256: str) -> CachedPrediction | None:
        """Return the cached prediction of an image, or None."""
        with self._lock:
            cached = self._predictions.get(sha256)
            if cached is not None:
                self._predictions.move_to_end(sha256)
            return cached

    def put(self, sha256: str, prediction: CachedPrediction) -> None:
        """Cache a prediction, and evict the least recently used one if the cache is full."""
        with self._lock:
            self._predictions[sha256] = prediction
            if len(self._predictions) > self._capacity:
                self._predictions.popitem(last=False)
