"""Ingest from the inbox to the catalogue, on real S3: what is accepted, refused, known, disputed, annotated."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pipelines.images.descriptors import DESCRIPTORS
from pipelines.ingest import ingest_batch, list_inbox, report
from tests.pipelines.hostile import encode, every_mode, hostile_files
from tests.pipelines.ingest.conftest import Line, image_file


def mask_file(size: tuple[int, int] = (40, 40), seed: int = 0) -> bytes:
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[5 + seed : 15 + seed, 5:15] = 255
    return encode(Image.fromarray(mask))


def test_ingest_when_inbox_is_empty_then_says_so(line: Line):
    assert list_inbox("line", "run") == {"batches": [], "waiting": 0}
    summary = report("line", "run", [])
    assert summary["lines"] == ["line: nothing new in the inbox"]
    assert summary["accepted"] == 0


def test_ingest_when_images_of_every_kind_come_then_all_are_samples(line: Line):
    files = every_mode()
    for name, data in files.items():
        line.send(f"good/{name}", data)
    summary = line.ingest()
    assert summary["accepted"] == len(files)
    assert line.keys("inbox") == []
    for row in line.samples:
        data = line.storage.get(row["key"])
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert row["key"].startswith(f"line/samples/{row['sha256'][:2]}/{row['sha256']}.")
        assert row["size_bytes"] == len(data)
        assert set(row["descriptors"]) == set(DESCRIPTORS)
        assert row["trained_version"] is None
    assert {row["format"] for row in line.samples} == {"JPEG", "PNG", "BMP", "TIFF", "WEBP"}


def test_ingest_when_files_are_hostile_then_refuses_each_with_its_reason_and_takes_the_others(line: Line):
    hostile = hostile_files()
    for name, (data, _) in hostile.items():
        line.send(f"good/{name}", data)
    line.send_images(5)
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"], summary["failed"]) == (5, 20, 0)
    assert line.keys("inbox") == []
    assert len(line.rejections) == 20
    for name, (data, word) in hostile.items():
        assert line.storage.get(f"line/rejected/good/{name}") == data
        reason = line.storage.get(f"line/rejected/good/{name}.reason.txt").decode().strip()
        assert word in reason
        assert f"rejected good/{name}: {reason}" in summary["lines"]
    full = json.loads(line.storage.get(f"{summary['uri'].split('/', 3)[3]}"))
    assert Counter(result["outcome"] for result in full["results"]) == {"accepted": 5, "rejected": 20}


@pytest.mark.parametrize(
    "path",
    ["image.png", "elsewhere/image.png", "good/a//b.png", "good/../x.png", "good/be\x07ll.png", "good/a\\b.png"]
    + ["good/" + "n" * 950 + ".png", "good/ padded /x.png"],
)
def test_ingest_when_key_cannot_be_used_then_moves_it_to_rejected(line: Line, path: str):
    line.storage.put(f"line/inbox/{path}", image_file(0))
    line.send_images(1, first=1)
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"]) == (1, 1)
    assert line.keys("inbox") == []
    (row,) = line.rejections
    assert line.storage.get(row["rejected_key"]) == image_file(0)
    assert row["reason"] == line.storage.get(f"{row['rejected_key']}.reason.txt").decode().strip()
    assert not {"..", ""} & set(row["rejected_key"].split("/"))
    assert row["rejected_key"].isprintable()


def test_ingest_when_folders_are_marked_by_empty_objects_then_leaves_them(line: Line):
    line.storage.put("line/inbox/good/", b"")
    line.storage.put("line/inbox/", b"")
    assert line.ingest()["lines"] == ["line: nothing new in the inbox"]


def test_ingest_when_same_bytes_come_twice_then_they_are_one_sample(line: Line):
    line.send("good/a.png", image_file(1))
    line.send("good/b.png", image_file(1))
    summary = line.ingest()
    assert (summary["accepted"], summary["annotated"] + summary["known"]) == (1, 1)
    line.send("good/a.png", image_file(1))
    summary = line.ingest()
    assert (summary["accepted"], summary["known"]) == (0, 1)
    assert len(line.samples) == 1
    assert [row["label"] for row in line.annotations] == ["good", "good"]  # one for each key, none twice
    assert line.keys("inbox") == []


@pytest.mark.parametrize("in_one_run", [True, False])
def test_ingest_when_same_bytes_have_two_labels_then_is_disputed_and_says_so(line: Line, in_one_run: bool):
    line.send("good/a.png", image_file(1))
    if not in_one_run:
        line.ingest()
        assert len(line.labelled) == 1
    line.send("anomaly/dent/a.png", image_file(1))
    summary = line.ingest()
    assert summary["disputed"] == 1
    assert len(line.samples) == 1
    assert sorted(row["label"] for row in line.annotations) == ["anomaly", "good"]
    assert line.labelled == []
    (dispute,) = [text for text in summary["lines"] if text.startswith("disputed")]
    assert "good/a.png" in dispute
    assert "anomaly/dent/a.png" in dispute
    assert "decide" in dispute


def test_ingest_when_labels_are_given_by_folder_then_annotates(line: Line):
    line.send("good/shift/a.png", image_file(1))
    line.send("anomaly/b.png", image_file(2))
    line.send("anomaly/scratch/c.png", image_file(3))
    line.send("anomaly/scratch/deep/er/d.png", image_file(4))
    line.send("anomaly/anomaly/e.png", image_file(5))
    line.send("unlabelled/f.png", image_file(6))
    summary = line.ingest()
    assert (summary["accepted"], summary["unlabelled"]) == (6, 1)
    annotations = {row["source_key"].rpartition("/")[2]: (row["label"], row["type"]) for row in line.annotations}
    assert annotations == {
        "a.png": ("good", None),
        "b.png": ("anomaly", None),
        "c.png": ("anomaly", "scratch"),
        "d.png": ("anomaly", "scratch"),
        "e.png": ("anomaly", None),
    }


def test_ingest_when_mask_lies_beside_then_becomes_the_annotation(line: Line):
    line.send("anomaly/scratch/a.png", image_file(1))
    line.send("anomaly/scratch/a_mask.png", mask_file())
    line.send("anomaly/scratch/b.jpg", image_file(2, "JPEG"))
    line.send("anomaly/scratch/b_mask.png", mask_file(seed=1))
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"]) == (2, 0)
    assert line.keys("inbox") == []
    for row in line.annotations:
        assert line.storage.get(row["mask_key"]) in (mask_file(), mask_file(seed=1))
        assert row["mask_key"].endswith("_mask.png")
    assert all(row["mask_key"] for row in line.labelled)


def test_ingest_when_mask_comes_later_then_is_added_to_its_image(line: Line):
    line.send("anomaly/scratch/a.png", image_file(1))
    line.ingest()
    line.send("anomaly/scratch/a_mask.png", mask_file())
    summary = line.ingest()
    assert (summary["annotated"], summary["accepted"]) == (1, 0)
    assert line.keys("inbox") == []
    (row,) = line.labelled
    assert (row["type"], row["mask_key"] is not None) == ("scratch", True)
    assert len(line.annotations) == 2


def test_ingest_when_mask_comes_first_then_waits_for_its_image(line: Line):
    line.send("anomaly/a_mask.png", mask_file())
    listed = list_inbox("line", "early")
    assert listed == {"batches": [], "waiting": 1}
    summary = line.ingest()
    assert summary["lines"][1] == "waiting: 1, masks whose image is not there yet"
    line.send("anomaly/a.png", image_file(1))
    summary = line.ingest()
    assert summary["accepted"] == 1
    assert line.labelled[0]["mask_key"]
    assert line.keys("inbox") == []


def test_ingest_when_mask_has_the_wrong_size_then_refuses_the_mask_alone(line: Line):
    line.send("anomaly/dent/a.png", image_file(1))
    line.send("anomaly/dent/a_mask.png", mask_file((39, 40)))
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"]) == (1, 1)
    assert line.keys("rejected") == ["anomaly/dent/a_mask.png", "anomaly/dent/a_mask.png.reason.txt"]
    assert line.labelled[0]["mask_key"] is None
    line.send("anomaly/dent/a_mask.png", b"no image")
    assert line.ingest()["rejected"] == 1
    line.send("anomaly/dent/a_mask.png", mask_file())
    assert line.ingest()["annotated"] == 1
    assert line.labelled[0]["mask_key"]


def test_ingest_when_image_is_refused_then_its_mask_goes_with_it(line: Line):
    line.send("anomaly/a.png", image_file(1)[:500])
    line.send("anomaly/a_mask.png", mask_file())
    summary = line.ingest()
    assert summary["rejected"] == 2
    assert line.keys("inbox") == []
    assert line.samples == []


def test_ingest_when_mask_lies_beside_a_good_image_then_refuses_it(line: Line):
    line.send("good/a.png", image_file(1))
    line.send("good/a_mask.png", mask_file())
    line.send("good/gas_mask.png", image_file(2))  # a picture of a mask
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"]) == (2, 1)
    assert "anomaly/" in line.rejections[0]["reason"]


def test_ingest_when_an_image_has_two_masks_then_refuses_the_second(line: Line):
    line.send("anomaly/a.png", image_file(1))
    line.send("anomaly/a_mask.bmp", encode(Image.new("L", (40, 40), 255), "BMP"))
    line.send("anomaly/a_mask.png", mask_file())
    summary = line.ingest()
    assert (summary["accepted"], summary["rejected"]) == (1, 1)
    assert line.labelled[0]["mask_key"]


def test_list_inbox_when_there_are_many_then_cuts_and_names_batches(line: Line):
    line.send_images(7)
    line.send_images(3, "anomaly/dent", first=100)
    listed = list_inbox("line", "manual__2026-05-01T00:00:00+02:00", batch_size=4)
    assert [batch["count"] for batch in listed["batches"]] == [4, 4, 2]
    assert [batch["label"] for batch in listed["batches"]] == [
        "batch 1 · 4 images · …",
        "batch 2 · 4 images · good/…",
        "batch 3 · 2 images · good/…",
    ]
    assert all("+" not in batch["uri"] for batch in listed["batches"])
    assert list_inbox("line", "manual__2026-05-01T00:00:00+02:00", batch_size=4) == listed


def test_ingest_batch_when_repeated_then_counts_the_same_and_changes_nothing(line: Line):
    line.send_images(4)
    line.send("good/bad.png", b"nothing")
    line.send("anomaly/a.png", image_file(50))
    line.send("anomaly/a_mask.png", mask_file())
    (batch,) = list_inbox("line", "run")["batches"]
    first = ingest_batch(batch)
    state = line.state()
    assert ingest_batch(batch) == first
    assert line.state() == state
    assert (first["accepted"], first["rejected"]) == (5, 1)


def test_ingest_when_objects_vanish_between_listing_and_reading_then_goes_on(line: Line):
    line.send_images(3)
    line.send("anomaly/a.png", image_file(50))
    line.send("anomaly/a_mask.png", mask_file())
    (batch,) = list_inbox("line", "run")["batches"]
    line.storage.delete("line/inbox/good/image-0001.png")
    line.storage.delete("line/inbox/anomaly/a_mask.png")
    result = ingest_batch(batch)
    assert (result["accepted"], result["rejected"], result["failed"]) == (3, 0, 0)


def test_ingest_when_an_object_is_replaced_meanwhile_then_takes_the_new_one_in_the_next_run(line: Line, monkeypatch):
    line.send("good/latest.png", image_file(1))
    (batch,) = list_inbox("line", "run")["batches"]
    line.send("good/latest.png", image_file(2))  # the camera writes the same name again
    assert ingest_batch(batch)["accepted"] == 1
    assert line.keys("inbox") == ["good/latest.png"]
    assert line.ingest()["known"] == 1
    assert line.keys("inbox") == []


def test_ingest_when_a_file_is_still_being_written_then_waits_for_the_whole_one(line: Line):
    whole = image_file(1, "BMP")
    line.send("good/growing.bmp", whole[:1000])
    (batch,) = list_inbox("line", "run")["batches"]
    line.send("good/growing.bmp", whole[:2000])
    result = ingest_batch(batch)
    assert (result["waiting"], result["rejected"]) == (1, 0)
    line.send("good/growing.bmp", whole)
    assert line.ingest()["accepted"] == 1


def test_ingest_when_a_refused_file_is_sent_again_then_is_listed_once(line: Line):
    for _ in range(2):
        line.send("good/bad.png", b"nothing")
        assert line.ingest()["rejected"] == 1
    assert len(line.rejections) == 1


def test_ingest_when_two_projects_share_a_bucket_then_each_has_its_own(line: Line, make_line):
    other = make_line("other")
    line.send("good/a.png", image_file(1))
    other.send("good/a.png", image_file(1))
    assert line.ingest()["accepted"] == 1
    assert other.ingest()["accepted"] == 1
    assert [len(line.samples), len(other.samples)] == [1, 1]
