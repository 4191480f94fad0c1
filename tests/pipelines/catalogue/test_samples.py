"""Effective labels, subsets and new images, on both databases."""

from typing import Any

import pytest
from sqlalchemy import select

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.samples import (
    classes_of,
    effective_labels,
    labelled_samples,
    mark_fired,
    mark_trained,
    new_images,
)
from pipelines.catalogue.schema import annotations, groups, now, samples

pytestmark = pytest.mark.usefixtures("each_database")


def add(sha256: str, *labels: tuple[str, str], side: str = "training", project: str = "line", **more: Any) -> None:
    """Enter a sample of its own group on `side`, with annotations (origin, label) in this order."""
    with transaction() as connection:
        connection.execute(groups.insert().values(project=project, group_key=sha256, side=side, origin="hashed"))
        connection.execute(
            samples.insert().values(
                project=project, sha256=sha256, key=f"k/{sha256}", format="PNG", width=8, height=8, mode="RGB",
                size_bytes=1, source_key="s", group_key=sha256, descriptors={}, **more,
            )
        )  # fmt: skip
        for origin, label in labels:
            connection.execute(
                annotations.insert().values(project=project, sha256=sha256, label=label, origin=origin, **extra(label))
            )


def extra(label: str) -> dict[str, str]:
    return {"type": "scratch", "mask_key": "m"} if label == "anomaly" else {}


def labels() -> dict[str, tuple[str, str]]:
    with connect() as connection:
        return {row["sha256"]: (row["label"], row["subset"]) for row in labelled_samples(connection, "line")}


def test_label_when_annotations_agree_is_theirs_and_when_they_do_not_is_none() -> None:
    add("a", ("inbox", "good"), ("inbox", "good"))
    add("b", ("inbox", "anomaly"), side="validation")
    add("c", ("inbox", "good"), ("inbox", "anomaly"))
    add("d")
    assert labels() == {"a": ("good", "training"), "b": ("anomaly", "anomaly/threshold")}


def test_label_when_somebody_decided_is_the_latest_decision() -> None:
    add("a", ("inbox", "good"), ("inbox", "anomaly"), ("decision", "anomaly"), side="test")
    add("b", ("decision", "anomaly"), ("serving", "good"), ("inbox", "anomaly"), side="test")
    assert labels() == {"a": ("anomaly", "anomaly/test"), "b": ("good", "test")}
    with connect() as connection:
        rows = {row["sha256"]: row for row in labelled_samples(connection, "line")}
    assert (rows["a"]["type"], rows["a"]["mask_key"]) == ("scratch", "m")
    assert (rows["b"]["type"], rows["b"]["mask_key"]) == (None, None)


def test_labelled_samples_when_withdrawn_leaves_them_out() -> None:
    add("a", ("inbox", "good"), withdrawn_at=now(), withdrawn_reason="blurred")
    assert labels() == {}


def test_new_images_when_unlabelled_disputed_withdrawn_or_trained_are_not_counted() -> None:
    add("new", ("inbox", "good"))
    add("unlabelled")
    add("disputed", ("inbox", "good"), ("inbox", "anomaly"))
    add("withdrawn", ("inbox", "good"), withdrawn_at=now())
    add("trained", ("inbox", "good"), trained_version="d1")
    add("elsewhere", ("inbox", "good"), project="other")
    with connect() as connection:
        assert len(new_images(connection, "line")) == 1


def test_new_images_when_fired_count_as_new_but_never_fire_again() -> None:
    for name in ("a", "b"):
        add(name, ("inbox", "good"))
    with transaction() as connection:
        mark_fired(connection, new_images(connection, "line", unfired=True))
    add("c", ("inbox", "good"))
    with connect() as connection:
        assert len(new_images(connection, "line")) == 3
        assert len(new_images(connection, "line", unfired=True)) == 1


def test_mark_trained_when_seen_before_keeps_the_first_version() -> None:
    hashes = [f"{number:04}" for number in range(1203)]  # more than one chunk
    add(hashes[0], ("inbox", "good"), trained_version="d0")
    for sha256 in hashes[1200:]:
        add(sha256, ("inbox", "good"))
    with transaction() as connection:
        mark_trained(connection, "line", hashes, "d1")
    with connect() as connection:
        versions = {row["sha256"]: row["trained_version"] for row in labelled_samples(connection, "line")}
    assert versions == {"0000": "d0", "1200": "d1", "1201": "d1", "1202": "d1"}


def test_content_is_that_of_the_latest_annotation_that_has_one_and_of_anomalies_alone() -> None:
    first, second = {"regions": [{"type": "dent"}]}, {"regions": [{"type": "scratch"}]}
    add("a", ("inbox", "anomaly"))
    add("b", ("inbox", "anomaly"))
    with transaction() as connection:
        for sha256, label, content in (
            ("a", "anomaly", first),
            ("a", "anomaly", second),
            ("a", "anomaly", None),  # stored as JSON's null
            ("b", "anomaly", first),
            ("b", "good", None),
        ):
            connection.execute(
                annotations.insert().values(
                    project="line", sha256=sha256, label=label, origin="decision", content=content
                )
            )
    with connect() as connection:
        rows = {row["sha256"]: row for row in labelled_samples(connection, "line")}
    assert rows["a"]["content"] == second
    assert (rows["b"]["label"], rows["b"]["content"]) == ("good", None)


def test_effective_labels_of_some_samples_are_those_among_all() -> None:
    for name in "abc":
        add(name, ("inbox", "good"), ("inbox", "anomaly" if name == "c" else "good"))
    with connect() as connection:
        every = connection.execute(select(effective_labels("line"))).all()
        some = connection.execute(select(effective_labels("line", ["a", "c"]))).all()
    assert {row.sha256 for row in some} == {"a", "c"}
    assert set(map(tuple, some)) < set(map(tuple, every))


def test_subset_of_a_class_is_the_side_of_its_group() -> None:
    add("a", ("inbox", "amanita"), side="validation")
    add("b", ("inbox", "amanita"), ("inbox", "boletus"))
    add("c", ("inbox", "good"), side="test")
    assert labels() == {"a": ("amanita", "validation"), "c": ("good", "test")}
    with connect() as connection:
        assert classes_of(connection, "line") == ["amanita", "boletus"]
