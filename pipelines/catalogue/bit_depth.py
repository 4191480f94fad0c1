"""Which bit depth a project's images have now: the project file's, or what its dataset versions fixed."""

from __future__ import annotations

from sqlalchemy import Connection, select

from pipelines.catalogue.schema import dataset_versions
from pipelines.config.project import Project


def with_project_bits(connection: Connection, project: Project) -> Project:
    """Return the project with `project_bits` as its `image.bits`, which stays `auto` if nothing is fixed yet."""
    bits = project_bits(connection, project)
    if bits is None:
        return project
    return project.model_copy(update={"image": project.image.model_copy(update={"bits": bits})})


def project_bits(connection: Connection, project: Project) -> int | None:
    """Return `image.bits` of the project, or with `auto` the bit depth of its latest dataset version that has one.

    None: nothing is fixed yet, and each image is scaled by its own samples.
    """
    if project.image.bits != "auto":
        return project.image.bits
    return connection.execute(
        select(dataset_versions.c.bits)
        .where(dataset_versions.c.project == project.name, dataset_versions.c.bits.is_not(None))
        .order_by(dataset_versions.c.created_at.desc())
        .limit(1)
    ).scalar()
