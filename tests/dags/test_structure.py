"""The DAG files: which DAGs there are, what each declares, what parsing costs, what a wrong project file does."""

import json
import os
import subprocess
import sys
from copy import copy
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from airflow.sdk import DAG

from pipelines import errors
from tests.conftest import Projects
from tests.dags.conftest import DAGS, KINDS, parse

SHIPPED = ("ev_batteries", "mushrooms")
HEAVY = (
    "tensorflow",
    "keras",
    "mlflow",
    "evidently",
    "data_profiling",
    "pandas",
    "matplotlib",
    "sklearn",
    "onnxruntime",
)


def each(shipped: Any) -> list[DAG]:
    return list(shipped.dags.values())


def test_parse_when_the_repository_is_as_shipped_gives_exactly_these_dags(shipped: Any) -> None:
    assert shipped.import_errors == {}
    assert set(shipped.dags) == {f"{project}_{kind}" for project in SHIPPED for kind in KINDS}


def test_parse_when_a_project_file_is_added_gives_its_dags(projects: Projects) -> None:
    projects.write("third_line")
    assert set(parse().dags) == {f"third_line_{kind}" for kind in KINDS}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model": {"epochs": -3}}, "model.epochs is -3"),
        ({"retrain": {"cron": "61 25 * * *"}}, "retrain.cron is '61 25 * * *'"),
        ({"retrain": {"cron": "0 2 30 2 *"}}, "retrain.cron is '0 2 30 2 *'"),
        ({"timezone": "Europe/Berlln"}, "timezone is 'Europe/Berlln'"),
        ({"colour": "blue"}, "colour: no such key"),
    ],
)
def test_parse_when_a_project_file_is_wrong_reports_it_and_keeps_the_other_projects(
    projects: Projects, keys: dict[str, Any], message: str
) -> None:
    projects.write("sound")
    broken = projects.write("broken", **keys)
    bag = parse()
    assert set(bag.dags) == {f"sound_{kind}" for kind in KINDS}
    # Under the path of a file without DAGs: Airflow takes every DAG of a file that has an import error out of service.
    assert list(bag.import_errors) == ["project_files.py"]
    assert str(broken) in bag.import_errors["project_files.py"]
    assert message in bag.import_errors["project_files.py"]


def test_parse_when_two_project_files_are_wrong_reports_both(projects: Projects) -> None:
    for name in ("one", "two"):
        projects.write(name, model={"epochs": 0})
    error = parse().import_errors["project_files.py"]
    assert "one.yaml" in error
    assert "two.yaml" in error


