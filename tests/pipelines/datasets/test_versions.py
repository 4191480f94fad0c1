"""Dataset versions: contents, identity and description; withdrawals and decisions."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.schema import annotations, dataset_versions, groups, samples
from pipelines.catalogue.splits import SUBSETS
from pipelines.datasets.__main__ import main
from pipelines.datasets.decisions import NoSuchSample, NotWithdrawn, decide, find_sample, restore, withdraw
from pipelines.datasets.versions import COLUMNS, PROPOSED, REGIONS, freeze, read_manifest
from pipelines.errors import BadDataset, NotEnoughImages
from pipelines.storage.s3 import Storage


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def add(first: int, count: int, side: str, *labels: str, project: str = "line") -> None:
    """Enter samples numbered from `first`, each a group of its own on `side`, with these inbox labels."""
    numbers = range(first, first + count)
    common: dict[str, Any] = {"project": project}
    with transaction() as connection:
        connection.execute(
            groups.insert(), [common | {"group_key": sha(n), "side": side, "origin": "hashed"} for n in numbers]
        )
        fixed = {"format": "PNG", "width": 40, "height": 30, "mode": "RGB", "size_bytes": 1, "descriptors": {}}
        rows = [
            {
                "sha256": sha(n),
                "key": f"line/samples/{sha(n)}.png",
                "source_key": f"line/inbox/good/{n}.png",
                "group_key": sha(n),
                "acquired_at": datetime(2026, 5, 1, tzinfo=UTC) if n % 2 else None,
            }
            for n in numbers
        ]
        connection.execute(samples.insert(), [common | fixed | row for row in rows])
        annotation_rows = [
            common | {"sha256": sha(n), "label": label, "origin": "inbox", **anomaly(label)}
            for n in numbers
            for label in labels
        ]
        if annotation_rows:
            connection.execute(annotations.insert(), annotation_rows)


def anomaly(label: str) -> dict[str, str | None]:
    odd = label == "anomaly"
    return {"type": "dent" if odd else None, "mask_key": "line/samples/m_mask.png" if odd else None}


@pytest.fixture
def project(projects, each_database) -> Any:
    projects.write("line")
    add(0, 36, "training", "good")
    add(100, 12, "validation", "good")
    add(200, 12, "test", "good")
    return projects


def test_freeze_when_called_then_writes_manifest_and_counts(project):
    add(300, 3, "validation", "anomaly")
    add(400, 5, "test", "anomaly")
    frozen = freeze("line")
    assert frozen.counts == {
        "training": 36,
        "validation": 12,
        "test": 12,
        "anomaly/training": 0,
        "anomaly/threshold": 3,
        "anomaly/test": 5,
    }
    assert tuple(frozen.counts) == SUBSETS
    assert frozen.version_id == "d" + frozen.digest[:12]
    frame = read_manifest(frozen.manifest_uri)
    assert tuple(frame.columns) == (*COLUMNS, REGIONS, PROPOSED)
    assert list(frame["sha256"]) == sorted(frame["sha256"])
    assert frame["subset"].value_counts().to_dict() == {name: n for name, n in frozen.counts.items() if n}
    assert set(frame[frame["label"] == "anomaly"]["type"]) == {"dent"}
    assert set(frame[frame["label"] == "good"]["mask_key"]) == {None}
    assert str(frame["acquired_at"].dt.tz) == "UTC"
    assert frame["acquired_at"].notna().sum() == 33


def test_freeze_when_content_is_the_same_then_is_the_same_version_and_else_another(project):
    first = freeze("line")
    assert freeze("line") == first
    with connect() as connection:
        assert len(connection.execute(dataset_versions.select()).all()) == 1
    withdraw("line", sha(0), "blurred")
    second = freeze("line")
    assert second.version_id != first.version_id
    assert second.counts["training"] == 35
    assert len(read_manifest(first.manifest_uri)) == 60, "a version never changes"
    add(500, 1, "training", "good", project="other")
    assert freeze("line") == second


def test_freeze_when_samples_are_disputed_unlabelled_or_withdrawn_then_leaves_them_out_and_says_so(project):
    add(300, 2, "training", "good", "anomaly")
    add(400, 3, "training")
    withdraw("line", sha(0), "blurred")
    frozen = freeze("line")
    assert sum(frozen.counts.values()) == 59
    assert "Left out: 1 withdrawn, 3 unlabelled, 2 disputed" in frozen.notes
    decide("line", sha(300), "good")
    decide("line", sha(400), "anomaly", "dent", author="kim")
    frozen = freeze("line")
    assert (frozen.counts["training"], frozen.counts["anomaly/training"]) == (36, 1)


def test_freeze_when_few_images_then_says_the_weaker_promise_in_plain_words(project):
    notes = freeze("line").notes
    assert any("12 validation images are too few" in note and "99" in note and "0.077" in note for note in notes)
    assert any(note.startswith("No anomalies yet") for note in notes)
    add(600, 87, "validation", "good")
    assert not any("too few" in note for note in freeze("line").notes)


def test_freeze_when_anomalies_are_few_then_says_what_cannot_be_given(project):
    add(300, 9, "validation", "anomaly")
    add(400, 19, "test", "anomaly")
    notes = " ".join(freeze("line").notes)
    assert "fewer than 10" in notes
    assert "fewer than 20" in notes
    add(500, 1, "validation", "anomaly")
    add(600, 1, "test", "anomaly")
    notes = " ".join(freeze("line").notes)
    assert "fewer than" not in notes


@pytest.mark.parametrize("counts", [(0, 0, 0), (15, 10, 5), (40, 3, 5)])
def test_freeze_when_too_few_to_train_then_says_counts_and_what_to_add(projects, database, counts):
    projects.write("line")
    for first, (count, side) in enumerate(zip(counts, ("training", "validation", "test"), strict=True)):
        add(first * 100, count, side, "good") if count else None
    with pytest.raises(NotEnoughImages) as error:
        freeze("line")
    message = str(error.value)
    assert f"{counts[0]} training" in message
    assert f"{counts[1]} validation" in message
    assert "line/inbox/good/" in message
    assert "\n" not in message


def test_freeze_when_killed_before_the_row_then_the_next_one_completes_it(project, bucket):
    frozen = freeze("line")
    with transaction() as connection:
        connection.execute(dataset_versions.delete())
    assert freeze("line") == frozen
    with connect() as connection:
        (row,) = connection.execute(dataset_versions.select()).mappings()
    assert (row["version_id"], row["digest"]) == (frozen.version_id, frozen.digest)
    assert Storage(bucket).uri(row["manifest_key"]) == frozen.manifest_uri


def test_read_manifest_when_it_is_gone_or_damaged_then_says_so(bucket):
    with pytest.raises(BadDataset, match="not there"):
        read_manifest(f"s3://{bucket}/line/d0/dataset/manifest.parquet")
    Storage(bucket).put("line/d0/dataset/manifest.parquet", b"PAR1 nonsense")
    with pytest.raises(BadDataset, match="cannot be read"):
        read_manifest(f"s3://{bucket}/line/d0/dataset/manifest.parquet")


@pytest.mark.parametrize("name", [sha(7), sha(7)[:8], f"s3://b/line/samples/{sha(7)}.png", "7.png", "good/7.png"])
def test_find_sample_when_named_in_any_way_then_finds_it(project, name):
    with connect() as connection:
        assert find_sample(connection, "line", name) == sha(7)


def test_find_sample_when_name_fits_none_or_several_then_says_so(project):
    with connect() as connection:
        with pytest.raises(NoSuchSample, match="has no sample"):
            find_sample(connection, "line", "nothing.png")
        with pytest.raises(NoSuchSample, match="has no sample"):
            find_sample(connection, "line", "%")
    add(1000, 1, "training", "good", project="other")
    with transaction() as connection:
        connection.execute(
            samples.update().where(samples.c.sha256.in_([sha(1), sha(2)])).values(source_key="line/inbox/good/twin.png")
        )
    with connect() as connection, pytest.raises(NoSuchSample, match="several"):
        find_sample(connection, "line", "twin.png")


def test_main_when_withdrawn_or_decided_then_says_so_and_keeps_history(project, capsys):
    assert main(["withdraw", sha(0)[:10], "--project", "line", "--reason", "blurred"]) == 0
    assert "withdrawn (blurred)" in capsys.readouterr().out
    assert main(["decide", sha(1), "anomaly", "--type", "dent", "--project", "line"]) == 0
    assert "is anomaly by decision" in capsys.readouterr().out
    assert main(["withdraw", "nothing", "--project", "line"]) == 1
    assert capsys.readouterr().err.startswith("error: line has no sample 'nothing'")
    with connect() as connection:
        rows = {row["sha256"]: row for row in connection.execute(samples.select()).mappings()}
        assert rows[sha(0)]["withdrawn_reason"] == "blurred"
        labels = connection.execute(annotations.select().where(annotations.c.sha256 == sha(1))).mappings().all()
    assert [row["label"] for row in labels] == ["good", "anomaly"]


def test_restore_when_withdrawn_then_later_versions_have_it_again_and_the_history_says_all(project):
    before = freeze("line")
    withdraw("line", sha(0), "blurred")
    assert freeze("line") != before
    assert restore("line", sha(0), "kim") == sha(0)
    assert freeze("line") == before
    withdraw("line", sha(0), "cut off")
    with connect() as connection:
        row = connection.execute(samples.select().where(samples.c.sha256 == sha(0))).mappings().one()
    assert row["withdrawn_at"] is not None
    first, undone, second = row["withdrawn_reason"].split("; ")
    assert (first, second) == ("blurred", "cut off")
    assert "kim" in undone


def test_restore_when_not_withdrawn_or_undone_twice_then_says_so(project, capsys):
    with pytest.raises(NotWithdrawn):
        restore("line", sha(0))
    assert main(["withdraw", sha(0), "--project", "line"]) == 0
    assert main(["restore", sha(0), "--project", "line"]) == 0
    capsys.readouterr()
    assert main(["restore", sha(0), "--project", "line"]) == 1
    assert "not withdrawn" in capsys.readouterr().err
    assert main(["restore", "nothing.png", "--project", "line"]) == 1
