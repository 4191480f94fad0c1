"""Samples entered in the catalogue as ingest would, for tests of what counts them."""

from pipelines.catalogue import transaction
from pipelines.catalogue.schema import annotations, samples


def enter_images(project: str, count: int, *, start: int = 0, label: str | None = "good") -> None:
    """Enter `count` samples of `project`, each with this label in its inbox annotation."""
    hashes = [f"{number:064x}" for number in range(start, start + count)]
    columns = {"format": "PNG", "width": 64, "height": 64, "mode": "RGB", "size_bytes": 1}
    with transaction() as connection:
        connection.execute(
            samples.insert(),
            [{"project": project, "sha256": h, "key": h, "source_key": h, "group_key": h} | columns for h in hashes],
        )
        if label:
            connection.execute(
                annotations.insert(),
                [{"project": project, "sha256": h, "label": label, "origin": "inbox"} for h in hashes],
            )