def test_parse_imports_nothing_heavy_and_takes_no_time() -> None:
    """In a process of its own, since this one has imported everything by now."""
    program = (
        "import json, sys\n"
        "from airflow.dag_processing.dagbag import BundleDagBag\n"
        "from pathlib import Path\n"
        f"bag = BundleDagBag(dag_folder={str(DAGS)!r}, bundle_path=Path({str(DAGS)!r}), bundle_name='dags-folder')\n"
        "seconds = {stat.file: stat.duration.total_seconds() for stat in bag.dagbag_stats}\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "print(json.dumps({'seconds': seconds, 'heavy': heavy, 'errors': bag.import_errors}))\n"
    )
    environ = os.environ | {"PYTHONPATH": str(DAGS.parent), "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, check=True)
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert outcome["errors"] == {}
    assert outcome["heavy"] == []
    assert set(outcome["seconds"]) == {f"{kind}.py" for kind in (*KINDS, "project_files")}
    assert max(outcome["seconds"].values()) < 1


def test_every_dag_declares_documentation_owner_tags_and_one_run_at_a_time(shipped: Any) -> None:
    for dag in each(shipped):
        project, _, kind = dag.dag_id.rpartition("_")
        assert dag.doc_md, dag.dag_id
        assert len(dag.doc_md) > 200, dag.dag_id
        assert dag.description, dag.dag_id
        assert set(dag.tags) == {"inspectline", project, kind}
        assert dag.owner == "inspectline"
        assert dag.max_active_runs == 1
        assert dag.catchup is False


def test_every_task_declares_documentation_retries_and_a_limit_of_time(shipped: Any) -> None:
    for dag in each(shipped):
        for task in dag.tasks:
            where = f"{dag.dag_id}.{task.task_id}"
            assert task.doc_md, where
            assert task.retries >= 3, where
            assert task.retry_exponential_backoff > 1, where
            assert task.max_retry_delay, where
            assert task.retry_policy, where
            assert timedelta() < task.execution_timeout <= timedelta(hours=25), where


def test_every_dag_serializes_for_the_scheduler(shipped: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    for dag in each(shipped):
        assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).dag_id == dag.dag_id


def test_retrain_runs_the_steps_in_this_order(shipped: Any) -> None:
    dag = shipped.dags["ev_batteries_retrain"]
    after = {task.task_id: set(task.downstream_task_ids) for task in dag.tasks}
    chain = ["ingest.list_inbox", "ingest.ingest_batch", "ingest.report", "freeze", "begin", "pack", "train", "export"]
    chain += ["calibrate", "evaluate", "register", "gate", "complete", "drift", "report", "close"]
    arrows = {first: {second} for first, second in pairwise(chain)} | {"close": set(), "profile": {"close"}}
    arrows["begin"] = {"profile", "pack"}  # the profile holds up nothing
    arrows["complete"] = {"drift", "report"}  # a failed drift report does not keep the mail back
    assert after == arrows


def test_accuracy_is_checked_beside_the_mail_and_of_classifiers_alone(projects: Projects) -> None:
    projects.write("caps", task="classification")
    projects.write("cells")
    dags = parse().dags
    for kind, before, after in (("retrain", {"complete"}, {"close"}), ("evaluate", {"complete"}, {"close"})):
        task = dags[f"caps_{kind}"].get_task("accuracy")
        assert (set(task.upstream_task_ids), set(task.downstream_task_ids)) == (before, after)
    alone = dags["caps_drift"].get_task("accuracy")
    assert alone.upstream_task_ids | alone.downstream_task_ids == set()
    for kind in KINDS:
        assert "accuracy" not in dags[f"cells_{kind}"].task_ids
    assert "accuracy" not in dags["caps_ingest"].task_ids


def test_form_says_what_a_task_begins_with_and_how_slow_vgg16_is(projects: Projects) -> None:
    projects.write("caps", task="classification", model={"backbone": "vgg16"})
    projects.write("cells")
    dags = parse().dags
    fields = ("start_from", "time_budget_minutes")
    described = {}
    for project in ("caps", "cells"):
        form = dags[f"{project}_retrain"].params
        described[project] = {name: form.get_param(name).description for name in fields}
    assert "backbone" in described["caps"]["start_from"]
    assert "Random weights" in described["cells"]["start_from"]
    assert "2.4 images a second" in described["caps"]["time_budget_minutes"]
    assert "2.4" not in described["cells"]["time_budget_minutes"]


def test_train_alone_waits_for_the_gpu(shipped: Any) -> None:
    train = shipped.dags["ev_batteries_retrain"].get_task("train")
    assert (train.pool, train.queue) == ("gpu", "default")
    others = [task for task in shipped.dags["ev_batteries_retrain"].tasks if task.task_id != "train"]
    assert {task.pool for task in others} == {"default_pool"}


def test_schedule_is_the_projects_own_in_its_time_zone(shipped: Any) -> None:
    night = shipped.dags["mushrooms_retrain"].timetable
    assert (night.expression, str(night.timezone)) == ("30 3 * * *", "America/New_York")
    assert shipped.dags["ev_batteries_ingest"].timetable.expression == "*/5 * * * *"
    assert shipped.dags["ev_batteries_drift"].timetable.expression == "0 6 * * *"
    assert not shipped.dags["ev_batteries_evaluate"].timetable.can_be_scheduled


@pytest.mark.parametrize(("passed", "runs"), [(timedelta(hours=1), False), (timedelta(minutes=2), True)])
def test_nightly_when_first_switched_on_does_not_make_up_for_a_night_that_passed(passed: timedelta, runs: bool) -> None:
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction

    from inspectline_dags.projects import schedule

    now = datetime.now(ZoneInfo("Europe/Berlin"))
    slot = now - passed
    timetable: Any = coerce_to_core_timetable(schedule(f"{slot.minute} {slot.hour} * * *", "Europe/Berlin"))
    info = timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(earliest=None, latest=None, catchup=False)
    )
    assert (info.logical_date <= now) is runs


@pytest.mark.parametrize(
    "asked",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"epochs": "many"},
        {"epochs": 10_001},
        {"time_budget_minutes": 0},
        {"time_budget_minutes": -1},
        {"time_budget_minutes": 1441},
        {"start_from": "yesterday"},
        {"promote": "perhaps"},
        {"force": 3},
    ],
)
def test_form_when_asked_for_nonsense_refuses(shipped: Any, asked: dict[str, Any]) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    params = copy(shipped.dags["ev_batteries_retrain"].params)
    with pytest.raises(ParamValidationError, match=next(iter(asked))):
        params.update(asked)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"epochs": None, "time_budget_minutes": None},
        {"epochs": 1, "time_budget_minutes": 0.2, "start_from": "champion", "promote": False, "force": True},
        {"request_ids": [1, 2], "reason": "watch: 512 new images"},
    ],
)
def test_form_when_asked_for_something_sensible_takes_it(shipped: Any, asked: dict[str, Any]) -> None:
    params = copy(shipped.dags["ev_batteries_retrain"].params)
    params.update(asked)
    assert params.validate()["start_from"] in ("scratch", "champion")


def test_form_has_the_parameters_that_requests_may_ask_for(shipped: Any) -> None:
    from pipelines.requests.watch import PARAMETERS

    for kind, names in PARAMETERS.items():
        form = shipped.dags[f"ev_batteries_{kind}"].params
        assert tuple(form) == names
        for name in names:
            param = form.get_param(name)
            assert param.schema["section"], name
            assert param.description, name


def test_retries_when_the_error_may_pass_go_on_and_else_stop() -> None:
    from airflow.sdk import RetryAction

    from inspectline_dags.defaults import RetryPassingErrors

    def action(error: BaseException) -> RetryAction:
        return RetryPassingErrors().evaluate(error, 1, 3).action

    ours = [error for error in vars(errors).values() if isinstance(error, type)]
    assert len(ours) > 8
    for error in ours:
        assert action(error("…")) == (RetryAction.DEFAULT if error.passing else RetryAction.FAIL), error.__name__
    assert action(errors.StorageError("…")) == RetryAction.DEFAULT
    assert action(errors.NotEnoughImages("…")) == RetryAction.FAIL
    assert action(ConnectionError("…")) == RetryAction.DEFAULT
