"""Watch: what is due, claimed once, on SQLite and PostgreSQL."""

import threading
from typing import Any

import pytest
import yaml
from sqlalchemy import select

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.requests import ask, find
from pipelines.catalogue.samples import mark_trained, new_images
from pipelines.catalogue.schema import annotations, samples, trainings
from pipelines.requests import watch


@pytest.fixture(autouse=True)
def _line(each_database: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "projects"
    folder.mkdir()
    (folder / "line.yaml").write_text(yaml.safe_dump({"retrain": {"new_images": 5}}))
    (folder / "other.yaml").write_text("{}")
    monkeypatch.setenv("INSPECTLINE_PROJECTS", str(folder))


def enter(count: int, *, project: str = "line", label: str | None = "good", start: int = 0) -> list[str]:
    """Enter `count` samples with this label, as ingest would, and return their hashes."""
    hashes = [f"{number:064x}" for number in range(start, start + count)]
    with transaction() as connection:
        for sha256 in hashes:
            row = {"key": sha256, "format": "PNG", "width": 64, "height": 64, "mode": "RGB", "size_bytes": 1}
            connection.execute(
                samples.insert().values(project=project, sha256=sha256, source_key=sha256, group_key=sha256, **row)
            )
            if label:
                connection.execute(
                    annotations.insert().values(project=project, sha256=sha256, label=label, origin="inbox")
                )
    return hashes


def request(kind: str, payload: dict[str, Any] | None = None) -> int:
    with transaction() as connection:
        return ask(connection, "line", kind, payload or {}, created_by="line 3")


def row(request_id: int) -> Any:
    with connect() as connection:
        return find(connection, "line", request_id)


def test_state_when_images_are_unlabelled_or_another_projects_counts_neither() -> None:
    enter(3)
    enter(9, label=None, start=100)
    enter(9, project="other", start=200)
    state = watch.state("line")
    assert state == {"new_images": 3, "needed": 5, "requests": {"retrain": 0, "evaluate": 0}}
    assert not watch.is_due(state)
    assert watch.describe(state) == "3 of 5 new images"


def test_is_due_when_one_image_short_is_false_and_with_it_true() -> None:
    enter(4)
    assert not watch.is_due(watch.state("line"))
    enter(1, start=4)
    assert watch.is_due(watch.state("line"))


def test_is_due_when_a_request_waits_is_true_without_images() -> None:
    request("evaluate")
    state = watch.state("line")
    assert watch.is_due(state)
    assert watch.describe(state) == "0 of 5 new images; requests: 1 to evaluate"


def test_claim_when_enough_images_starts_one_retraining_and_never_another_with_them() -> None:
    enter(6)
    claimed = watch.claim("line", "scheduled__2026-11-21T09:00:00+00:00")
    assert claimed["retrain_run_id"] == "watch_retrain__2026-11-21T09:00:00+00:00"
    assert claimed["evaluate"] is None
    assert claimed["retrain"]["reason"] == "retrain: watch: 6 new images"
    (own,) = claimed["retrain"]["request_ids"]
    assert (row(own)["state"], row(own)["dag_run_id"]) == ("claimed", claimed["retrain_run_id"])

    watch.end([own], done=False, result={"why": "failed: train"})  # even after a failure
    assert watch.state("line")["new_images"] == 0
    assert watch.claim("line", "scheduled__next")["retrain"] is None
    with connect() as connection:
        assert len(new_images(connection, "line")) == 6  # the nightly run still sees them as new

    enter(4, start=50)
    assert watch.state("line")["new_images"] == 4
    enter(1, start=60)
    assert watch.claim("line", "scheduled__third")["retrain"]["reason"] == "retrain: watch: 5 new images"


def test_claim_when_repeated_by_a_retried_task_gives_the_same_answer() -> None:
    enter(5)
    request("evaluate", {"promote": False})
    first = watch.claim("line", "scheduled__one")
    enter(5, start=50)
    request("retrain")
    assert watch.claim("line", "scheduled__one") == first


def test_claim_when_requests_ask_for_different_things_gives_each_a_run() -> None:
    short = [request("retrain", {"epochs": 3, "note": "not a parameter"}) for _ in range(2)]
    long = request("retrain", {"epochs": 300})
    evaluation = request("evaluate")
    first = watch.claim("line", "scheduled__one")
    assert first["retrain"] == {"epochs": 3, "request_ids": short, "reason": "retrain: line 3"}
    assert first["evaluate"] == {"request_ids": [evaluation], "reason": "evaluate: line 3"}
    assert watch.state("line")["requests"] == {"retrain": 1, "evaluate": 0}
    second = watch.claim("line", "scheduled__two")
    assert (second["retrain"]["epochs"], second["retrain"]["request_ids"]) == (300, [long])


def test_claim_when_nothing_waits_starts_nothing() -> None:
    claimed = watch.claim("line", "scheduled__one")
    assert (claimed["retrain"], claimed["evaluate"], claimed["reason"]) == (None, None, "nothing waits")


def test_claim_when_two_race_fires_the_images_once() -> None:
    enter(5)
    claims: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda name=name: claims.append(watch.claim("line", name)))
        for name in ("scheduled__a", "manual__b", "manual__c", "manual__d")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([claim for claim in claims if claim["retrain"]]) == 1
    assert len(claims) == 4


