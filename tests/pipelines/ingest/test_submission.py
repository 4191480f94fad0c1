"""Submissions: sample and request are inserted together and once, wherever the submission is interrupted."""

import hashlib
import io
import os
import signal
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from PIL import Image

from pipelines.catalogue import connect, requests
from pipelines.config.project import Project, load_project
from pipelines.errors import BadImage, CatalogueError, StorageError
from pipelines.ingest import submission
from pipelines.ingest.submission import BadName, Posted, take_in
from pipelines.requests.status import find_job
from pipelines.storage.s3 import Storage
from tests.pipelines.hostile import textured
from tests.pipelines.ingest.conftest import Line, image_file


def good(seed: int = 1, **more: Any) -> Posted:
    return Posted(image_file(seed), "good", subset="training", author="line 3", **more)


def bad(seed: int = 1, kind: str | None = "dent", **more: Any) -> Posted:
    return Posted(image_file(seed), "anomaly", type=kind, author="line 3", **more)


def rules() -> Project:
    return load_project("line")


def waiting() -> dict[str, int]:
    with connect() as connection:
        return requests.pending(connection, "line")


def test_take_in_when_good_waits_in_training_and_asks_for_a_retraining(line: Line):
    job, outcome = take_in(rules(), good(), "retrain")
    sha256 = hashlib.sha256(image_file(1)).hexdigest()
    assert outcome == {
        "sha256": sha256, "subset": "training", "label": "good", "state": "temp", "known": False, "notes": [],
    }  # fmt: skip
    (sample,) = line.samples
    assert (sample["sha256"], sample["trained_version"], sample["descriptors"]["width"]) == (sha256, None, 40)
    assert line.storage.get(sample["key"]) == image_file(1)
    (annotation,) = line.annotations
    assert (annotation["label"], annotation["origin"], annotation["author"]) == ("good", "inbox", "line 3")
    assert line.keys("inbox") == []
    job_state = find_job("line", job)
    assert job_state is not None
    assert (job_state["state"], job_state["kind"], job_state["sample"], job_state["created_by"]) == (
        "pending",
        "retrain",
        outcome,
        "line 3",
    )


def test_take_in_when_an_anomaly_then_typed_and_placed_by_the_project(line: Line):
    _, outcome = take_in(rules(), bad(), "evaluate")
    assert outcome["subset"] in ("anomaly/threshold", "anomaly/test")
    assert [(row["label"], row["type"]) for row in line.annotations] == [("anomaly", "dent")]
    take_in(rules(), bad(2, kind=None), "evaluate")
    assert line.annotations[-1]["type"] is None
    assert waiting() == {"retrain": 0, "evaluate": 2}


def test_take_in_when_the_group_sits_elsewhere_stays_there_and_says_so(line: Line, make_line: Callable[..., Line]):
    line.send("good/index.csv", b"file,split,group\nold.png,test,part 7\n")
    line.send("good/old.png", image_file(9))
    line.ingest()
    _, outcome = take_in(rules(), good(group="part 7"), "retrain")
    assert outcome["subset"] == "test"
    assert outcome["notes"] == ["training was asked for, but its group is in test and stays there"]
    make_line("line", group={"regex": r"(part-\d+)"})
    take_in(rules(), good(2, name="folder/part-0042_cam1.png"), "retrain")
    assert line.samples[-1]["group_key"] == "part-0042"
    take_in(rules(), good(3, name="other.png"), "retrain")
    assert line.samples[-1]["group_key"] == line.samples[-1]["sha256"]


def test_take_in_when_sent_twice_is_one_sample_and_one_request(line: Line):
    first, second = (take_in(rules(), good(), "retrain") for _ in range(2))
    assert first[0] == second[0]
    assert (first[1]["known"], second[1]["known"]) == (False, True)
    assert (len(line.samples), len(line.annotations), waiting()["retrain"]) == (1, 1, 1)


def test_take_in_when_labels_conflict_then_disputed(line: Line):
    take_in(rules(), good(), "retrain")
    _, outcome = take_in(rules(), bad(), "evaluate")
    assert outcome["label"] is None
    assert any("disputed" in note for note in outcome["notes"])
    assert line.labelled == []


