"""What passes between steps comes back from JSON as it was, and anything else is refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipelines.config.model_settings import AnomalySettings
from pipelines.config.project import ThresholdPolicy
from pipelines.steps import (
    BadRecord,
    Champion,
    DatasetVersion,
    Decision,
    Estimate,
    EvaluationParameters,
    EvaluationReport,
    ModelPackage,
    Outcome,
    PackRef,
    Registration,
    Run,
    RunSettings,
    Skip,
    TrainedModel,
    TrainingParameters,
    VersionMetrics,
)

DATASET = DatasetVersion("line", "d1", "ab", "s3://b/m.parquet", {"training": 20}, ["a note"])
RUN = Run(
    project="line",
    kind="retrain",
    training_id="t1",
    dataset=DATASET,
    parameters=TrainingParameters(7, 2.5, "champion", promote=False),
    settings=RunSettings(AnomalySettings(preset="base"), ThresholdPolicy(cost_miss=3)),
    champion=Champion("3", "cd", "s3://b/p"),
    mlflow_run_id="m",
)
AUROC = Estimate(0.9, 0.8, 1.0)
RECORDS = [
    DATASET,
    RUN,
    replace(RUN, kind="evaluate", parameters=EvaluationParameters(promote=True, champion="3"), champion=None),
    Skip("done before", "http://airflow", "t0", "2"),
    PackRef("s3://b/pack", "ef", 20),
    TrainedModel("s3://b/model.keras", 3, 60, 12.5, 80.0, "steps", "mixed_bfloat16"),
    ModelPackage("s3://b/p", ["int8 is taken"], "ab", "int8", 1e-7, 1e-5, 0.25, "conformal", "s3://b/p/reference.npz"),
    EvaluationReport({"auroc": AUROC}, {"true_positive": 3}, {"dent": {"n": 3, "value": 1.0}}, {"good": 9}, 0.2, "f1"),
    Registration("4", "ab"),
    Decision(True, "better", "20 test anomalies", None, VersionMetrics("4", 0.2, auroc=AUROC), AUROC, [], "s3://b/d"),
    Outcome("4", True, "better", {"auroc": AUROC}, 0.2, "f1", ["a note"]),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_to_json_then_from_json_gives_the_same_record(record):
    assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


def test_from_json_of_a_missing_unknown_or_wrong_field_names_it():
    whole = RUN.to_json()
    with pytest.raises(BadRecord, match="Run: training_id"):
        Run.from_json({name: value for name, value in whole.items() if name != "training_id"})
    with pytest.raises(BadRecord, match="Run: colour"):
        Run.from_json(whole | {"colour": "red"})
    with pytest.raises(BadRecord, match=r"Run: dataset\.counts"):
        Run.from_json(whole | {"dataset": DATASET.to_json() | {"counts": 3}})
    with pytest.raises(BadRecord, match="Run"):
        Run.from_json(None)


def test_estimate_of_numpy_numbers_holds_plain_ones():
    estimate = Estimate(np.float32(0.5), np.float64(0.25), np.int64(1))
    assert json.loads(json.dumps(estimate.to_json())) == {"value": 0.5, "low": 0.25, "high": 1.0}
    assert str(estimate) == "0.500 (0.250 to 1.000)"


def test_outcome_of_a_run_gathers_threshold_metrics_and_notes():
    package = ModelPackage("s3://b/p", ["of the threshold"], threshold=0.25, policy="conformal")
    report = EvaluationReport({"auroc": AUROC}, {}, {}, {}, 0.25, "conformal", ["of the evaluation"])
    decision = Decision(True, "better", "", None, VersionMetrics("4"), None, [], "s3://b/d")
    outcome = Outcome.of(package, report, Registration("4", "ab"), decision)
    assert (outcome.version, outcome.promoted, outcome.threshold) == ("4", True, 0.25)
    assert outcome.notes == ["of the threshold", "of the evaluation"]
