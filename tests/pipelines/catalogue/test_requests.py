"""Requests: inserted, claimed once, finished."""

import threading

import pytest

from pipelines.catalogue import connect, transaction
from pipelines.catalogue.requests import ask, claim, find, finish, pending

pytestmark = pytest.mark.usefixtures("each_database")


def test_claim_when_several_wait_takes_each_once_by_kind() -> None:
    with transaction() as connection:
        ids = [ask(connection, "line", kind, {"epochs": 3}) for kind in ("retrain", "evaluate", "retrain")]
        ask(connection, "other", "retrain", {})
    with connect() as connection:
        assert pending(connection, "line") == {"retrain": 2, "evaluate": 1}
    with transaction() as connection:
        assert claim(connection, "line", "retrain", "run-1") == [ids[0], ids[2]]
        assert claim(connection, "line", "evaluate", "run-1") == [ids[1]]
    with transaction() as connection:
        assert claim(connection, "line", "retrain", "run-2") == []


def test_claim_when_payloads_differ_leaves_the_others_for_the_next_run() -> None:
    with transaction() as connection:
        ids = [ask(connection, "line", "retrain", {"epochs": epochs}) for epochs in (3, 5, 3)]
    with transaction() as connection:
        assert claim(connection, "line", "retrain", "run-1") == [ids[0], ids[2]]
    with transaction() as connection:
        assert claim(connection, "line", "retrain", "run-2") == [ids[1]]


def test_claim_when_two_race_gives_a_request_to_one() -> None:
    with transaction() as connection:
        asked = [ask(connection, "line", "retrain", {}) for _ in range(20)]
    claimed: list[int] = []

    def race(name: str) -> None:
        with transaction() as connection:
            claimed.extend(claim(connection, "line", "retrain", name))

    threads = [threading.Thread(target=race, args=(f"run-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == asked


def test_finish_when_ended_before_keeps_the_first_end() -> None:
    with transaction() as connection:
        request = ask(connection, "line", "evaluate", {"by": "test"}, "me")
    with transaction() as connection:
        finish(connection, [request], done=True, result={"threshold": 1.5})
    with transaction() as connection:
        finish(connection, [request], done=False, result={})
    with connect() as connection:
        row = find(connection, "line", request)
    assert row is not None
    assert (row["state"], row["result"], row["created_by"]) == ("done", {"threshold": 1.5}, "me")
    assert row["finished_at"].tzinfo is not None


def test_ask_when_the_kind_is_unknown_raises() -> None:
    with transaction() as connection, pytest.raises(ValueError, match="ask for retrain or evaluate"):
        ask(connection, "line", "dance", {})
