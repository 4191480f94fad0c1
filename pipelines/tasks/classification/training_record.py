"""What `train` leaves in S3 beside the network for the later steps: what the card needs, and out-of-fold logits."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BadPackage, NotFound
from pipelines.steps import Record
from pipelines.storage.s3 import Storage, split_uri

CARD, OUT_OF_FOLD = "training.json", "out_of_fold.npz"


@dataclass(frozen=True)
class TrainingRecord(Record):
    """How a network was trained.

    Attributes:
        classes: names of the classes, in the order of the logits.
        backbone: name of the pretrained network.
        backbone_sha256: digest of the weights that the training started from.
        layers: dense layers behind the embedding.
        fine_tuned: whether the upper blocks of the backbone were trained.
        notes: sentences on what was done.
    """

    classes: tuple[str, ...]
    backbone: str
    backbone_sha256: str
    layers: int
    fine_tuned: bool
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class OutOfFold:
    """Logits of the training images by heads that were fitted without them.

    Attributes:
        logits: float32 [n, classes].
        labels: int64 [n].
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]


def store_record(uri: str, record: TrainingRecord, out_of_fold: OutOfFold | None) -> None:
    """Write both into the folder `uri` of a package in S3; without logits, those of an earlier try are removed."""

    bucket, prefix = split_uri(f"{uri.rstrip('/')}/")
    storage = Storage(bucket)
    if out_of_fold is None:
        storage.delete(f"{prefix}{OUT_OF_FOLD}")
    else:
        stream = io.BytesIO()
        np.savez(stream, logits=out_of_fold.logits, labels=out_of_fold.labels)
        storage.put(f"{prefix}{OUT_OF_FOLD}", stream.getvalue())
    storage.put(f"{prefix}{CARD}", json.dumps(record.to_json(), indent=2).encode(), "application/json")


def read_record(uri: str) -> tuple[TrainingRecord, OutOfFold | None]:
    """Return both from the folder `uri` of a package in S3.

    Raises:
        BadPackage: they are not there, or damaged.
    """

    bucket, prefix = split_uri(f"{uri.rstrip('/')}/")
    storage = Storage(bucket)
    try:
        record = TrainingRecord.from_json(json.loads(storage.get(f"{prefix}{CARD}")))
    except (NotFound, ValueError) as error:
        raise BadPackage(f"{uri}/{CARD} is missing or damaged ({error}): run the training step again") from None
    try:
        with np.load(io.BytesIO(storage.get(f"{prefix}{OUT_OF_FOLD}")), allow_pickle=False) as archive:
            return record, OutOfFold(archive["logits"], archive["labels"])
    except NotFound:
        return record, None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadPackage(f"{uri}/{OUT_OF_FOLD} is damaged ({error}): run the training step again") from None
