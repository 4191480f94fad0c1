"""Bounds the memory that decoding takes: small images are decoded side by side, large ones one after the other."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class DecodingRoom:
    """Lets threads decode while all their images together have at most `pixels` pixels, and at most `images` at once.

    A decoded pixel costs some seven bytes. An image larger than the whole room is decoded alone.
    """

    def __init__(self, pixels: int, images: int):
        self._pixels, self._images = pixels, images
        self._taken = self._inside = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for an image of `pixels`, and keep it while inside."""
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
