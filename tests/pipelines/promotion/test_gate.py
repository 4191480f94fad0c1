"""The gate on real packages, samples and aliases."""

import json

import mlflow
import pytest

from pipelines.datasets.versions import freeze
from pipelines.errors import RegistryError
from pipelines.promotion import gate
from pipelines.registry import client, pinning
from pipelines.registry.register import register as register_version
from pipelines.steps import Decision, Estimate, EvaluationReport, Outcome, Run
from pipelines.storage.s3 import Storage, read_uri
from pipelines.tasks.anomaly.calibrate import calibrate
from pipelines.training import runs
from tests.pipelines.line import pack_of

EVALUATION = EvaluationReport({}, {}, {}, {}, threshold=0.25, policy="conformal")


@pytest.fixture
def filled(line):
    """Put in enough test images of both kinds for AUROC to decide."""
    for side, count in (("training", 16), ("validation", 20), ("test", 30)):
        line.add(side, "good", count)
    line.add("test", "anomaly", 20, kind="dent")
    return line


@pytest.fixture
def register(line, tmp_path):
    """Return a function that takes a training as far as the gate."""
    count = 0

    def make(blind=False, **params):
        nonlocal count
        count += 1
        run = runs.begin(freeze(line.project), params, force=True, dag_run_id=f"manual__{count}")
        package = calibrate(run, pack_of(run), line.export(run, tmp_path / str(count), blind=blind))
        return run, register_version(run, package, EVALUATION)

    return make


def champion(project):
    found = client.champion(project)
    return found.version if found else None


def spoil(project, version, name="model.onnx"):
    """Overwrite a file of a registered version where MLflow keeps it."""
    uri = mlflow.MlflowClient().get_model_version_download_uri(project, version)
    key = f"mlflow/{uri.removeprefix('mlflow-artifacts:/').lstrip('/')}/{name}"
    storage = Storage("mlflow-artifacts")
    assert storage.exists(key)
    storage.put(key, b"damaged")


def test_decide_on_the_first_version_promotes_it_if_it_meets_the_minimum(filled, register):
    run, registered = register()
    decision = gate.decide(run, registered)
    assert decision.promoted
    assert decision.champion is None
    assert decision.challenger.auroc.value == 1
    assert decision.basis == "20 test anomalies and 30 good test images"
    assert champion(filled.project) == "1"
    assert Decision.from_json(json.loads(read_uri(decision.report_uri))) == decision


def test_decide_on_a_first_version_below_the_minimum_leaves_the_project_without_champion(filled, register):
    run, registered = register(blind=True)
    decision = gate.decide(run, registered)
    assert not decision.promoted
    assert "is below the project's minimum of 0.8" in decision.why
    assert champion(filled.project) is None


def test_decide_scores_champion_and_challenger_now_on_the_same_samples(filled, register):
    gate.decide(*register())
    run, registered = register()
    decision = gate.decide(run, registered)
    assert decision.promoted
    assert run.champion.version == decision.champion.version == "1"
    assert decision.champion.auroc == decision.challenger.auroc
    assert decision.difference == Estimate(0, 0, 0)
    assert champion(filled.project) == "2"


def test_decide_on_a_worse_challenger_keeps_the_champion_and_notes_why_on_the_version(filled, register):
    gate.decide(*register())
    run, registered = register(blind=True)
    decision = gate.decide(run, registered)
    assert not decision.promoted
    assert decision.difference.high < -0.5
    assert champion(filled.project) == "1"
    client = mlflow.MlflowClient()
    tags = client.get_model_version(filled.project, "2").tags
    assert (tags["decision"], tags["decided_against"]) == ("not promoted", "1")
    assert tags["decision_why"] == decision.why
    logged = mlflow.artifacts.load_dict(f"runs:/{run.mlflow_run_id}/decision.json")
    assert Decision.from_json(logged) == decision


def test_decide_when_asked_to_register_only_moves_nothing_and_says_how_it_would_have_gone(filled, register):
    decision = gate.decide(*register(promote=False))
    assert not decision.promoted
    assert decision.why.startswith("Only registered, as the run was asked to; it could have been promoted")
    assert champion(filled.project) is None


def test_decide_when_retried_after_the_alias_moved_decides_the_same(filled, register, monkeypatch):
    run, registered = register()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(gate, "_record", killed)
        with pytest.raises(KeyboardInterrupt):
            gate.decide(run, registered)
    assert champion(filled.project) == "1"
    decision = gate.decide(run, registered)
    assert decision.promoted
    assert decision.champion is None
    assert gate.decide(run, registered) == decision


