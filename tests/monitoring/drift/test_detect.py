"""Drift from end to end: real predictions, kept images, registry, report and catalogue."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import requests
from scipy.stats import wasserstein_distance
from sqlalchemy import select, update

from monitoring.drift import reports, thresholds
from monitoring.drift.current_window import Current, collect
from monitoring.drift.detect import detect
from monitoring.drift.tasks.anomaly import AnomalyDrift, count_false_alarms
from monitoring.mail import outbox
from pipelines.catalogue import connect, transaction
from pipelines.catalogue.schema import drift_reports, predictions, samples
from pipelines.config.project import load_project
from pipelines.datasets.corrections import annotate
from pipelines.errors import RegistryError
from pipelines.ingest.submission import Posted
from pipelines.storage.s3 import Storage, read_uri
from pipelines.tasks.anomaly.threshold import choose, most_alarms
from tests.conftest import Projects
from tests.monitoring.conftest import Line

Surfaces = Callable[..., list[np.ndarray]]


def mark_sent(report: dict[str, Any]) -> list[str]:
    """Mark the mails that a report requires as sent, and return their subjects."""
    subjects = []
    for mail, mark in outbox.unpack(report["mail"]) if report["mail"] else ():
        mark()
        subjects.append(mail.subject)
    return subjects


def collected(line: Line, now: datetime) -> Current:
    """Return the current window of the line's champion."""
    task = AnomalyDrift()
    assert line.package is not None
    return collect(load_project(line.name), task, line.version, line.package, task.reference(line.package), now)


def row(report: dict[str, Any]) -> dict[str, Any]:
    """Return the report's row in the catalogue."""
    with connect() as connection:
        return dict(reports.get(connection, report["report_id"]))


