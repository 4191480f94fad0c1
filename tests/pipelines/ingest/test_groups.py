"""Groups and their permanent sides, end to end through ingest, on both databases."""

from collections import Counter

import pytest

from tests.pipelines.ingest.conftest import Line, image_file


@pytest.fixture
def line(make_line, each_database) -> Line:
    return make_line()


def subsets(line: Line) -> Counter:
    return Counter(row["subset"] for row in line.labelled)


def test_ingest_when_sixty_good_images_come_then_every_subset_is_usable(line: Line):
    line.send_images(60)
    line.ingest(batch_size=25)
    counts = subsets(line)
    assert counts["training"] >= 33
    assert counts["validation"] >= 10
    assert counts["test"] >= 10


def test_ingest_when_groups_are_given_by_pattern_then_none_is_split_over_sides(make_line, each_database):
    line = make_line(group={"regex": r"part-(?P<group>\d+)"})
    for number in range(48):
        line.send(f"good/part-{number % 12}-view-{number // 12}.png", image_file(number))
    line.ingest(batch_size=10)
    line.send("anomaly/dent/part-3-view-9.png", image_file(900))
    line.ingest()
    assert len({row["group_key"] for row in line.samples}) == 12
    sides = {(row["group_key"], row["side"]) for row in line.labelled}
    assert len(sides) == 12
    assert set(subsets(line)) >= {"training", "validation", "test"}


def test_ingest_when_side_is_taken_then_stays_and_the_report_says_so(line: Line):
    line.send("good/index.csv", b"file,group,split\na.png,lot,train\nb.png,lot,test\n")
    line.send("good/a.png", image_file(1))
    line.ingest()
    side = line.sides["lot"]
    assert side in ("training", "validation")
    line.send("good/index.csv", b"file,group,split\nb.png,lot,test\n")
    line.send("good/b.png", image_file(2))
    summary = line.ingest()
    assert line.sides["lot"] == side
    assert any(f"test was asked for, but its group is in {side}" in text for text in summary["lines"])


def test_ingest_when_sender_asks_for_a_side_then_gets_it(line: Line):
    line.send("index.csv", b"file,subset\ngood/a.png,test\ngood/b.png,validation\nanomaly/c.png,training\n")
    for seed, path in enumerate(("good/a.png", "good/b.png", "anomaly/c.png")):
        line.send(path, image_file(seed))
    line.ingest()
    assert subsets(line) == {"test": 1, "validation": 1, "anomaly/training": 1}
    assert line.keys("inbox") == []


def test_ingest_when_anomalies_come_then_go_to_threshold_and_test(line: Line):
    line.send_images(31, "anomaly/dent")
    line.ingest(batch_size=10)
    counts = subsets(line)
    assert counts["anomaly/threshold"] >= 10
    assert counts["anomaly/test"] >= 19
    assert counts["anomaly/training"] <= 1


def test_ingest_when_index_cannot_be_read_then_its_images_wait(line: Line):
    line.send("good/lot/index.csv", b"who,knows\n1,2\n")
    line.send("good/lot/a.png", image_file(1))
    line.send("good/b.png", image_file(2))
    summary = line.ingest()
    assert (summary["accepted"], summary["waiting"]) == (1, 1)
    assert any("good/lot/index.csv has no column 'file'" in text for text in summary["lines"])
    line.send("good/lot/index.csv", b"file,split\na.png,test\n")
    assert line.ingest()["accepted"] == 1
    assert line.keys("inbox") == []
    assert subsets(line)["test"] >= 1


def test_ingest_when_index_names_files_still_to_come_then_keeps_it(line: Line):
    line.send("good/index.csv", b"file,acquired_at\na.png,2026-05-01T08:00:00Z\nb.png,never\n")
    line.send("good/a.png", image_file(1))
    line.ingest()
    assert line.keys("inbox") == ["good/index.csv"]
    line.send("good/b.png", b"no image")
    summary = line.ingest()
    assert summary["rejected"] == 1
    assert line.keys("inbox") == []
    assert [key for key in line.keys("ingest/run-2") if key.startswith("index/")] == ["index/good/index.csv"]
    (row,) = line.samples
    assert row["acquired_at"].isoformat() == "2026-05-01T08:00:00+00:00"
