"""Compare the rows of index files with the files of the inbox: name what does not meet, so that nothing is lost."""

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.database import chunks
from pipelines.catalogue.schema import annotations, rejections, samples
from pipelines.config.project import Project
from pipelines.ingest.inbox_keys import comparable, inbox_prefix
from pipelines.ingest.index_csv import Index, unused_columns
from pipelines.ingest.name_lists import some


def compare(project: Project, indexes: Sequence[Index], present: set[str], images: Iterable[str]) -> Iterator[str]:
    """Yield a message on each index whose rows, columns and files do not meet.

    Args:
        project: the project.
        indexes: the index files of the inbox, outermost first.
        present: comparable paths of all files in the inbox; those ingested earlier are looked up.
        images: paths of the images in the inbox.
    """
    for index in indexes:
        if unused := unused_columns(index, project):
            yield f"{index.path} has columns that mean nothing here, and are not kept: {some(unused, 12)}"
        prefix = comparable(inbox_prefix(project.name))
        absent = [path for path in index.rows if path not in present]
        missing = unaccounted(project.name, [prefix + path for path in absent])
        if rows := [index.row_name(path) for path in absent if prefix + path in missing]:
            yield f"{index.path} names {_files(len(rows))} not there: {some(rows)}"
    without: dict[str, list[str]] = {}
    for path in images:
        name = comparable(path)
        above = [index for index in indexes if index.rows and _is_below(name, comparable(index.folder))]
        if above and not any(name in index.rows for index in above):
            without.setdefault(above[-1].path, []).append(path)
    for index_path, paths in without.items():
        yield f"{index_path} has no row for {_files(len(paths))}: {some(paths)}"


def unaccounted(project: str, names: Sequence[str]) -> set[str]:
    """Return those of these comparable inbox keys for which the catalogue holds no outcome."""
    missing = set(names)
    if not missing:
        return missing
    with connect() as connection:
        for chunk in chunks(names):
            for table in (samples, annotations, rejections):
                query = select(table.c.source_key).where(table.c.project == project, table.c.source_key.in_(chunk))
                missing.difference_update(connection.execute(query).scalars())
    return missing


def _is_below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"
