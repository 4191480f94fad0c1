"""The ledger of trainings on a real catalogue and a real MLflow server."""

import mlflow
import pytest
from sqlalchemy import select

from pipelines.catalogue import connect
from pipelines.catalogue.samples import new_images
from pipelines.catalogue.schema import trainings as table
from pipelines.datasets.versions import freeze
from pipelines.errors import NotEnoughImages, RegistryError, SettingsError
from pipelines.steps import DatasetVersion, Outcome, Run, Skip
from pipelines.training import runs
from tests.pipelines.line import SIZE

PARAMS = {"epochs": None, "time_budget_minutes": None, "start_from": "scratch", "promote": True}


@pytest.fixture
def filled(line):
    """Put in enough for a dataset version."""
    for side, count in (("training", 20), ("validation", 8), ("test", 4)):
        line.add(side, "good", count)
    return line


@pytest.fixture
def begin(filled):
    """Return a function that begins a training as the DAG does."""

    def start(dag_run_id="manual__1", force=False, **params):
        return runs.begin(freeze(filled.project), {**PARAMS, **params}, force=force, dag_run_id=dag_run_id)

    return start


def rows(project):
    with connect() as connection:
        return connection.execute(select(table).where(table.c.project == project)).mappings().all()


def mlflow_runs(project):
    client = mlflow.MlflowClient()
    return client.search_runs([client.get_experiment_by_name(project).experiment_id])


def test_begin_enters_the_training_and_opens_a_run_with_its_parameters(begin, filled):
    run = begin(epochs=7)
    (row,) = rows(filled.project)
    assert (row["state"], row["kind"], row["version_id"]) == ("running", "retrain", run.version_id)
    assert (row["training_id"], row["mlflow_run_id"]) == (run.training_id, run.mlflow_run_id)
    assert run.champion is None
    assert run.task == "anomaly"
    opened = mlflow.MlflowClient().get_run(run.mlflow_run_id)
    assert opened.info.status == "RUNNING"
    assert opened.data.params["epochs"] == "7"
    assert opened.data.params["model.input_size"] == str(SIZE)
    assert opened.data.params["threshold.false_positive_rate"] == "0.05"
    assert opened.data.tags["training_id"] == run.training_id
    assert run.airflow_url.endswith(f"/dags/{filled.project}_retrain/runs/manual__1")
    assert run.mlflow_run_id in run.mlflow_url


def test_begin_when_retried_for_the_same_dag_run_is_the_same_training(begin, filled):
    first, second = begin(), begin()
    assert (first.training_id, first.mlflow_run_id) == (second.training_id, second.mlflow_run_id)
    assert len(rows(filled.project)) == len(mlflow_runs(filled.project)) == 1


def test_begin_when_killed_before_the_mlflow_run_was_noted_finds_it_again(begin, filled, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "run_url", killed)
        with pytest.raises(KeyboardInterrupt):
            begin()
    assert rows(filled.project)[0]["mlflow_run_id"] is None
    assert begin().mlflow_run_id == mlflow_runs(filled.project)[0].info.run_id
    assert len(mlflow_runs(filled.project)) == 1


def test_begin_when_an_equal_training_is_completed_skips_with_a_link_to_it(begin, filled):
    first = begin()
    runs.complete(first, Outcome("3", promoted=True))
    second = begin("manual__2")
    assert isinstance(second, Skip)
    assert second.training_id == first.training_id
    assert second.link.endswith(f"/dags/{filled.project}_retrain/runs/manual__1")
    assert first.mlflow_run_id in second.mlflow_link
    assert "(version 3)" in second.reason
    assert len(rows(filled.project)) == 1


def test_begin_with_force_trains_again(begin, filled):
    runs.complete(begin(), Outcome("1"))
    assert isinstance(begin("manual__2", force=True), Run)
    assert len(rows(filled.project)) == 2


@pytest.mark.parametrize("state", ["running", "failed"])
def test_begin_when_an_equal_training_did_not_complete_trains(begin, filled, state):
    begin()
    if state == "failed":
        runs.fail(filled.project, "manual__1", "disk full")
    assert isinstance(begin("manual__2"), Run)


def test_begin_with_a_form_that_states_the_project_files_values_equals_one_left_empty(begin, filled, projects):
    projects.write(filled.project, model={"input_size": SIZE, "epochs": 1000}, threshold={"false_positive_rate": 0.1})
    runs.complete(begin(), Outcome("1"))
    assert isinstance(begin("manual__2", epochs=1000, time_budget_minutes=10), Skip)


@pytest.mark.parametrize("change", [{"epochs": 3}, {"promote": False}, {"start_from": "champion"}])
def test_begin_with_other_parameters_trains(begin, change):
    runs.complete(begin(), Outcome("1"))
    assert isinstance(begin("manual__2", **change), Run)


def test_begin_when_the_data_or_the_project_file_changed_trains(begin, filled, projects):
    runs.complete(begin(), Outcome("1"))
    filled.add("training", "good", 1)
    second = begin("manual__2")
    assert isinstance(second, Run)
    runs.complete(second, Outcome("2"))
    projects.write(filled.project, model={"input_size": SIZE}, threshold={"false_positive_rate": 0.1})
    assert isinstance(begin("manual__3"), Run)