def test_decide_when_the_alias_moved_since_the_run_began_leaves_it(filled, register):
    gate.decide(*register())
    run, registered = register()
    other = register()
    mlflow.MlflowClient().set_registered_model_alias(filled.project, "champion", other[1].version)
    decision = gate.decide(run, registered)
    assert not decision.promoted
    assert "the champion was version 1 when the run began and is version 3 now" in decision.why
    assert champion(filled.project) == "3"


def test_decide_while_a_version_is_held_by_hand_leaves_it(filled, register):
    gate.decide(*register())
    pinning.hold(filled.project, "1")
    decision = gate.decide(*register())
    assert not decision.promoted
    assert "version 1 is held by hand" in decision.why
    assert champion(filled.project) == "1"


@pytest.mark.parametrize("name", ["model.onnx", "model.json"])
def test_decide_when_the_champion_is_damaged_judges_the_challenger_alone_and_says_so(
    filled, register, name, cache, monkeypatch, tmp_path
):
    gate.decide(*register())
    run, registered = register()
    spoil(filled.project, "1", name)
    monkeypatch.setenv("INSPECTLINE_CACHE", str(tmp_path / "another machine"))
    decision = gate.decide(run, registered)
    assert decision.promoted
    assert decision.champion.version == "1"
    assert decision.champion.auroc is None
    assert any("Champion version 1 cannot be read, so the challenger was judged alone" in n for n in decision.notes)
    assert champion(filled.project) == "2"


def test_decide_when_a_file_of_the_champion_is_gone_judges_the_challenger_alone(
    filled, register, monkeypatch, tmp_path
):
    gate.decide(*register())
    run, registered = register()
    uri = mlflow.MlflowClient().get_model_version_download_uri(filled.project, "1")
    Storage("mlflow-artifacts").delete(f"mlflow/{uri.removeprefix('mlflow-artifacts:/')}/model.onnx")
    monkeypatch.setenv("INSPECTLINE_CACHE", str(tmp_path / "another machine"))
    decision = gate.decide(run, registered)
    assert decision.promoted
    assert any("cannot be read" in note for note in decision.notes)


def test_decide_when_the_registry_does_not_answer_raises_and_moves_nothing(filled, register, monkeypatch, tmp_path):
    from tests.conftest import free_port

    run, registered = register()
    with monkeypatch.context() as patched:
        patched.setenv("INSPECTLINE_CACHE", str(tmp_path / "another machine"))
        patched.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(RegistryError, match="cannot be reached"):
            gate.decide(run, registered)
    assert champion(filled.project) is None


def test_decide_with_few_anomalies_rests_on_synthetic_defects(line, register):
    for side, count in (("training", 16), ("validation", 20), ("test", 40)):
        line.add(side, "good", count)
    line.add("test", "anomaly", 3)
    decision = gate.decide(*register())
    assert decision.promoted, decision.why
    assert decision.basis == "40 synthetic defects and 40 good test images"
    assert decision.challenger.synthetic_auroc.value > 0.8
    assert any("There are 3 test anomalies and 20 are needed" in note for note in decision.notes)
    worse = gate.decide(*register(blind=True))
    assert not worse.promoted
    assert "AUROC on synthetic defects" in worse.why


def test_evaluation_run_keeps_the_weights_sets_the_threshold_anew_and_goes_through_the_gate(filled, register):
    run, registered = register()
    gate.decide(run, registered)
    runs.complete(run, Outcome(registered.version, promoted=True))
    filled.add("validation", "good", 30)
    again = runs.begin_evaluation(filled.project, {}, dag_run_id="manual__evaluate")
    assert (again.kind, again.champion.version) == ("evaluate", "1")
    package = calibrate(again, pack_of(again), None)
    registered = register_version(again, package, EVALUATION)
    decision = gate.decide(again, registered)
    assert decision.promoted
    assert champion(filled.project) == registered.version == "2"
    first, second = (client.fetch(pinning.version_of(filled.project, number)) for number in "12")
    assert (first / "model.onnx").read_bytes() == (second / "model.onnx").read_bytes()
    cards = [json.loads((folder / "model.json").read_text()) for folder in (first, second)]
    assert [card["threshold_detail"]["n_validation"] for card in cards] == [20, 50]
    runs.complete(again, Outcome("2", promoted=True))
    later = runs.begin_evaluation(filled.project, {}, dag_run_id="manual__evaluate_again")
    assert isinstance(later, Run)  # the champion is another now: its threshold has not been set on these
    assert later.parameters.champion == "2"