@pytest.mark.parametrize("kind", ["a/b", "..", " x ", "a\\b", "x" * 101, "/"])
def test_take_in_when_the_type_could_be_no_folder_is_refused_and_stores_nothing(line: Line, kind: str):
    with pytest.raises(BadName, match="cannot be kept"):
        take_in(rules(), bad(kind=kind), "evaluate")
    assert line.state()["stored"] == line.state()["inbox"] == []


def test_take_in_when_no_image_is_refused_and_stores_nothing(line: Line):
    with pytest.raises(BadImage):
        take_in(rules(), Posted(b"no image", "good"), "retrain")
    assert (line.state()["stored"], waiting()["retrain"]) == ([], 0)


def test_take_in_when_s3_or_the_catalogue_fail_leaves_nothing_and_can_be_sent_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as away:
        away.setenv("INSPECTLINE_DATABASE_URL", "postgresql+psycopg://x@127.0.0.1:9/x")
        with pytest.raises(CatalogueError):
            take_in(rules(), good(), "retrain")
    assert (line.keys("inbox"), line.keys("samples")) == ([], [])
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(StorageError):
            take_in(rules(), good(), "retrain")
    assert (line.samples, waiting()["retrain"]) == ([], 0)
    _, outcome = take_in(rules(), good(), "retrain")
    assert outcome["known"] is False


STEPS = {
    "index in the inbox": (Storage, "put", 1),
    "image in the inbox": (Storage, "put", 2),
    "sample in S3": (Storage, "put", 3),
    "catalogue": (submission, "ask_once", 1),
    "cleared in part": (Storage, "delete", 1),
}


@pytest.mark.parametrize("step", STEPS)
def test_take_in_when_killed_after_any_step_then_found_by_ingest_or_by_sending_again(
    line: Line, step: str, monkeypatch: pytest.MonkeyPatch
):
    line.ingest()  # imports and connections, before the fork
    place, name, count = STEPS[step]
    real, calls = getattr(place, name), []

    def deadly(*arguments: Any, **more: Any) -> Any:
        done = real(*arguments, **more)
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(place, name, deadly)
        try:
            take_in(rules(), good(group="part 7"), "retrain")
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    line.ingest()
    if step != "index in the inbox":
        assert [(row["label"], row["subset"], row["group_key"]) for row in line.labelled] == [
            ("good", "training", "part 7")
        ]
    _, outcome = take_in(rules(), good(group="part 7"), "retrain")
    assert outcome["subset"] == "training"
    assert (len(line.samples), len(line.annotations), waiting()["retrain"]) == (1, 1, 1)
    assert [key for key in line.keys("inbox") if not key.endswith("index.csv")] == []


def test_take_in_when_ingest_takes_the_same_image_meanwhile_leaves_one_sample(
    line: Line, monkeypatch: pytest.MonkeyPatch
):
    make_safe = submission.make_safe

    def after_an_ingest(*arguments: Any, **more: Any) -> Any:
        line.ingest()
        return make_safe(*arguments, **more)

    monkeypatch.setattr(submission, "make_safe", after_an_ingest)
    _, outcome = take_in(rules(), good(group="part 7"), "retrain")
    assert (outcome["subset"], outcome["known"]) == ("training", True)
    assert (len(line.samples), len(line.annotations)) == (1, 1)


def test_take_in_when_exif_says_when_then_the_sample_knows(line: Line):
    exif, file = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8769)[0x9003] = "2026:05:01 13:30:00"
    exif.get_ifd(0x8769)[0x9011] = "+02:00"
    textured(40, 40, seed=5).save(file, "JPEG", exif=exif)
    take_in(rules(), Posted(file.getvalue(), "good"), "retrain")
    assert line.samples[0]["acquired_at"] == datetime(2026, 5, 1, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_take_in_when_the_name_has_umlauts_in_any_form_then_what_was_said_counts(line: Line, form: str):
    name = unicodedata.normalize(form, "Gehäuse.png")
    take_in(rules(), good(name=name, group="lot 7"), "retrain")
    assert line.samples[0]["group_key"] == "lot 7"
