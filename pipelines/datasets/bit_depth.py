"""Fix the bit depth of a dataset version from what its samples show, and describe its images at that depth.

Only files of more than eight bits per sample matter: see `pipelines.images.bit_depth`. With `image.bits: auto` the
first dataset version that has any takes the least depth that holds them all, and later ones keep it. While there are
none, nothing is fixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, RowMapping, and_, or_, select, update

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.bit_depth import project_bits
from pipelines.catalogue.database import chunks
from pipelines.catalogue.samples import descriptors_of
from pipelines.catalogue.schema import samples
from pipelines.config.project import Project, load_project
from pipelines.errors import BadDataset, BadImage, NotFound
from pipelines.images.bit_depth import BITS, UNIT, SampleDepth, sample_range
from pipelines.images.decode import OpenedImage, open_image
from pipelines.images.deep_samples import DEEP_MODES
from pipelines.images.descriptors import DESCRIPTORS, describe
from pipelines.storage.s3 import Storage


def fix_bits(project: Project, rows: Iterable[RowMapping]) -> int | None:
    """Return the bit depth of a dataset version of these samples (rows of the catalogue); None if nothing fixes it.

    Raises:
        BadDataset: a sample has values beyond the project's bit depth, or cannot be read; names it.
    """
    deep = [(row, _depth(project, row)) for row in rows if _is_deep(row)]
    with connect() as connection:
        bits = project_bits(connection, project)
    if bits is None:
        bits = _shown([depth for _, depth in deep])
    if bits is None:
        return None
    for row, depth in deep:
        try:
            sample_range(depth, bits)
        except BadImage as error:
            key = Storage(project.bucket).uri(row["key"])
            raise BadDataset(f"sample {key} of {project.name} cannot be used ({error}), or withdraw it") from error
    return bits


def bit_depth_notes(rows: Iterable[RowMapping], bits: int | None) -> list[str]:
    """Say which samples of a dataset version of this bit depth may not be on its scale."""
    if bits is None or bits <= 8:
        return []
    doubtful = [row for row in rows if row["mode"] == "F" and (row["sample_peak"] or 0) <= 255]
    if not doubtful:
        return []
    return [
        f"{len(doubtful)} images have floating-point samples up to 255 at most and are dark on the project's scale of "
        f"{bits} bits, first {doubtful[0]['source_key']}: save them in 8 or 16 bits if 255 is their white"
    ]


def descriptors_at(project: str, hashes: Sequence[str], bits: int | None) -> dict[str, dict[str, float]]:
    """Return the descriptors of samples by SHA-256, of images scaled by `bits`.

    Those that ingest measured at another depth, before this one was fixed, are measured again and kept.

    Raises:
        BadDataset: such a sample is gone, or can no longer be read.
    """
    with connect() as connection:
        descriptors = descriptors_of(connection, project, hashes)
        stale = list(_described_otherwise(connection, project, hashes, bits))
    if not stale:
        return descriptors
    rules = load_project(project)
    for row in stale:
        measured = describe(_open(rules, row["key"], bits).pixels)
        descriptors[row["sha256"]] = measured
        with transaction() as connection:
            connection.execute(
                update(samples)
                .where(samples.c.project == project, samples.c.sha256 == row["sha256"])
                .values(descriptors=measured, described_bits=bits)
            )
    return descriptors


def _described_otherwise(
    connection: Connection, project: str, hashes: Sequence[str], bits: int | None
) -> Iterable[RowMapping]:
    other = samples.c.described_bits.is_distinct_from(bits)
    deep = or_(samples.c.sample_bits > 8, and_(samples.c.sample_bits.is_(None), samples.c.mode.in_(DEEP_MODES)))
    for chunk in chunks(hashes):
        of_project = (samples.c.project == project, samples.c.sha256.in_(chunk))
        yield from connection.execute(
            select(samples.c.sha256, samples.c.key).where(*of_project, deep, other)
        ).mappings()


def _is_deep(row: RowMapping) -> bool:
    if row["sample_bits"] is None:  # ingested by an older version, which kept the mode alone
        return row["mode"] in DEEP_MODES
    return bool(row["sample_bits"] > 8)


def _depth(project: Project, row: RowMapping) -> SampleDepth:
    if row["sample_bits"] is not None:
        return SampleDepth(row["sample_bits"], 0.0, row["sample_peak"], row["mode"] == "F")
    depth = _open(project, row["key"], None).depth
    with transaction() as connection:
        connection.execute(
            update(samples)
            .where(samples.c.project == project.name, samples.c.sha256 == row["sha256"])
            .values(sample_bits=depth.bits, sample_peak=depth.high)
        )
    return depth


def _shown(depths: Sequence[SampleDepth]) -> int | None:
    """Return the least bit depth that holds all samples."""
    if not depths:
        return None
    if all(depth.is_float and depth.high <= 1 for depth in depths):
        return UNIT
    greatest = max(2.0**depth.bits - 1 if depth.is_declared else depth.high for depth in depths)
    return next((bits for bits in BITS if greatest < 2**bits), BITS[-1])


def _open(project: Project, key: str, bits: int | None) -> OpenedImage:
    storage = Storage(project.bucket)
    try:
        return open_image(storage.get(key), max_pixels=1 << 40, min_side=1, bits=bits)
    except (NotFound, BadImage) as error:
        raise BadDataset(f"sample {storage.uri(key)} of {project.name} cannot be read: {error}") from error


def reference_descriptors(project: str, hashes: list[str], bits: int | None) -> NDArray[np.float64]:
    """Return the descriptors of samples at the model's bit depth, [n, DESCRIPTORS]."""
    descriptors = descriptors_at(project, hashes, bits)
    if missing := [sha256 for sha256 in hashes if not set(DESCRIPTORS) <= set(descriptors.get(sha256, {}))]:
        raise BadDataset(
            f"{len(missing)} validation samples of {project} have no descriptors in the catalogue, first {missing[0]}:"
            " ingest them again"
        )
    return np.array([[descriptors[sha256][name] for name in DESCRIPTORS] for sha256 in hashes], dtype=np.float64)
