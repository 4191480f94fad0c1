"""Corrections of served images: they become samples, the latest annotation is effective, none is overwritten."""

import hashlib
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.annotations import latest
from pipelines.catalogue.predictions import enter, purge_expired
from pipelines.catalogue.samples import new_images
from pipelines.catalogue.schema import groups, now, samples
from pipelines.config.project import load_project
from pipelines.datasets.corrections import ImageGone, NoSuchPrediction, annotate, propose, sha256_of
from pipelines.errors import BadImage
from pipelines.images.masks import open_mask
from pipelines.ingest.submission import Posted
from pipelines.storage.s3 import Storage
from tests.conftest import Projects
from tests.pipelines.hostile import encode, textured
from tests.pipelines.ingest.conftest import Line, image_file
from tests.pipelines.ingest.test_ingest import mask_file


@pytest.fixture
def line(projects: Projects, database: str) -> Line:
    projects.write("line")
    return Line(projects.bucket, "line")


def serve(line: Line, seed: int = 1, *, days: float = 30, source: str = "upload") -> str:
    """Keep an image as serving does, and return its SHA-256."""
    data = image_file(seed)
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"line/served/2026-11-21/{sha256}.png"
    Storage(line.bucket).put(key, data)
    row = {"score": 0.1, "threshold": 0.2, "is_anomaly": False, "latency_ms": 1.0, "width": 40, "height": 40}
    row |= {
        "request_id": f"request {seed}",
        "model_version": "1",
        "descriptors": {},
        "embedding": b"",
        "source": source,
    }
    row |= {"created_at": now(), "expires_at": now() + timedelta(days=days)}
    enter([row | {"project": "line", "sha256": sha256, "image_key": key}])
    return sha256


def say(sha256: str, label: str, mask: bytes | None = None, **more: Any) -> dict[str, Any]:
    return annotate(load_project("line"), sha256, Posted(b"", label, author="anna", **more), mask)


def test_annotate_when_a_served_image_is_corrected_then_a_sample_of_the_next_version(line: Line):
    sha256 = serve(line)
    assert sha256_of("line", "request 1") == sha256
    outcome = say(sha256, "anomaly", type="scratch")
    assert (outcome["added"], outcome["label"], outcome["state"]) == (True, "anomaly", "temp")
    (sample,) = line.labelled
    assert (sample["label"], sample["type"], sample["subset"]) == ("anomaly", "scratch", outcome["subset"])
    assert sample["source_key"].startswith("line/served/")
    assert line.storage.get(sample["key"]) == image_file(1)
    (row,) = line.annotations
    assert (row["id"], row["origin"], row["author"]) == (outcome["annotation"], "serving", "anna")


def test_annotate_when_somebody_says_otherwise_later_then_the_later_word_holds_and_the_first_stays(line: Line):
    sha256 = serve(line)
    say(sha256, "anomaly", type="scratch")
    assert say(sha256, "anomaly", type="scratch")["added"] is False
    for label in ("good", "anomaly", "good"):
        assert say(sha256, label)["added"] is True
    assert [row["label"] for row in line.annotations] == ["anomaly", "good", "anomaly", "good"]
    assert [row["label"] for row in line.labelled] == ["good"]
    with connect() as connection:
        assert latest(connection, "line", [sha256, "0" * 64])[sha256]["label"] == "good"


def test_annotate_when_the_inbox_says_otherwise_then_decided(line: Line):
    line.send("good/x.png", image_file(1))
    line.ingest()
    outcome = say(hashlib.sha256(image_file(1)).hexdigest(), "anomaly")
    assert (outcome["label"], outcome["subset"].partition("/")[0]) == ("anomaly", "anomaly")
    assert (len(line.samples), line.labelled[0]["label"]) == (1, "anomaly")


def test_annotate_when_a_mask_comes_along_then_kept_and_checked(line: Line):
    sha256 = serve(line)
    with pytest.raises(BadImage, match="draw it at the image's size"):
        say(sha256, "anomaly", mask=mask_file(size=(20, 40)))
    assert line.samples == []
    say(sha256, "anomaly", mask=mask_file())
    assert line.storage.get(line.labelled[0]["mask_key"]) == mask_file()


def test_annotate_when_a_mask_marks_nothing_or_nearly_everything_then_the_answer_says_so(line: Line):
    sha256 = serve(line)
    assert say(sha256, "anomaly", mask=mask_file())["notes"] == []
    for shade, word in ((0, "nothing"), (255, "nearly everything")):
        mask = encode(Image.new("L", (40, 40), shade))
        for _ in range(2):  # also where it says nothing new
            assert any(word in note for note in say(sha256, "anomaly", mask=mask)["notes"])