def test_detect_when_light_got_brighter_then_drift_is_stored_linked_and_mailed(
    line: Line, surfaces: Surfaces, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("INSPECTLINE_MLFLOW_URL", "https://mlflow.example.com")
    line.promote(surfaces(60, seed=1))
    line.serve(surfaces(60, seed=2, brighter=40))
    report = detect(line.name, "run-1")
    assert (report["state"], report["changed"]) == ("drift", True)
    assert (report["reference_n"], report["current_n"]) == (60, 60)
    assert "brightness" in " ".join(report["reasons"])

    page = read_uri(report["report_uri"]).decode()
    assert report["report_uri"].startswith(f"s3://{line.bucket}/{line.name}/v-test/drift/")
    assert "Drift: the images no longer look like" in page
    assert "Wasserstein" in page

    kept = row(report)
    assert kept["model_version"] == line.version
    assert {"score", "descriptors", "embedding", "stated", "anomalous", "rescored"} <= set(kept["results"])
    # The link that people get: MLflow's own page at its public address, and the file is really there.
    prefix, _, path = report["url"].partition("/runs/")
    assert prefix.startswith("https://mlflow.example.com/#/experiments/")
    run_id, _, artifact = path.partition("/artifacts/")
    there = requests.get(f"{mlflow_server}/get-artifact", params={"run_uuid": run_id, "path": artifact}, timeout=30)
    assert there.content.decode() == page

    assert mark_sent(report) == ["Test line: drift – the embedding drifted: 100% of its components moved"]


def test_detect_when_images_look_the_same_then_no_drift_and_no_mail(line: Line, surfaces: Surfaces):
    line.promote(surfaces(60, seed=3))
    line.serve(surfaces(60, seed=4))
    report = detect(line.name, "run-1")
    assert (report["state"], report["changed"], report["mail"]) == ("no_drift", False, None)
    assert "No drift" in requests.get(report["url"], timeout=30).text


def test_detect_when_another_model_is_promoted_then_images_are_scored_again_and_no_drift(
    line: Line, surfaces: Surfaces
):
    images = surfaces(60, seed=5)
    line.promote(images)
    line.serve(surfaces(55, seed=6))
    line.promote(images, gain=4)  # the same light, another network: its scores and embeddings are on another scale
    line.serve(surfaces(5, seed=7))
    report = detect(line.name, "run-1")
    results = row(report)["results"]
    assert (results["rescored"], results["reused"], results["lost"]) == (55, 5, 0)
    assert (report["state"], report["changed"]) == ("no_drift", False)

    # The stored scores, taken as they are, would have been a false alarm.
    assert line.package is not None
    with connect() as connection:
        stored = connection.execute(select(predictions.c.score).where(predictions.c.model_version == "1")).scalars()
    taken = thresholds.scale(line.package.reference["score"], np.array(list(stored)))
    assert isinstance(taken, thresholds.Scaled)
    assert wasserstein_distance(taken.reference, taken.current) > thresholds.distance_threshold(60, 55)


def test_detect_when_kept_images_are_gone_then_left_out_and_reported(line: Line, surfaces: Surfaces):
    images = surfaces(60, seed=8)
    line.promote(images)
    line.serve(surfaces(60, seed=9))
    line.promote(images, gain=4)
    storage = Storage(line.bucket)
    keys = [entry.key for entry in storage.list(f"{line.name}/served/")]
    for key in keys[:20]:
        storage.delete(key)
    storage.put(keys[20], b"no image any more")
    report = detect(line.name, "run-1")
    assert (report["state"], report["current_n"]) == ("too_few", 39)
    assert report["reasons"] == [
        "39 different images in 7 days (21 more are no longer kept), and a comparison needs 50 (drift.minimum_images)"
    ]


def test_detect_when_too_few_or_no_model_then_says_so_and_mails_nobody(line: Line, surfaces: Surfaces):
    without = detect(line.name, "run-1")
    assert (without["state"], without["mail"], without["report_uri"]) == ("no_champion", None, None)
    line.promote(surfaces(20, seed=10))
    line.serve(surfaces(49, seed=11, brighter=60))
    few = detect(line.name, "run-2")
    assert (few["state"], few["mail"], few["changed"]) == ("too_few", None, False)


def test_detect_when_reference_is_tiny_then_too_few(line: Line, surfaces: Surfaces):
    line.promote(surfaces(19, seed=12))
    line.serve(surfaces(50, seed=13))
    report = detect(line.name, "run-1")
    assert report["state"] == "too_few"
    assert "reference has 19 images" in report["reasons"][0]


def test_detect_when_run_is_tried_again_then_the_same_report_and_mailed_once(line: Line, surfaces: Surfaces):
    line.promote(surfaces(30, seed=14))
    line.serve(surfaces(50, seed=15, brighter=50))
    first, again = detect(line.name, "run-1"), detect(line.name, "run-1")
    assert first == again
    assert len(mark_sent(again)) == 1
    assert mark_sent(first) == []  # the mail's task tried again, after it had sent
    assert detect(line.name, "run-1")["mail"] is None


def test_detect_when_state_changes_then_one_mail_for_each_change(line: Line, surfaces: Surfaces):
    line.promote(surfaces(30, seed=16))
    start = datetime(2026, 11, 2, 6, tzinfo=UTC)
    outcomes = []
    for day, brighter in enumerate([0, 50, 50, 0, 0]):
        moment = start + timedelta(days=10 * day)
        line.serve(surfaces(50, seed=20 + day, brighter=brighter), when=moment - timedelta(hours=2))
        report = detect(line.name, f"run-{day}", now=moment)
        with transaction() as connection:  # test_digest covers the digest
            connection.execute(drift_reports.update().values(digest_sent_at=datetime.now(UTC)))
        outcomes.append([report["state"], report["changed"], *mark_sent(report)])
    assert outcomes == [
        ["no_drift", False],
        ["drift", True, "Test line: drift – the embedding drifted: 100% of its components moved"],
        ["drift", False],
        ["no_drift", True, "Test line: drift is over"],
        ["no_drift", False],
    ]


def test_detect_when_the_mail_could_not_be_sent_then_the_next_run_sends_it(line: Line, surfaces: Surfaces):
    line.promote(surfaces(30, seed=30))
    line.serve(surfaces(50, seed=31, brighter=50))
    assert detect(line.name, "run-1")["mail"] is not None
    later = detect(line.name, "run-2")
    assert later["changed"] is False
    assert len(mark_sent(later)) == 1


def test_detect_when_mlflow_has_no_run_to_keep_it_with_then_the_link_is_s3s(line: Line, surfaces: Surfaces):
    line.promote(surfaces(30, seed=32), with_run=False)
    line.serve(surfaces(50, seed=33, brighter=50))
    report = detect(line.name, "run-1")
    assert "X-Amz-Signature" in report["url"]
    assert "Drift: the images" in requests.get(report["url"], timeout=30).text
    assert "without a login until" in row(report)["results"]["link"]["opens"]


SERVED, MARKED = 200, 16


@pytest.fixture
def raised(line: Line, surfaces: Surfaces) -> list[str]:
    """Have a champion whose threshold is its highest of 120 validation scores see SERVED images, MARKED of which it
    raises, and return the hashes of these.
    """
    images = surfaces(120, seed=50)
    line.promote(images)
    assert line.package is not None
    scores = line.package.reference["score"].astype(float)
    highest = float(scores.max())
    costs = {"cost_false_alarm": 1, "cost_miss": 20, "defect_rate": 0.01}
    detail = choose(scores, [], policy="conformal", false_positive_rate=1 / 121, **costs).report
    assert (detail.n_validation, detail.conformal_rank) == (120, 120)
    line.promote(images, threshold=highest, threshold_detail=detail)
    marked = surfaces(MARKED, seed=51)
    for image in marked:
        spot = image[24:32, 24:32]  # a mark too small to move a descriptor
        spot[:] = np.clip(spot.astype(int) + 60, 0, 255)
    line.serve(surfaces(SERVED - MARKED, seed=52) + marked)
    with connect() as connection:
        ours = predictions.c.project == line.name
        worst = select(predictions.c.sha256).where(ours).order_by(predictions.c.score.desc()).limit(MARKED)
        return list(connection.execute(worst).scalars())


def judge(line: Line, hashes: list[str], label: str = "good", author: str = "anna") -> None:
    """Have somebody say what served images are."""
    for sha256 in hashes:
        annotate(load_project(line.name), sha256, Posted(b"", label, author=author))


def test_detect_when_people_find_more_raised_images_good_than_promised_then_says_so_and_beyond_chance_it_is_drift(
    line: Line, raised: list[str]
):
    assert (most_alarms(120, 120, SERVED), most_alarms(120, 120, SERVED, thresholds.PROMISE_POINT)) == (7, 14)
    why = (
        "of 200 images are called anomalous and known to be good: the promised false-positive rate of 0.826 % allows "
        "for at most 7"
    )
    judge(line, raised[15:], "anomaly")
    judge(line, raised[:7])
    few = detect(line.name, "run-1")
    assert (few["state"], few["reasons"]) == ("no_drift", [])
    assert row(few)["results"]["false_alarms"]["found"] == 7
    judge(line, raised[7:14])
    many = detect(line.name, "run-2")
    assert (many["state"], many["changed"], many["reasons"]) == ("no_drift", False, [f"14 {why}"])
    page = " ".join(read_uri(many["report_uri"]).decode().split())
    assert "No drift, but more false alarms than promised" in page
    words = "of the anomalous ones are known to be good; the promised false-positive rate of 0.826 % allows for at most"
    assert f"{words} 7 of 200" in page
    judge(line, raised[14:15])
    beyond = detect(line.name, "run-3")
    assert (beyond["state"], beyond["changed"], beyond["reasons"]) == ("drift", True, [f"15 {why}"])
    page = " ".join(read_uri(beyond["report_uri"]).decode().split())
    assert "Drift: more false alarms than chance gives, although what is measured hardly moved" in page
    assert mark_sent(beyond) == [f"Test line: drift – 15 {why}"]
    # Whoever judges later has the last word.
    judge(line, raised[:8], "anomaly", author="berta")
    assert detect(line.name, "run-4")["state"] == "no_drift"  # whose mail could not be sent
    over = detect(line.name, "run-5")
    ((mail, _),) = outbox.unpack(over["mail"])
    assert mail.subject == "Test line: drift is over"
    assert "Alarms that nobody judged are not counted" in mail.text


def test_detect_when_too_few_images_were_served_then_more_false_alarms_than_promised_are_reported_nevertheless(
    line: Line, raised: list[str], projects: Projects
):
    judge(line, raised[:8])
    projects.write(line.name, bucket=line.bucket, drift={"minimum_images": 201})
    report = detect(line.name, "run-1")
    assert report["state"] == "too_few"
    assert ["needs 201" in report["reasons"][0], "8 of 200 images" in report["reasons"][1]] == [True, True]


def test_detect_when_the_champion_promises_nothing_then_says_that_alarms_are_not_counted(
    line: Line, surfaces: Surfaces
):
    line.promote(surfaces(30, seed=60), threshold_detail={})
    line.serve(surfaces(50, seed=61))
    results = row(detect(line.name, "run-1"))["results"]
    assert results["false_alarms"] is None
    assert "promises" in results["left_out"]["false alarms"]
    assert "alarms" not in " ".join(results["stated"])


def test_collect_counts_as_false_alarms_neither_withdrawn_images_nor_those_that_the_threshold_was_set_on(
    line: Line, raised: list[str]
):
    def count() -> int:
        assert line.package is not None
        return count_false_alarms(line.name, line.package, collected(line, datetime.now(UTC)))

    judge(line, raised[:8])
    assert count() == 8
    with transaction() as connection:
        ours = update(samples).where(samples.c.project == line.name)
        connection.execute(ours.where(samples.c.sha256 == raised[3]).values(withdrawn_at=datetime.now(UTC)))
    assert count() == 7
    assert line.package is not None
    line.package.__dict__["reference"] = line.package.reference | {"sha256": np.array(raised[4:6])}
    assert count() == 5


def test_detect_when_registry_is_down_then_an_error_and_never_no_champion(line: Line, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RegistryError):
        detect(line.name, "run-1")


def test_collect_when_an_image_was_served_often_then_it_counts_once_and_old_ones_not_at_all(
    line: Line, surfaces: Surfaces
):
    line.promote(surfaces(24, seed=40))
    images = surfaces(30, seed=41)
    now = datetime.now(UTC)
    line.serve(images, when=now - timedelta(days=2))
    line.serve(images[:10], when=now - timedelta(hours=2))
    line.serve(surfaces(5, seed=42), when=now - timedelta(days=8))
    current = collected(line, now)
    assert (current.served, current.distinct, len(current), current.reused) == (40, 30, 30, 30)


@pytest.mark.parametrize("states", [["drift", "no_drift"], ["no_drift", "too_few", "drift"]])
def test_enter_when_states_follow_each_other_then_changed_against_the_last_comparison(
    each_database: str, states: list[str]
):
    changed = []
    for index, state in enumerate(states):
        with transaction() as connection:
            changed.append(reports.enter(connection, "line", f"run-{index}", state)["changed"])
            assert reports.enter(connection, "line", f"run-{index}", "no_champion")["state"] == state
    last = "no_drift"
    expected = []
    for state in states:
        expected.append(state in reports.COMPARED and state != last)
        last = state if state in reports.COMPARED else last
    assert changed == expected
