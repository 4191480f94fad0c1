"""Dataset versions: manifests of samples, annotations and subsets, never changed once written.

A version is named by the digest of its content, so that the same samples with the same annotations and subsets are the
same version whoever freezes them, and when. `python -m pipelines.datasets withdraw` takes a bad sample out of every
later version, `decide` settles a disputed or missing label; both add to the history and delete nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select

from pipelines.catalogue import connect, schema, transaction
from pipelines.catalogue.database import insert_new, whole_table_joins
from pipelines.catalogue.samples import annotated, effective_labels, labelled_samples
from pipelines.catalogue.splits import SUBSETS
from pipelines.config.metrics import ENOUGH_ANOMALIES
from pipelines.config.project import Project, load_project
from pipelines.datasets.bit_depth import bit_depth_notes, fix_bits
from pipelines.datasets.class_rules import check_classes, class_notes, of_classes, take_newest
from pipelines.errors import BadDataset, InspectlineError, NotEnoughImages, NotFound
from pipelines.steps import DatasetVersion
from pipelines.storage import keys
from pipelines.storage.s3 import Storage, read_uri

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "sha256",
    "key",
    "label",
    "type",
    "subset",
    "mask_key",
    "width",
    "height",
    "group_key",
    "acquired_at",
)
REGIONS = "regions"  # the regions of an anomaly as JSON; null without, and missing in manifests of older versions
PROPOSED = "proposed"  # True where the label was predicted and nobody has confirmed it; missing in older manifests
LEAST_TRAINING = 16
LEAST_VALIDATION = 4
LEAST_GOOD = 30  # as many as give these with the usual shares


def freeze(project: str) -> DatasetVersion:
    """Write what the catalogue holds now as a dataset version; disputed, unlabelled and withdrawn samples stay out.

    Raises:
        NotEnoughImages: fewer than 16 good training or 4 good validation images, or too few images of a class or
            classes; says how many there are.
        BadDataset: a sample is beyond the project's bit depth.
    """
    rules = load_project(project)
    with connect() as connection:
        labelled = labelled_samples(connection, project)
        left_out = _left_out(connection, project)
    newest = rules.dataset.newest
    older = foreign = 0
    if rules.task == "classification":
        labelled, foreign = of_classes(labelled)
        labelled, older = take_newest(labelled, newest)
        check_classes(project, labelled, left_out)
    rows = [_manifest_row(dict(row)) for row in labelled]
    counts = dict.fromkeys(SUBSETS, 0) | Counter(row["subset"] for row in rows)
    if rules.task == "classification":
        notes = class_notes(labelled, newest, older, foreign)
    else:
        notes = _notes(rules, counts)
        _check_enough(project, counts, left_out)
    notes += _left_out_note(left_out)
    bits = fix_bits(rules, labelled)
    notes += bit_depth_notes(labelled, bits)
    # Without a bit depth, versions keep the names that they had before there was one.
    content: Any = rows if bits is None else {"bits": bits, "rows": rows}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    version_id = f"d{digest[:12]}"
    storage = Storage(rules.bucket)
    key = keys.manifest(project, version_id)
    if not storage.exists(key):
        storage.put_new(key, _parquet(rows), "application/vnd.apache.parquet")
    with transaction() as connection:
        version = {"project": project, "version_id": version_id, "digest": digest, "manifest_key": key}
        insert_new(connection, schema.dataset_versions, [{**version, "counts": counts, "bits": bits}])
    return DatasetVersion(
        project=project,
        version_id=version_id,
        digest=digest,
        manifest_uri=storage.uri(key),
        counts=counts,
        notes=notes,
        bits=bits,
    )


def read_manifest(uri: str) -> pd.DataFrame:
    """Return a manifest: one row a sample in order of sha256, columns `COLUMNS`, `REGIONS` and `PROPOSED`.

    Missing values are None or NaT.

    Raises:
        BadDataset: the manifest is not there or cannot be read.
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(io.BytesIO(read_uri(uri)))
    except NotFound as error:
        raise BadDataset(f"the manifest {uri} is not there: freeze the dataset again") from error
    except Exception as error:  # pyarrow raises OSError, ArrowInvalid and more on damaged bytes
        if isinstance(error, InspectlineError):
            raise
        raise BadDataset(f"the manifest {uri} cannot be read ({error}): restore it from a backup") from error
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise BadDataset(f"the manifest {uri} has no column {missing[0]!r}: freeze the dataset again")
    if REGIONS not in frame.columns:
        frame[REGIONS] = None
    if PROPOSED not in frame.columns:
        frame[PROPOSED] = False
    for name in ("type", "mask_key", REGIONS):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    frame["acquired_at"] = pd.to_datetime(frame["acquired_at"], utc=True)
    return frame


