"""The run-length encoding of Label Studio's brush masks, the bit stream of @thi.ng/rle-pack.

Header: 32 bits number of values, 5 bits word size - 1, four times 4 bits run-length size - 1. Then blocks: 1 bit that
says whether one value is repeated, 2 bits that choose the size of the run length, the run length - 1, and the value
or values.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_SIZES = (3, 4, 8, 16)


class _Bits:
    """Reads numbers of any length from a bit stream, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self._at = 0

    def read(self, count: int) -> int:
        if self._at + count > len(self._bits):
            raise ValueError("its run-length encoding ends too early")
        number = 0
        for bit in self._bits[self._at : self._at + count]:
            number = number << 1 | int(bit)
        self._at += count
        return number

    def read_many(self, count: int, size: int) -> NDArray[np.uint8]:
        end = self._at + count * size
        if end > len(self._bits):
            raise ValueError("its run-length encoding ends too early")
        rows = self._bits[self._at : end].reshape(count, size).astype(np.int64)
        self._at = end
        return (rows @ (1 << np.arange(size - 1, -1, -1))).astype(np.uint8)


def decode(data: bytes, expected: int) -> NDArray[np.uint8]:
    """Return the `expected` values of an encoding, uint8.

    Raises:
        ValueError: it is damaged, or has another number of values.
    """
    bits = _Bits(data)
    count, word = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    if count != expected:
        raise ValueError(f"its brush mask has {count // 4:,} pixels and the image {expected // 4:,}")
    if word > 8:
        raise ValueError(f"its brush mask has values of {word} bits, more than 8")
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        repeated = bits.read(1)
        run = min(bits.read(sizes[bits.read(2)]) + 1, count - at)
        values[at : at + run] = bits.read(word) if repeated else bits.read_many(run, word)
        at += run
    return values


def encode(values: NDArray[np.uint8]) -> bytes:
    """Return the encoding of values, uint8."""
    text = [f"{len(values):032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for value, run in _runs(values):
        while run:
            part = min(run, 1 << _SIZES[-1])
            chosen = next(index for index, size in enumerate(_SIZES) if part <= 1 << size)
            text.append(f"1{chosen:02b}{part - 1:0{_SIZES[chosen]}b}{value:08b}")
            run -= part
    bits = np.frombuffer("".join(text).encode(), np.uint8) - ord("0")
    return np.packbits(bits).tobytes()


def _runs(values: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Yield each value and how often it follows itself."""
    if not len(values):
        return
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    for start, end in zip(starts, [*starts[1:], len(values)], strict=True):
        yield int(values[start]), int(end - start)
