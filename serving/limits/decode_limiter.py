"""Bounds the memory of decoding: small images are decoded in parallel, large ones one at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class DecodingRoom:
    """Limits concurrent decoding to at most `images` images with at most `pixels` pixels in total.

    A decoded pixel costs about seven bytes. An image larger than the limit is decoded alone.
    """

    def __init__(self, pixels: int, images: int):
        self._pixels, self._images = pixels, images
        self._taken = self._inside = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait until an image of `pixels` pixels fits, and reserve them while the block runs."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._inside or (self._inside < self._images and self._taken + pixels <= self._pixels)
            )
            self._inside += 1
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._taken -= pixels
                self._changed.notify_all()