def _manifest_row(row: Mapping[str, Any]) -> dict[str, Any]:
    picked = {name: row[name] for name in COLUMNS}
    picked["acquired_at"] = row["acquired_at"].isoformat() if row["acquired_at"] else None
    if row["content"]:  # left out where there are none, so that versions without regions keep their names
        picked[REGIONS] = json.dumps(row["content"], sort_keys=True, ensure_ascii=False)
    if row["proposed"]:  # left out where it is not, for the same reason
        picked[PROPOSED] = True
    return picked


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=[*COLUMNS, REGIONS, PROPOSED])
    frame[PROPOSED] = frame[PROPOSED].eq(True)
    frame["acquired_at"] = pd.to_datetime(frame["acquired_at"], utc=True, format="ISO8601")
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()


def _left_out(connection: Connection, project: str) -> dict[str, int]:
    """Count the samples that are not in the version, by reason."""
    table = schema.samples
    labels = effective_labels(project)
    here, present = table.c.project == project, table.c.withdrawn_at.is_(None)
    withdrawn = select(func.count()).select_from(table).where(here, ~present)
    unlabelled = select(func.count()).select_from(table).where(here, present, ~annotated(project))
    disputed = (
        select(func.count())
        .select_from(table)
        .join(labels, labels.c.sha256 == table.c.sha256)
        .where(here, present, labels.c.disputed)
    )
    queries = {"withdrawn": withdrawn, "unlabelled": unlabelled, "disputed": disputed}
    with whole_table_joins(connection):
        return {reason: connection.execute(query).scalar_one() for reason, query in queries.items()}


def _check_enough(project: str, counts: Mapping[str, int], left_out: Mapping[str, int]) -> None:
    needed = {"training": LEAST_TRAINING, "validation": LEAST_VALIDATION}
    short = {subset: least - counts[subset] for subset, least in needed.items() if counts[subset] < least}
    if not short:
        return
    have = ", ".join(f"{counts[subset]} {subset}" for subset in ("training", "validation", "test"))
    good = sum(counts[subset] for subset in ("training", "validation", "test"))
    undecided = left_out["unlabelled"] + left_out["disputed"]
    waiting = f", {undecided} more wait for a label" if undecided else ""
    missing = max(LEAST_GOOD - good, 2 * sum(short.values()))
    raise NotEnoughImages(
        f"{project} has {good} good images ({have}{waiting}), and a training takes {LEAST_TRAINING} training and "
        f"{LEAST_VALIDATION} validation images: put about {missing} more into {project}/inbox/good/"
    )


def _notes(project: Project, counts: Mapping[str, int]) -> list[str]:
    """Say in plain words what this version can and cannot give."""
    notes = []
    promised = project.threshold.false_positive_rate
    validation = counts["validation"]
    if validation + 1 < 1 / promised:
        needed = int(-(-1 // promised)) - 1
        notes.append(
            f"{validation} validation images are too few to promise a false-positive rate of {promised:.3g} (that "
            f"takes {needed}): the weaker promise of {1 / (validation + 1):.2g} holds"
        )
    anomalies = {subset: counts[subset] for subset in SUBSETS if subset.startswith("anomaly/")}
    if not any(anomalies.values()):
        notes.append("No anomalies yet: the threshold is set from good images alone, and there is no AUROC or F1")
    else:
        if anomalies["anomaly/threshold"] < 10:
            notes.append(
                f"{anomalies['anomaly/threshold']} anomalies to set the threshold with, fewer than 10: "
                "it is set from good images alone"
            )
        if anomalies["anomaly/test"] < ENOUGH_ANOMALIES:
            notes.append(
                f"{anomalies['anomaly/test']} test anomalies, fewer than {ENOUGH_ANOMALIES}: "
                "the false-positive rate and synthetic defects decide on promotion"
            )
    if not counts["test"]:
        notes.append("No good test images: no false-positive rate on images that nothing was set with")
    return notes


def _left_out_note(left_out: Mapping[str, int]) -> list[str]:
    reasons = [f"{count} {reason}" for reason, count in left_out.items() if count]
    return [f"Left out: {', '.join(reasons)}"] if reasons else []
