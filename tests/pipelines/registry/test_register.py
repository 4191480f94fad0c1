"""Registration and aliases on a real MLflow server: idempotent, serialised, and never replacing a pinned version."""

import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipelines.catalogue.locks import registry_turn
from pipelines.errors import BadPackage, CatalogueError, RegistryError
from pipelines.registry import client, pinning, register
from pipelines.registry.package import Package, package_digest
from pipelines.registry.package_store import package_uri, publish_files
from pipelines.steps import Estimate, EvaluationReport, ModelPackage, Registration
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.training.mlflow_run import experiment_id, open_run
from tests.pipelines.line import SIZE
from tests.pipelines.packages import defective_image, make_package

EVALUATION = EvaluationReport(
    {"auroc": Estimate(0.98, 0.95, 1.0)}, {}, {}, {}, threshold=0.25, policy="conformal", notes=["No masks."]
)


@pytest.fixture
def publish(line, tmp_path):
    """Return a function that opens a run, publishes a package for it, and returns both."""

    def make(**card):
        run = line.run()
        run = replace(run, mlflow_run_id=open_run(experiment_id(line.project), run, {}))
        fields = {"size": SIZE, "training_id": run.training_id, "version_id": run.version_id, **card}
        folder = make_package(tmp_path / run.training_id, project=line.project, **fields)
        uri = package_uri(line.bucket, line.project, run.version_id, run.training_id)
        publish_files(folder, uri)
        threshold = AnomalyPackage.open(folder).card.threshold
        return run, ModelPackage(uri, ["A note."], threshold=threshold, policy="conformal"), folder

    return make


def versions(project):
    return mlflow.MlflowClient().search_model_versions(f"name='{project}'")


def together(count, act):
    """Run `act(number)` in `count` threads at once and return the results in order."""
    results, barrier = [None] * count, threading.Barrier(count)

    def work(number):
        barrier.wait()
        try:
            results[number] = act(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_register_makes_a_version_that_mlflow_and_serving_both_read_without_pickles(line, publish, tmp_path):
    run, package, folder = publish()
    registration = register.register(run, package, EVALUATION)
    assert registration == Registration("1", package_digest(folder))

    uri = f"models:/{line.project}/1"
    model = mlflow.pyfunc.load_model(uri)
    answer = model.predict({"image": defective_image(np.random.default_rng(0), SIZE)[None]})
    assert answer["score"][0] > 0.3
    assert mlflow.onnx.load_model(uri).graph.node
    names = {path.name for path in Path(mlflow.artifacts.download_artifacts(uri, dst_path=tmp_path / "got")).iterdir()}
    assert {"MLmodel", "model.onnx", "model.json", "reference.npz", "model.keras", "requirements.txt"} <= names

    served = client.latest(line.project)
    assert served.digest == package_digest(folder)
    assert Package.open(client.fetch(served)).card.training_id == run.training_id


def test_register_sets_tags_description_alias_and_shows_the_model_in_the_run(line, publish):
    run, package, folder = publish(threshold=0.125)
    register.register(run, package, EVALUATION)
    mlflow_client = mlflow.MlflowClient()
    (version,) = versions(line.project)
    assert version.tags["training_id"] == run.training_id
    assert version.tags["version_id"] == run.version_id
    assert version.tags["package_sha256"] == package_digest(folder)
    assert float(version.tags["threshold"]) == 0.125
    assert "| AUROC | 0.98 | 0.95 to 1 |" in version.description
    assert "- A note.\n- No masks." in version.description
    assert version.run_id == run.mlflow_run_id
    assert mlflow_client.get_model_version_by_alias(line.project, "challenger").version == version.version
    assert len(mlflow_client.get_run(run.mlflow_run_id).outputs.model_outputs) == 1
    assert client.champion(line.project) is None


def test_register_of_a_classifier_tags_its_accuracy_and_when_it_was_measured(line, publish):
    run, package, _ = publish()
    register.register(run, package, replace(EVALUATION, metrics={"accuracy": Estimate(0.84, 0.79, 0.88)}))
    (version,) = versions(line.project)
    kept = [float(version.tags[name]) for name in ("accuracy", "accuracy_low", "accuracy_high")]
    assert kept == [0.84, 0.79, 0.88]
    assert datetime.fromisoformat(version.tags["evaluated_at"]).tzinfo is not None


def test_register_when_retried_registers_once(line, publish):
    run, package, _ = publish()
    first = register.register(run, package, EVALUATION)
    assert register.register(run, package, EVALUATION) == first
    assert len(versions(line.project)) == 1


def test_register_by_several_at_once_registers_once(line, publish):
    run, package, _ = publish()
    results = together(4, lambda _: register.register(run, package, EVALUATION))
    assert [result.version for result in results] == ["1"] * 4
    assert len(versions(line.project)) == 1


def test_register_when_killed_before_the_version_was_made_completes_the_same_logged_model(line, publish, monkeypatch):
    run, package, _ = publish()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "create_model_version", killed)
        with pytest.raises(KeyboardInterrupt):
            register.register(run, package, EVALUATION)
    register.register(run, package, EVALUATION)
    client = mlflow.MlflowClient()
    models = client.search_logged_models([experiment_id(line.project)])
    assert len(models) == 1
    assert len(client.get_run(run.mlflow_run_id).outputs.model_outputs) == 1


