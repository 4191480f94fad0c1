"""What somebody decides about one sample: its label, or that it is withdrawn. It adds to the history, nothing goes."""

import re
import unicodedata
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, func, or_, select, update

from pipelines.catalogue import transaction
from pipelines.catalogue.samples import classes_of
from pipelines.catalogue.schema import annotations, now, samples
from pipelines.config.class_names import spelt_otherwise
from pipelines.config.project import load_project
from pipelines.errors import InspectlineError


class NoSuchSample(InspectlineError):
    """A sample is named that is not there, or a name fits several, or a label is none."""


class NotWithdrawn(InspectlineError):
    """A withdrawal is to be undone that is none."""


def withdraw(project: str, sample: str, reason: str) -> str:
    """Take a sample out of every later dataset version and return its SHA-256; withdrawn twice, the first time stays.

    The reason is added to those of earlier withdrawals that were undone.

    Raises:
        NoSuchSample: no sample, or more than one, goes by that name.
    """
    with transaction() as connection:
        sha256 = find_sample(connection, project, sample)
        connection.execute(
            update(samples)
            .where(samples.c.project == project, samples.c.sha256 == sha256, samples.c.withdrawn_at.is_(None))
            .values(withdrawn_at=now(), withdrawn_reason=_with_history(reason))
        )
    return sha256


def restore(project: str, sample: str, author: str | None = None) -> str:
    """Undo the withdrawal of a sample, so that the next dataset version has it again, and return its SHA-256.

    Its reason stays, with a note of who undid it, and when.

    Raises:
        NoSuchSample: no sample, or more than one, goes by that name.
        NotWithdrawn: it is not withdrawn, or not any more.
    """
    with transaction() as connection:
        sha256 = find_sample(connection, project, sample)
        undone = f"undone on {now():%Y-%m-%d %H:%M} UTC{f' by {author}' if author else ''}"
        restored = connection.execute(
            update(samples)
            .where(samples.c.project == project, samples.c.sha256 == sha256, samples.c.withdrawn_at.is_not(None))
            .values(withdrawn_at=None, withdrawn_reason=_with_history(undone))
        )
        if not restored.rowcount:
            raise NotWithdrawn(f"{project}: sample {sha256} is not withdrawn, so there is nothing to undo")
    return sha256


def _with_history(text: str) -> ColumnElement[str]:
    """Return what was said of withdrawing the sample before, and `text` after it."""
    return func.coalesce(samples.c.withdrawn_reason + "; ", "") + text


def decide(project: str, sample: str, label: str, kind: str | None = None, author: str | None = None) -> str:
    """Give a sample its label by decision, and return its SHA-256.

    The label is `good` or `anomaly`, with a type; of a classifier one of the project's classes. A decision outweighs
    what the inbox says; the latest one holds.

    Raises:
        NoSuchSample: no sample, or more than one, goes by that name, or the project has no such label.
    """
    classifies = load_project(project).task == "classification"
    if not classifies and label not in ("good", "anomaly"):
        raise NoSuchSample(f"{label!r} is no label: write good or anomaly")
    with transaction() as connection:
        if classifies:
            label = _known_class(project, unicodedata.normalize("NFC", label).strip(), classes_of(connection, project))
        sha256 = find_sample(connection, project, sample)
        connection.execute(
            annotations.insert().values(
                project=project,
                sha256=sha256,
                label=label,
                type=kind if label == "anomaly" else None,
                origin="decision",
                author=author,
            )
        )
    return sha256


def _known_class(project: str, label: str, classes: Sequence[str]) -> str:
    """Return `label` if it is one of the project's classes.

    Raises:
        NoSuchSample: it is not; names them.
    """
    if label in classes:
        return label
    if other := spelt_otherwise(label, classes):
        raise NoSuchSample(f"{project} has no class {label!r}: write {other!r}")
    if not classes:
        raise NoSuchSample(f"{project} has no class {label!r}, and none yet: put images into {project}/inbox/<class>/")
    raise NoSuchSample(f"{project} has no class {label!r}: its classes are {', '.join(classes)}")


def find_sample(connection: Connection, project: str, sample: str) -> str:
    """Return the SHA-256 of the sample that `sample` names: by its hash or the hash's beginning (6 digits or more), its
    S3 address, or the name under which it came into the inbox.

    Raises:
        NoSuchSample: there is none, or more than one.
    """
    text = sample.strip()
    whole = re.search(r"[0-9a-f]{64}", text)
    conditions: list[ColumnElement[bool]]
    if whole:
        conditions = [samples.c.sha256 == whole.group()]
    else:
        # Names are stored in NFC; before they were, as they came.
        spellings = {unicodedata.normalize(form, text.lstrip("/")) for form in ("NFC", "NFD")}
        conditions = [or_(*(samples.c.source_key.endswith(f"/{name}", autoescape=True) for name in sorted(spellings)))]
        if re.fullmatch(r"[0-9a-f]{6,63}", text):
            conditions.insert(0, samples.c.sha256.startswith(text))
    for condition in conditions:
        query = (
            select(samples.c.sha256).where(samples.c.project == project, condition).order_by(samples.c.sha256).limit(5)
        )
        matches = list(connection.execute(query).scalars())
        if len(matches) == 1:
            return str(matches[0])
        if matches:
            several = ", ".join(sha256[:12] for sha256 in matches)
            raise NoSuchSample(
                f"{sample!r} fits several samples of {project}, such as {several}: give more of the hash"
            )
    raise NoSuchSample(f"{project} has no sample {sample!r}: give its SHA-256 (or its first digits) or its file name")