@pytest.mark.parametrize(
    ("task", "without_part", "with_part"),
    [
        ("anomaly", {"promotion": {"minimum_accuracy": 0.9}}, {"promotion": {"minimum_auroc": 0.9}}),
        (
            "classification",
            {"promotion": {"minimum_auroc": 0.9}, "threshold": {"false_positive_rate": 0.3}},
            {"promotion": {"minimum_accuracy": 0.9}},
        ),
    ],
)
def test_begin_when_a_setting_of_another_task_changed_skips(line, projects, task, without_part, with_part):
    projects.write(line.project, task=task)
    for label in ("good",) if task == "anomaly" else ("disc", "bar"):
        for side, count in (("training", 20), ("validation", 8), ("test", 4)):
            line.add(side, label, count)

    def begin(dag_run_id):
        return runs.begin(freeze(line.project), PARAMS, force=False, dag_run_id=dag_run_id)

    first = begin("manual__1")
    runs.complete(first, Outcome("1"))
    logged = mlflow.MlflowClient().get_run(first.mlflow_run_id).data.params
    assert any(name.startswith("threshold.") for name in logged) == (task == "anomaly")
    projects.write(line.project, task=task, **without_part)
    assert isinstance(begin("manual__2"), Skip)
    projects.write(line.project, task=task, **with_part)
    assert isinstance(begin("manual__3"), Run)


def test_begin_evaluation_when_the_champion_is_of_another_task_then_skipped(filled, projects):
    client = mlflow.MlflowClient()
    client.create_registered_model(filled.project)
    source = f"s3://{filled.bucket}/brought"
    version = client.create_model_version(filled.project, source, tags={"task": "anomaly"}).version
    client.set_registered_model_alias(filled.project, "champion", version)
    projects.write(filled.project, task="classification")
    skip = runs.begin_evaluation(filled.project, {}, dag_run_id="manual__1")
    assert isinstance(skip, Skip)
    assert "of the task anomaly" in skip.reason


def test_begin_of_a_run_cleared_after_its_data_changed_is_another_training(begin, filled):
    first = begin()
    runs.fail(filled.project, "manual__1", "killed")
    filled.add("training", "good", 1)
    second = begin()
    assert second.training_id != first.training_id
    assert second.mlflow_run_id != first.mlflow_run_id
    assert len(rows(filled.project)) == 1


def test_begin_of_a_run_cleared_after_it_failed_goes_on_with_the_same_training(begin, filled):
    first = begin()
    runs.fail(filled.project, "manual__1", "killed")
    second = begin()
    assert second.training_id == first.training_id
    assert rows(filled.project)[0]["state"] == "running"
    assert mlflow.MlflowClient().get_run(first.mlflow_run_id).info.status == "RUNNING"


def test_begin_when_the_registry_does_not_answer_raises(begin, monkeypatch):
    from tests.conftest import free_port

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match="cannot be reached"):
        begin()


def test_complete_marks_the_training_its_samples_and_the_run(begin, filled):
    run = begin()
    with connect() as connection:
        assert len(new_images(connection, filled.project)) == 32
    runs.complete(run, Outcome("4", promoted=False, why="worse"))
    runs.complete(run, Outcome("5"))
    (row,) = rows(filled.project)
    assert (row["state"], row["model_version"], row["promoted"]) == ("completed", "4", False)
    assert row["result"]["why"] == "worse"
    assert row["finished_at"] >= row["started_at"]
    with connect() as connection:
        assert new_images(connection, filled.project) == []
    assert mlflow.MlflowClient().get_run(run.mlflow_run_id).info.status == "FINISHED"


def test_fail_marks_the_training_and_the_run_with_the_reason(begin, filled):
    run = begin()
    failed = runs.fail(filled.project, "manual__1", "the loss diverged")
    assert failed.training_id == run.training_id
    assert run.mlflow_run_id in failed.mlflow_url
    (row,) = rows(filled.project)
    assert (row["state"], row["result"]["why"]) == ("failed", "the loss diverged")
    ended = mlflow.MlflowClient().get_run(run.mlflow_run_id)
    assert (ended.info.status, ended.data.tags["failure"]) == ("FAILED", "the loss diverged")


def test_fail_of_what_never_began_or_has_ended_changes_nothing(begin, filled):
    assert runs.fail(filled.project, "manual__none", "x") is None
    runs.complete(begin(), Outcome("1"))
    assert runs.fail(filled.project, "manual__1", "late") is None
    assert rows(filled.project)[0]["state"] == "completed"


def test_begin_evaluation_without_a_champion_is_skipped_and_says_what_to_do(filled):
    run = runs.begin_evaluation(filled.project, {}, dag_run_id="manual__1")
    assert run.reason == f"{filled.project} has no champion to evaluate yet: start {filled.project}_retrain"
    assert rows(filled.project) == []


def test_begin_of_an_unknown_project_names_it(database, projects):
    with pytest.raises(SettingsError, match="nowhere"):
        runs.begin(DatasetVersion("nowhere", "d1", "", ""), {}, force=False, dag_run_id="manual__1")


def test_begin_evaluation_with_too_few_images_says_so_before_anything_is_entered(line):
    client = mlflow.MlflowClient()
    client.create_registered_model(line.project)
    run = client.create_run(runs.experiment_id(line.project)).info
    client.create_model_version(line.project, source=f"{run.artifact_uri}/model", run_id=run.run_id)
    client.set_registered_model_alias(line.project, "champion", "1")
    with pytest.raises(NotEnoughImages):
        runs.begin_evaluation(line.project, {}, dag_run_id="manual__1")
    assert rows(line.project) == []
