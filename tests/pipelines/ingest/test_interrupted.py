"""Ingest reaches the same end state when it is killed, run concurrently, or S3 or the catalogue fails."""

import hashlib
import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.errors import CatalogueError, StorageError
from pipelines.ingest import batch as batch_module
from pipelines.ingest import ingest_batch, list_inbox, report
from pipelines.storage.s3 import Storage
from tests.pipelines.ingest.conftest import Line, image_file
from tests.pipelines.ingest.test_ingest import mask_file


def fill(line: Line, images: int) -> None:
    """Put good images, anomalies with masks, copies, disputed and hostile files into the inbox."""
    line.send_images(images)
    for number in range(images // 4):
        line.send(f"anomaly/dent/{number}.png", image_file(10_000 + number))
        line.send(f"anomaly/dent/{number}_mask.png", mask_file(seed=number % 20))
    line.send("good/copy.png", image_file(0))
    line.send("anomaly/disputed.png", image_file(1))
    line.send("good/bad.png", image_file(2)[:700])
    line.send("good/bad.jpg", b"nothing at all")


def expected_state(make_line, images: int) -> dict:
    """Return what an undisturbed ingest of the same inbox leaves behind, in a project of its own."""
    calm = make_line("calm")
    fill(calm, images)
    calm.ingest()
    return json.loads(json.dumps(calm.state()).replace("calm/", "line/"))


def start(batch: dict) -> int:
    """Process a batch in a separate process, as Airflow does; forked, so that it starts at once."""
    pid = os.fork()
    if pid == 0:
        try:
            ingest_batch(batch)
        finally:
            os._exit(0)
    return pid


def kill_often(line: Line, kills: int, images: int, seed: int) -> int:
    """Ingest in processes killed at random until `kills` have been, and return the number of completed batches."""
    chance = random.Random(seed)
    longest, killed, done = 1.0, 0, 0
    for number in range(100 * kills):
        listed = list_inbox("line", f"run-{number // 3}", batch_size=max(5, images // 3))
        if not listed["batches"]:
            fill(line, images)  # all known by now: the same end state
            continue
        pid = start(chance.choice(listed["batches"]))
        time.sleep(chance.uniform(0, longest))
        ended, _ = os.waitpid(pid, os.WNOHANG)
        if ended:
            longest = max(0.05, longest * 0.8)
            done += 1
            continue
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        longest *= 1.05
        killed += 1
        if killed == kills:
            return done
    raise AssertionError(f"only {killed} of {kills} processes could be killed at work")


@pytest.mark.slow
def test_ingest_when_killed_at_random_moments_then_ends_in_the_same_state(line: Line, make_line):
    expected = expected_state(make_line, 24)
    fill(line, 24)
    kill_often(line, kills=25, images=24, seed=1)
    line.ingest("last")
    check_same(line, expected)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2))
def test_ingest_when_killed_two_hundred_times_then_ends_in_the_same_state(make_line, each_database, seed: int, capsys):
    line = make_line()
    expected = expected_state(make_line, 60)
    fill(line, 60)
    done = kill_often(line, kills=200, images=60, seed=seed)
    line.ingest("last")
    check_same(line, expected)
    with capsys.disabled():
        samples = len(line.samples)
        print(f"\n{each_database[:8]}: 200 processes killed at work, {done} got through; {samples} samples, none lost")


def check_same(line: Line, expected: dict) -> None:
    assert json.loads(json.dumps(line.state())) == expected
    for row in line.samples:
        assert hashlib.sha256(line.storage.get(row["key"])).hexdigest() == row["sha256"]


MOMENTS = [("put", 1), ("put", 7), ("copy", 1), ("copy", 2), ("enter", 1), ("stat", 5), ("delete", 1), ("delete", 6)]


@pytest.mark.parametrize(("stage", "nth"), MOMENTS)
def test_ingest_when_the_process_dies_in_a_stage_then_the_next_run_completes_it(
    line: Line, make_line, stage: str, nth: int, monkeypatch
):
    expected = expected_state(make_line, 8)
    fill(line, 8)
    (batch,) = list_inbox("line", "run")["batches"]
    calls = iter(range(1, 1000))

    def die(original):
        def call(*arguments, **options):
            if next(calls) == nth:
                raise KeyboardInterrupt  # as final as a kill: nothing catches it
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        target = batch_module if stage == "enter" else Storage
        patch.setattr(target, stage, die(getattr(target, stage)))
        with pytest.raises(KeyboardInterrupt):
            ingest_batch(batch)
    again = ingest_batch(batch)
    summary = report("line", "run", [again])
    assert summary["failed"] == 0
    assert (summary["accepted"], summary["rejected"]) == (10, 2), "what was done before the kill is counted too"
    check_same(line, expected)


def test_ingest_when_two_workers_take_the_same_batches_then_nothing_is_doubled(make_line, each_database):
    line = make_line()
    expected = expected_state(make_line, 20)
    fill(line, 20)
    first = list_inbox("line", "run-a", batch_size=6)["batches"]
    second = list_inbox("line", "run-b", batch_size=9)["batches"]
    with ThreadPoolExecutor(4) as workers:
        results = list(workers.map(ingest_batch, [*first, *second, *first]))
    assert sum(result["failed"] for result in results) == 0
    line.ingest("last")
    check_same(line, expected)


def test_ingest_when_workers_meet_in_one_group_then_it_has_one_side(make_line, each_database):
    line = make_line(group={"regex": r"(part)"})
    for number in range(24):
        line.send(f"good/part-{number}.png", image_file(number))
    batches = list_inbox("line", "run", batch_size=3)["batches"]
    with ThreadPoolExecutor(8) as workers:
        list(workers.map(ingest_batch, batches))
    assert len(line.samples) == 24
    assert list(line.sides) == ["part"]


def test_ingest_when_s3_fails_for_some_then_they_stay_and_the_batch_goes_on(line: Line, monkeypatch):
    line.send_images(6)
    original = Storage.get

    def get(self, key):
        if key.endswith("image-0003.png"):
            raise StorageError("S3 is busy")
        return original(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "get", get)
        summary = line.ingest()
    assert (summary["accepted"], summary["failed"]) == (5, 1)
    assert "failed good/image-0003.png: S3 is busy" in summary["lines"]
    assert line.keys("inbox") == ["good/image-0003.png"]
    assert line.ingest()["accepted"] == 1


def test_ingest_when_s3_fails_for_all_then_raises_to_be_tried_again(line: Line, monkeypatch):
    line.send_images(3)
    (batch,) = list_inbox("line", "run")["batches"]

    def put(self, key, data, content_type=None):
        raise StorageError("S3 is away")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "put", put)
        with pytest.raises(StorageError, match="all 3 objects"):
            ingest_batch(batch)
    assert len(line.keys("inbox")) == 3
    assert ingest_batch(batch)["accepted"] == 3


def test_ingest_when_the_catalogue_is_away_then_nothing_leaves_the_inbox(line: Line, monkeypatch, tmp_path: Path):
    line.send_images(3)
    line.send("good/bad.png", b"nothing")
    (batch,) = list_inbox("line", "run")["batches"]
    with monkeypatch.context() as patch:
        patch.setenv("INSPECTLINE_DATABASE_URL", f"sqlite:///{tmp_path}")  # a folder
        with pytest.raises(CatalogueError):
            ingest_batch(batch)
    assert len(line.keys("inbox")) == 4
    assert ingest_batch(batch)["accepted"] == 3
