"""The journal and the recorder by themselves, on a real catalogue and a real S3."""

import resource
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.errors import SettingsError
from pipelines.storage.s3 import Storage
from serving.recording.journal import Entry, Journal, JournalError
from serving.recording.recorder import Recorder
from serving.settings import serving_settings
from tests.serving.conftest import rows


def entry(number: int, bucket: str, project: str = "line", **changes: object) -> Entry:
    """Return one prediction of an image of a few bytes."""
    now = datetime.now(UTC)
    prediction = {
        "request_id": f"request-{number}",
        "sha256": f"{number:064x}",
        "created_at": now.isoformat(),
        "model_version": "1",
        "score": 0.25,
        "threshold": 0.5,
        "is_anomaly": False,
        "width": 4,
        "height": 3,
        "descriptors": {"brightness": 0.5},
        "image_key": f"{project}/served/2026-01-01/{number:064x}.png",
        "expires_at": (now + timedelta(days=30)).isoformat(),
        "source": "upload",
        "latency_ms": 3.5,
    }
    return Entry(project, prediction | changes, b"\0\0\x80?", bucket, "image/png", f"image {number}".encode())


@pytest.fixture
def journal(tmp_path: Path):
    """A started journal."""
    journal = Journal(tmp_path / "journal", 64 << 20)
    journal.start()
    yield journal
    journal.stop()


def test_append_when_many_threads_then_each_is_read_once_in_order(journal: Journal):
    def several(first: int) -> None:
        for number in range(first, first + 20):
            journal.append(entry(number, "bucket"))

    threads = [threading.Thread(target=several, args=(1000 * thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = journal.read(1000, set())
    assert len({entry_read.prediction["request_id"] for entry_read in read}) == len(read) == 160
    assert [entry_read.id for entry_read in read] == sorted(entry_read.id for entry_read in read)
    journal.remove(read[:100])
    assert journal.counts() == {"waiting": 60, "set_aside": 0}


@pytest.mark.parametrize(("environment", "level"), [({}, 1), ({"INSPECTLINE_JOURNAL_SYNC": "on"}, 2)])
def test_journal_when_told_so_waits_for_the_disk_and_else_for_the_operating_system(tmp_path: Path, environment, level):
    config = serving_settings(environment | {"INSPECTLINE_JOURNAL": str(tmp_path / "journal")})
    journal = Journal(config.journal, config.journal_max_bytes, config.journal_synced)
    journal.start()
    journal.append(entry(1, "bucket"))
    assert journal._connect().execute("PRAGMA synchronous").fetchone() == (level,)  # SQLite's NORMAL and FULL
    journal.stop()
    with pytest.raises(SettingsError, match="give on, or off"):
        serving_settings({"INSPECTLINE_JOURNAL_SYNC": "sometimes"})


def test_append_when_folder_cannot_be_made_then_told(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JournalError, match="INSPECTLINE_JOURNAL"):
        Journal(tmp_path / "file" / "journal", 1 << 20).start()


def test_append_when_the_disk_is_full_at_the_start_then_told_until_there_is_room(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal(tmp_path / "journal", 64 << 20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        journal.start()
        with pytest.raises(JournalError, match="make room"):
            journal.append(entry(1, "bucket"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    journal.append(entry(2, "bucket"))
    assert [waiting.prediction["request_id"] for waiting in journal.read(10, set())] == ["request-2"]
    journal.stop()


def test_round_when_done_twice_then_each_prediction_is_entered_once(journal: Journal, each_database: str, bucket: str):
    for number in range(5):
        journal.append(entry(number, bucket))
    kept = journal.read(10, set())
    assert Recorder(journal).round() == 5
    for waiting in kept:  # as after a kill between the catalogue and the journal
        journal.append(waiting)
    assert Recorder(journal).round() == 5
    recorded = rows()
    assert [row["request_id"] for row in recorded] == [f"request-{number}" for number in range(5)]
    assert recorded[0]["embedding"] == b"\0\0\x80?"
    assert recorded[0]["created_at"].isoformat() == kept[0].prediction["created_at"]
    assert Storage(bucket).get(recorded[3]["image_key"]) == b"image 3"


def test_round_when_one_projects_bucket_is_missing_then_the_others_go_on(journal: Journal, database: str, bucket: str):
    journal.append(entry(1, "no-such-bucket", project="first"))
    journal.append(entry(2, bucket, project="second"))
    recorder = Recorder(journal)
    assert recorder.round() == 1
    assert [row["project"] for row in rows()] == ["second"]
    assert recorder.round() == 0  # the first project waits for its next try
    assert journal.counts()["waiting"] == 1


def test_round_when_database_objects_to_one_row_then_it_is_set_aside(journal: Journal, each_database: str, bucket: str):
    for number in range(3):
        journal.append(entry(number, bucket, **({"model_version": None} if number == 1 else {})))
    assert Recorder(journal).round() == 2
    assert [row["request_id"] for row in rows()] == ["request-0", "request-2"]
    assert journal.counts() == {"waiting": 0, "set_aside": 1}


def test_recorder_when_two_run_then_one_is_in_charge_until_it_ends(journal: Journal, database: str, bucket: str):
    first, second = Recorder(journal), Recorder(journal)
    assert first._leader_lock.acquire()
    assert not second._leader_lock.acquire()
    first.stop()
    assert second._leader_lock.acquire()
    second.stop()