def test_annotate_when_the_image_is_turned_by_exif_then_the_mask_of_its_stored_pixels_is_turned_with_it(line: Line):
    exif = Image.Exif()
    exif[0x0112] = 6
    line.send("anomaly/7.jpg", encode(textured(60, 40), "JPEG", exif=exif))
    line.ingest()
    marks = np.zeros((40, 60), np.uint8)
    marks[5:15, 8:20] = 255
    say(line.samples[0]["sha256"], "anomaly", mask=encode(Image.fromarray(marks)))
    stored = line.storage.get(line.labelled[0]["mask_key"])
    np.testing.assert_array_equal(open_mask(stored, (40, 60)), np.rot90(marks, -1) > 0)
    with pytest.raises(BadImage, match="EXIF"):
        say(line.samples[0]["sha256"], "anomaly", mask=encode(Image.new("L", (30, 40))))


def test_annotate_when_a_group_is_told_or_its_address_shows_it_then_with_the_group(line: Line, projects: Projects):
    projects.write("line", group={"regex": r"(part-\d+)"})
    say(serve(line, 1, source="https://camera.example/part-0007/part-0042.png"), "good")
    say(serve(line, 2), "good", group="part-9")
    say(serve(line, 3), "good")
    first, second, third = (row["group_key"] for row in line.samples)
    assert (first, second, third) == ("part-0042", "part-9", line.samples[2]["sha256"])


def test_annotate_when_the_image_is_gone_or_was_never_served_then_says_which(line: Line):
    with pytest.raises(NoSuchPrediction, match="neither judged nor kept"):
        say("0" * 64, "good")
    with pytest.raises(NoSuchPrediction, match="no prediction 'x'"):
        sha256_of("line", "x")
    sha256 = serve(line, days=-1)
    purge_expired("line")
    with pytest.raises(ImageGone, match="its time is over"):
        say(sha256, "good")
    lost = serve(line, 2)
    Storage(line.bucket).delete(f"line/served/2026-11-21/{lost}.png")
    with pytest.raises(ImageGone, match="not there any more"):
        say(lost, "good")
    assert line.samples == []


def classified(seed: int, name: str, certainty: float, data: bytes | None = None) -> tuple[dict[str, Any], bytes]:
    """Return a prediction of a classifier as serving enters it, and its image."""
    image = image_file(seed) if data is None else data
    sha256 = hashlib.sha256(image).hexdigest()
    row = {"sha256": sha256, "score": certainty, "answer": {"class": name}, "model_version": "3", "source": "upload"}
    return row | {"image_key": f"line/served/2026-11-21/{sha256}.png", "width": 40, "height": 40}, image


def test_propose_when_predictions_are_certain_then_samples_for_training_until_somebody_says_otherwise(
    line: Line, projects: Projects
):
    certain = [
        classified(1, "oak", 0.9),
        classified(2, "ash", 0.71),
        classified(3, "elm", 0.7),
        classified(1, "oak", 0.95),
    ]
    assert propose(load_project("line"), certain) == 0  # an anomaly detector's project
    projects.write("line", task="classification")
    assert propose(load_project("line"), certain) == 0
    projects.write("line", task="classification", annotation={"propose_above": 0.7})
    project = load_project("line")
    assert (propose(project, certain), propose(project, certain), propose(project, [])) == (2, 0, 0)
    assert sorted((row["label"], row["origin"], row["author"]) for row in line.annotations) == [
        ("ash", "proposed", "version 3"), ("oak", "proposed", "version 3"),
    ]  # fmt: skip
    assert [(row["proposed"], row["side"]) for row in line.labelled] == [(True, "training")] * 2
    assert {line.storage.get(row["key"]) for row in line.samples} == {image_file(1), image_file(2)}
    with connect() as connection:
        assert len(new_images(connection, "line")) == 2
    say(certain[0][0]["sha256"], "elm")
    assert propose(project, [classified(1, "oak", 0.99), classified(2, "fir", 0.99)]) == 1  # a version changed its mind
    assert {row["sha256"]: (row["label"], bool(row["proposed"])) for row in line.labelled} == {
        certain[0][0]["sha256"]: ("elm", False), certain[1][0]["sha256"]: ("fir", True),
    }  # fmt: skip


def test_propose_when_the_image_is_for_judging_withdrawn_or_unreadable_then_nothing(line: Line, projects: Projects):
    projects.write("line", task="classification", annotation={"propose_above": 0.5})
    project = load_project("line")
    for seed in range(1, 5):
        line.send(f"unlabelled/{seed}.png", image_file(seed))
    line.ingest()
    with transaction() as connection:
        connection.execute(groups.update().values(side="training"))
        for seed, values in ((1, {"side": "test"}), (2, {"side": "validation"})):
            sha256 = hashlib.sha256(image_file(seed)).hexdigest()
            key = connection.execute(samples.select().where(samples.c.sha256 == sha256)).mappings().one()["group_key"]
            connection.execute(groups.update().where(groups.c.group_key == key).values(values))
        sha256 = hashlib.sha256(image_file(3)).hexdigest()
        connection.execute(samples.update().where(samples.c.sha256 == sha256).values(withdrawn_at=now()))
    certain = [classified(seed, "oak", 0.9) for seed in range(1, 5)] + [classified(9, "oak", 0.9, b"no image")]
    assert propose(project, certain) == 1
    assert [row["sha256"] for row in line.annotations] == [certain[3][0]["sha256"]]
