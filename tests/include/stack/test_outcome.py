import io
import json

import pytest
from rich.console import Console

from include.stack import outcome
from include.stack.errors import StackError
from pipelines.catalogue import transaction
from pipelines.catalogue.schema import dataset_versions, now, trainings
from pipelines.storage.s3 import Storage

PROJECT = "bolts"
RESULT = {
    "metrics": {
        "auroc": {"value": 0.981, "low": 0.962, "high": 0.994},
        "reconstruction_error_validation": {"value": 0.0123, "low": 0.0119, "high": 0.0128},
        "new_figure": {"value": 0.5, "low": None, "high": None},
    },
    "threshold": 0.0467,
    "policy": "least_cost",
    "notes": ["One note"],
    "promoted": True,
    "why": "Promoted: there was no champion.",
    "version": "3",
}
DETAIL = {
    "n_validation": 108,
    "n_anomaly_threshold": 24,
    "promise_kept_at": 0.01,
    "costs": {"cost_false_alarm": 1.0, "cost_miss": 20.0, "defect_rate": 0.02},
    "thresholds": {"least_cost": {"false_positive_rate": {"value": 0.0093, "low": 0.0002, "high": 0.0505}}},
}


@pytest.fixture
def enter(database, projects):
    """Return a function that enters a training with its dataset version and package card."""
    projects.write(PROJECT)

    def act(training_id, dag_run_id, state="completed", kind="retrain"):
        values = {"project": PROJECT, "version_id": "d1", "digest": "0", "manifest_key": "m.parquet"}
        with transaction() as connection:
            if connection.execute(dataset_versions.select()).first() is None:
                connection.execute(dataset_versions.insert().values(**values, counts={"training": 324, "test": 0}))
            connection.execute(
                trainings.insert().values(
                    training_id=training_id,
                    project=PROJECT,
                    kind=kind,
                    version_id="d1",
                    params_digest="0",
                    params={},
                    state=state,
                    dag_run_id=dag_run_id,
                    result=RESULT,
                    started_at=now(),
                    finished_at=now(),
                )
            )
        card = json.dumps({"threshold_detail": DETAIL}).encode()
        Storage(projects.bucket).put(f"{PROJECT}/d1/model/{training_id}/model.json", card)

    return act


def test_outcome_when_the_run_trained_is_its_own(enter):
    enter("t1", "first")
    enter("t2", "second")

    training = outcome.outcome_of(PROJECT, "first")

    assert (training.training_id, training.earlier) == ("t1", False)
    assert training.result == RESULT
    assert training.detail == DETAIL
    assert training.manifest_uri.endswith("/m.parquet")


def test_outcome_when_the_run_was_skipped_is_that_of_the_newest_training(enter):
    enter("t1", "first")
    enter("t2", "second")

    training = outcome.outcome_of(PROJECT, "third, skipped")

    assert (training.training_id, training.earlier) == ("t2", True)


def test_outcome_when_nothing_completed_says_where_to_look(enter):
    enter("t1", "first", state="failed")
    enter("t2", "evaluation", kind="evaluate")

    with pytest.raises(StackError, match="holds no completed training of bolts: look at the run first"):
        outcome.outcome_of(PROJECT, "first")


def test_force_when_nothing_was_trained_is_not_needed(enter):
    assert not outcome.has_completed(PROJECT)
    enter("t1", "first", state="running")
    assert not outcome.has_completed(PROJECT)
    enter("t2", "second")
    assert outcome.has_completed(PROJECT)


def test_figures_when_shown_have_names_for_people_and_intervals():
    out = io.StringIO()
    Console(file=out, width=120).print(outcome.metrics_table(RESULT["metrics"]))

    rows = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "AUROC 0.981 0.962 – 0.994" in rows
    assert "Mean reconstruction error, validation 0.0123 0.0119 – 0.0128" in rows
    assert "new figure 0.500" in rows


def test_threshold_when_shown_says_how_it_was_set():
    assert outcome.threshold_sentence(RESULT, DETAIL) == (
        "0.0467, least cost (a false alarm costs 1, a miss 20; 2 % of the parts are defective); "
        "set on 108 good and 24 defective images; false-positive rate promised: 1 %, expected: 0.93 % (0.02 % – 5.05 %)"
    )


def test_threshold_when_little_is_known_of_it_says_that_little():
    assert outcome.threshold_sentence({"threshold": 0.5, "policy": "conformal"}, {}) == (
        "0.500, conformal, from good images alone"
    )


def test_promotion_when_shown_says_whether_and_why():
    assert outcome.promotion_sentence(RESULT) == "version 3 is champion. Promoted: there was no champion."
    kept = RESULT | {"promoted": False, "why": "Not promoted: its AUROC is below the minimum."}
    assert outcome.promotion_sentence(kept) == "version 3 is challenger. Not promoted: its AUROC is below the minimum."


def test_certainty_of_a_classifier_says_how_it_was_calibrated():
    sentence = outcome.certainty_sentence({"temperature": 1.234, "coverage": 0.9, "validation_images": 120})

    assert "120 validation images" in sentence
    assert "1.23" in sentence
    assert "90 %" in sentence
    assert outcome.certainty_sentence(DETAIL) == ""
