"""The progress of runs, on what Airflow's REST API said of a real run of `retrain`."""

import io
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from include.stack import dags
from include.stack.run_display import RunDisplay, follow
from include.stack.run_progress import TaskRow, task_rows

RECORDED = Path(__file__).parent / "recorded"


def recorded(name):
    return json.loads((RECORDED / f"{name}.json").read_text())


class Replay:
    """What `follow` needs of a client, answered from the recording: the run in its middle, then at its end."""

    def __init__(self):
        self.pictures = [recorded("training"), recorded("succeeded")]
        self.asked = 0

    def tasks(self, dag_id):
        return self.pictures[0]["tasks"]

    def run(self, dag_id, run_id):
        picture = self.pictures[min(self.asked, 1)]
        return {"state": picture["state"]}

    def task_instances(self, dag_id, run_id):
        picture = self.pictures[min(self.asked, 1)]
        self.asked += 1
        return picture["instances"]

    def log_lines(self, dag_id, run_id, task_id, attempt, map_index=-1):
        assert (task_id, attempt) == ("train", 1)
        return ["324 training images", "epoch 2 of 60 · loss 0.0834 · 17 images/s · 0:54 of 3:00", "something else"]


def by_task(rows):
    return {row.task_id: row for row in rows}


def test_order_when_asked_for_puts_each_task_after_those_it_waits_for():
    order = dags.task_order(Replay(), "any")

    chain = ["ingest.list_inbox", "ingest.ingest_batch", "ingest.report", "freeze", "begin", "pack", "train", "export"]
    chain += ["calibrate", "evaluate", "register", "gate", "complete", "drift", "report", "close"]
    assert [task for task in order if task in chain] == chain


def test_rows_when_a_run_trains_show_what_ended_runs_and_waits():
    picture = recorded("training")
    train = next(each for each in picture["instances"] if each["task_id"] == "train")
    now = datetime.fromisoformat(train["start_date"]) + timedelta(seconds=42)

    rows = by_task(task_rows(dags.task_order(Replay(), "any"), picture["instances"], now))

    assert rows["pack"].state == "success"
    assert (rows["train"].state, rows["train"].seconds) == ("running", pytest.approx(42))
    assert (rows["export"].state, rows["export"].seconds) == ("none", None)


def test_rows_when_a_task_is_mapped_count_its_instances_together():
    instances = recorded("succeeded")["instances"]
    batches = [each for each in instances if each["task_id"] == "ingest.ingest_batch"]

    row = by_task(task_rows(["ingest.ingest_batch"], instances))["ingest.ingest_batch"]

    assert len(batches) == 7
    assert (row.state, row.note) == ("success", "7 of 7")
    first = min(datetime.fromisoformat(each["start_date"]) for each in batches)
    last = max(datetime.fromisoformat(each["end_date"]) for each in batches)
    assert row.seconds == pytest.approx((last - first).total_seconds())


def instance(state, index=-1, started=None, ended=None, attempt=1):
    return {
        "task_id": "t",
        "map_index": index,
        "state": state,
        "try_number": attempt,
        "start_date": started,
        "end_date": ended,
    }


@pytest.mark.parametrize(
    ("states", "expected", "note"),
    [
        (["success", "running", "scheduled"], "running", "1 of 3"),
        (["success", "failed", "running"], "failed", "2 of 3"),
        (["success", "queued", None], "running", "1 of 3"),
        (["scheduled", None], "scheduled", "0 of 2"),
        (["success", "skipped", "success"], "success", "3 of 3"),
        (["skipped", "skipped"], "skipped", "2 of 2"),
    ],
)
def test_row_when_mapped_instances_differ_says_the_loudest_and_how_many_ended(states, expected, note):
    (row,) = task_rows(["t"], [instance(state, index) for index, state in enumerate(states)])

    assert (row.state, row.note) == (expected, note)


def test_row_when_tried_again_says_so():
    (row,) = task_rows(["t"], [instance("up_for_retry", attempt=2)])

    assert (row.state, row.note, row.ended) == ("up_for_retry", "try 2", False)


def test_row_when_the_run_knows_nothing_of_a_task_yet_waits():
    assert task_rows(["t"], []) == [TaskRow("t", "none")]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("include.stack.run_display._POLL", 0.0)


def test_display_when_there_is_no_terminal_prints_each_step_once_in_plain_lines(quick):
    out = io.StringIO()
    with RunDisplay(Console(file=out, width=120), "the run") as display:
        state, rows = follow(Replay(), "any", "any", display)

    lines = out.getvalue().splitlines()
    assert state == "success"
    assert lines[0] == "the run"
    assert "    train: epoch 2 of 60 · loss 0.0834 · 17 images/s · 0:54 of 3:00" in lines
    for row in rows:
        assert sum(line.startswith(f"  ✓ {row.task_id}: success") for line in lines) == 1
    assert "\x1b" not in out.getvalue()
    assert next(i for i, line in enumerate(lines) if "✓ pack" in line) < next(
        i for i, line in enumerate(lines) if "train: epoch" in line
    )


def test_display_when_there_is_a_terminal_draws_a_table_of_all_tasks(quick):
    out = io.StringIO()
    with RunDisplay(Console(file=out, width=120, force_terminal=True), "the run") as display:
        follow(Replay(), "any", "any", display)

    last = out.getvalue().rpartition("the run")[2]
    for task in recorded("succeeded")["tasks"]:
        assert task["task_id"] in last


def test_display_when_something_else_runs_first_says_what_is_waited_for(quick):
    class Queued(Replay):
        def run(self, dag_id, run_id):
            return {"state": "queued" if self.asked == 0 else "success"}

        def active_runs(self, dag_id):
            return [{"dag_run_id": "scheduled__1", "state": "running"}, {"dag_run_id": "ours", "state": "queued"}]

    out = io.StringIO()
    with RunDisplay(Console(file=out, width=120), "the run") as display:
        follow(Queued(), "any", "ours", display)

    assert "waiting for the run scheduled__1, which began earlier; one runs at a time" in out.getvalue()