def test_state_when_a_training_completed_counts_only_what_came_after() -> None:
    hashes = enter(5)
    with transaction() as connection:
        mark_trained(connection, "line", hashes, "20261121-1")
    enter(2, start=50)
    assert watch.state("line")["new_images"] == 2


def test_end_when_the_run_ended_enters_the_result_once() -> None:
    asked = request("retrain")
    watch.claim("line", "scheduled__one")
    watch.end([asked], done=True, result={"version": "3"})
    watch.end([asked], done=False, result={"why": "late"})
    assert (row(asked)["state"], row(asked)["result"]) == ("done", {"version": "3"})
    watch.end([], done=True, result={})


def test_settle_when_a_run_left_no_word_fails_its_requests_and_its_training() -> None:
    lost, other = request("retrain"), request("evaluate")
    claimed = watch.claim("line", "scheduled__one")
    with transaction() as connection:
        started = {"dag_run_id": "manual__alone", "version_id": "d1", "params_digest": "0", "params": {}}
        connection.execute(
            trainings.insert().values(project="line", training_id="t1", kind="evaluate", state="running", **started)
        )
    assert watch.unsettled("line") == [
        ("evaluate", "manual__alone"),
        ("evaluate", claimed["evaluate_run_id"]),
        ("retrain", claimed["retrain_run_id"]),
    ]
    watch.settle("line", "retrain", claimed["retrain_run_id"], "it was ended by hand")
    watch.settle("line", "evaluate", "manual__alone", "it was ended by hand")
    assert watch.unsettled("line") == [("evaluate", claimed["evaluate_run_id"])]
    assert (row(lost)["state"], row(lost)["result"]["why"]) == ("failed", "it was ended by hand")
    assert row(other)["state"] == "claimed"
    with connect() as connection:
        assert connection.execute(select(trainings.c.state)).scalar_one() == "failed"


def test_claim_when_a_run_has_not_begun_then_later_requests_join_it_and_none_after() -> None:
    first = request("retrain")
    running = watch.claim("line", "scheduled__one")["retrain_run_id"]
    watch.begin("line", "retrain", running)  # its dataset is fixed
    second = request("retrain")
    further = watch.claim("line", "scheduled__two")
    assert further["retrain"]["request_ids"] == [second]
    joined = []
    for number in range(5):  # while the first trains, the second waits for its turn
        joined.append(request("retrain"))
        claimed = watch.claim("line", f"scheduled__more-{number}")
        assert claimed["retrain"] is None
    assert {row(number)["dag_run_id"] for number in (second, *joined)} == {further["retrain_run_id"]}
    assert watch.state("line")["requests"]["retrain"] == 0
    other = request("retrain", {"epochs": 3})
    assert watch.claim("line", "scheduled__other")["retrain"]["request_ids"] == [other]

    watch.end_run("line", "retrain", running, [first], done=True, result={"version": "1"})
    assert [row(number)["state"] for number in (first, second, *joined)] == ["done"] + ["claimed"] * 6
    watch.begin("line", "retrain", further["retrain_run_id"], [second])
    assert all(row(number)["started_at"] for number in (second, *joined))
    late = request("retrain")
    assert watch.claim("line", "scheduled__late")["retrain"]["request_ids"] == [late]
    watch.end_run("line", "retrain", further["retrain_run_id"], [second], done=True, result={"version": "2"})
    assert {row(number)["result"]["version"] for number in (second, *joined)} == {"2"}
    assert row(late)["state"] == "claimed"


def test_begin_when_a_run_was_started_by_hand_for_a_request_then_watch_leaves_it() -> None:
    asked = request("evaluate")
    watch.begin("line", "evaluate", "manual__1", [asked])
    assert (row(asked)["state"], row(asked)["dag_run_id"]) == ("claimed", "manual__1")
    assert watch.claim("line", "scheduled__one")["evaluate"] is None
