"""Put byte-different copies of one photograph into one group, so that none sits on two sides of the split."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from pipelines.catalogue.image_hashes import find_near
from pipelines.ingest.validate import Sample


def group_near_copies(connection: Connection, project: str, new: Sequence[Sample]) -> dict[str, str]:
    """Give new samples without a group of their sender's that of the image of which they are a near copy.

    The rows of the samples are changed. The caller holds the project's lock, so that a concurrent batch sees them.

    Returns:
        For groups that senders gave and that hold near copies of each other, one group that stands for all of them:
        those that are new must share a side.
    """
    hashed = [sample for sample in new if sample.image_hash is not None]
    known = find_near(connection, project, {sample.row["sha256"]: int(sample.image_hash or 0) for sample in hashed})
    tied: dict[str, str] = {}
    # First those whose group is given, so that the others join them.
    for sample in sorted(hashed, key=lambda sample: (sample.item.known.group is None, sample.row["sha256"])):
        number, group = int(sample.image_hash or 0), sample.row["group_key"]
        near = known.nearest(number)
        if near is not None and sample.item.known.group is None:
            sample.row["group_key"] = group = near
        elif near is not None:
            first, second = sorted((_root(tied, group), _root(tied, near)))
            if first != second:
                tied[second] = first
        known.add(number, group)
    return {group: _root(tied, group) for group in {*tied, *tied.values()}}


def _root(tied: dict[str, str], group: str) -> str:
    while group in tied:
        group = tied[group]
    return group