def test_register_of_a_damaged_package_says_so_and_registers_nothing(line, publish):
    from pipelines.storage.s3 import Storage

    run, package, _ = publish()
    key = package.package_uri.removeprefix(f"s3://{line.bucket}/") + "/model.onnx"
    Storage(line.bucket).put(key, b"damaged")
    with pytest.raises(BadPackage, match="sha256"):
        register.register(run, package, EVALUATION)
    assert versions(line.project) == []


@pytest.fixture
def three(line):
    """Make a registered model with three versions, for tests of aliases alone, and return the project's name."""
    client = mlflow.MlflowClient()
    client.create_registered_model(line.project)
    run = client.create_run(experiment_id(line.project)).info
    for _ in range(3):
        client.create_model_version(line.project, source=f"{run.artifact_uri}/model", run_id=run.run_id)
    return line.project


def test_promote_without_a_champion_sets_the_alias(three):
    assert register.promote(three, "1", expected=None) is None
    assert client.champion(three).version == "1"


def test_promote_when_the_alias_moved_since_the_run_began_leaves_it_and_says_so(three):
    register.promote(three, "1", expected=None)
    assert (
        register.promote(three, "2", expected=None) == "the champion was none when the run began and is version 1 now"
    )
    register.promote(three, "2", expected="1")
    why = register.promote(three, "3", expected="1")
    assert why == "the champion was version 1 when the run began and is version 2 now"
    assert client.champion(three).version == "2"


def test_promote_when_retried_after_it_moved_the_alias_agrees(three):
    register.promote(three, "1", expected=None)
    assert register.promote(three, "1", expected=None) is None


def test_promote_by_two_runs_that_saw_the_same_champion_lets_one_alone_win(three):
    register.promote(three, "1", expected=None)
    for _ in range(5):
        mlflow.MlflowClient().set_registered_model_alias(three, "champion", "1")
        results = together(2, lambda number: register.promote(three, str(number + 2), expected="1"))
        assert results.count(None) == 1
        winner = str(results.index(None) + 2)
        assert client.champion(three).version == winner
        assert f"is version {winner} now" in next(result for result in results if result)


def test_promote_while_a_version_is_held_leaves_it_until_released(three):
    pinning.hold(three, "1")
    assert client.champion(three).version == "1"
    assert register.promote(three, "2", expected="1") == (
        "version 1 is held by hand: release it to let a run replace the champion"
    )
    pinning.release(three)
    pinning.release(three)
    assert register.promote(three, "2", expected="1") is None


@pytest.mark.parametrize(("mark", "held"), [("true", True), ("yes", True), ("false", False)])
def test_promote_when_the_champions_own_tag_says_held_heeds_it(three, mark, held):
    register.promote(three, "1", expected=None)
    mlflow.MlflowClient().set_model_version_tag(three, "1", "held", mark)
    assert (register.promote(three, "2", expected="1") is not None) == held


def test_promote_when_the_registry_does_not_answer_raises_instead_of_taking_it_for_no_champion(three, monkeypatch):
    from tests.conftest import free_port

    register.promote(three, "1", expected=None)
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(RegistryError, match="cannot be reached"):
            client.champion(three)
    assert client.champion(three).version == "1"


def test_registry_turn_when_another_holds_it_waits_and_then_gives_up(each_database):
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with registry_turn("line"):
            inside.set()
            leave.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(10)
    with registry_turn("another line"):
        pass
    with pytest.raises(CatalogueError), registry_turn("line", patience=1):
        pass
    leave.set()
    with registry_turn("line", patience=20):
        pass
    holder.join()
