"""Look up near copies of an image by perceptual hashes.

A hash of 64 bits is stored as five bands. Two hashes that differ in at most four bits agree in at least one band
(pigeonhole), so that an index on each finds all candidates among a small share of the samples: with bits that are even,
about one in 8,000 for each band.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, select, union_all

from pipelines.catalogue.database import chunks, insert_new
from pipelines.catalogue.schema import image_hashes, samples

_WIDTHS = (13, 13, 13, 13, 12)  # bits of each band, from the lowest
_PER_QUERY = 100  # 500 values in all
BANDS = tuple(image_hashes.c[f"band_{number}"] for number in range(len(_WIDTHS)))
NEAR = len(_WIDTHS) - 1  # bits


def bands(number: int) -> tuple[int, ...]:
    """Return the bands of a hash, which lie one beside the other.

    >>> bands(1), bands(1 << 13), bands((1 << 64) - 1)
    ((1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (8191, 8191, 8191, 8191, 4095))
    """
    parts = []
    for width in _WIDTHS:
        parts.append(number & ((1 << width) - 1))
        number >>= width
    return tuple(parts)


@dataclass
class KnownHashes:
    """Hashes of images with their groups, indexed by bands."""

    _groups: dict[int, str] = field(default_factory=dict)
    _by_band: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, number: int, group: str) -> None:
        """Enter the hash of an image of `group`; of several groups with equal hashes, the first counts."""
        if number not in self._groups:
            self._groups[number] = group
            for band in enumerate(bands(number)):
                self._by_band[band].append(number)

    def nearest(self, number: int) -> str | None:
        """Return the group of the image whose hash is nearest, if at most `NEAR` bits differ."""
        candidates = {other for band in enumerate(bands(number)) for other in self._by_band.get(band, ())}
        near = [other for other in candidates if (other ^ number).bit_count() <= NEAR]
        return self._groups[min(near, key=lambda other: ((other ^ number).bit_count(), other))] if near else None


def find_near(connection: Connection, project: str, numbers: Mapping[str, int]) -> KnownHashes:
    """Return the hashes of earlier samples of which a band agrees with that of one of `numbers`, by SHA-256."""
    known = KnownHashes()
    rows: dict[str, tuple[int, str]] = {}
    for some in _parts(list(dict.fromkeys(numbers.values()))):
        split = [bands(number) for number in some]
        # One query for each band, so that each uses its own index.
        queries = [
            select(image_hashes.c.sha256, image_hashes.c.hash, samples.c.group_key)
            .join(samples, (samples.c.project == image_hashes.c.project) & (samples.c.sha256 == image_hashes.c.sha256))
            .where(image_hashes.c.project == project, column.in_({parts[place] for parts in split}))
            for place, column in enumerate(BANDS)
        ]
        for row in connection.execute(union_all(*queries)):
            rows[row.sha256] = (int(row.hash, 16), row.group_key)
    for _, (number, group) in sorted(rows.items()):
        known.add(number, group)
    return known


def enter_hashes(connection: Connection, project: str, numbers: Mapping[str, int]) -> None:
    """Enter the hashes of samples by SHA-256, where they are not there yet."""
    rows = [
        {"project": project, "sha256": sha256, "hash": f"{number:016x}"}
        | {column.name: part for column, part in zip(BANDS, bands(number), strict=True)}
        for sha256, number in numbers.items()
    ]
    for some in chunks(rows):
        insert_new(connection, image_hashes, some)


def _parts(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), _PER_QUERY):
        yield numbers[start : start + _PER_QUERY]
