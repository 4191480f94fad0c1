"""What the steps of a run hand to each other: frozen dataclasses, JSON at XCom and at a subprocess only.

A run begins as a `Run` on a `DatasetVersion`. `pack` makes a `PackRef`, `train` a `TrainedModel`, `export` and
`calibrate` a `ModelPackage`, `evaluate` an `EvaluationReport`, `register` a `Registration`, the gate a `Decision`, and
`complete` an `Outcome`.

    >>> PackRef(uri="s3://bucket/line/d1/pack/128-tile-2", digest="ab", n=540).to_json()
    {'uri': 's3://bucket/line/d1/pack/128-tile-2', 'digest': 'ab', 'n': 540}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipelines.config.model_settings import AnomalySettings, ModelSettings
from pipelines.config.project import PromotionRules, ThresholdPolicy
from pipelines.errors import InspectlineError

Kind = Literal["retrain", "evaluate"]


class BadRecord(InspectlineError):
    """A step was handed something that is not what it takes: written by another version of the code, or altered."""


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


class Record:
    """Base of the dataclasses that pass between steps; converts to and from what JSON can hold."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", protected_namespaces=())

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dictionary of strings, numbers, lists and dictionaries."""
        value: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return value

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the record that `to_json` gave.

        Raises:
            BadRecord: a field is missing, unknown or of another type; names it.
        """
        try:
            record: Self = _adapter(cls).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "value"
            raise BadRecord(f"{cls.__name__}: {where}: {first['msg']}; clear the run and start it again") from None
        return record


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


@dataclass(frozen=True)
class Estimate(Record):
    """A metric with its 95 % confidence interval.

    Attributes:
        value: the point estimate.
        low: the lower bound.
        high: the upper bound.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))  # whatever numpy made of it

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class DatasetVersion(Record):
    """A manifest of samples, annotations and subsets; never changed once written.

    Attributes:
        project: the project's name.
        version_id: `d` and the first 12 digits of `digest`.
        digest: SHA-256 of the manifest's rows.
        manifest_uri: address of the manifest in S3 (Parquet).
        counts: number of images by subset.
        notes: sentences on what the version can and cannot give.
        bits: bit depth that images of more than eight bits are scaled by; None: each by its own samples.
    """

    project: str
    version_id: str
    digest: str
    manifest_uri: str
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bits: int | None = None


@dataclass(frozen=True)
class TrainingParameters(Record):
    """What a retraining was asked for.

    Attributes:
        epochs: passes over the training images at most; None takes as many steps as are enough.
        time_budget_minutes: training stops after this time.
        start_from: `scratch`, or `champion` for fine-tuning.
        promote: whether the version may become champion.
    """

    epochs: int | None
    time_budget_minutes: float | None
    start_from: Literal["scratch", "champion"]
    promote: bool


@dataclass(frozen=True)
class EvaluationParameters(Record):
    """What an evaluation was asked for.

    Attributes:
        promote: whether the version may become champion.
        champion: the version whose weights are evaluated.
    """

    promote: bool
    champion: str


@dataclass(frozen=True)
class RunSettings(Record):
    """The sections of the project file that the outcome of a run depends on, as they were when it began.

    Attributes:
        model: the network and its training.
        threshold: how the threshold is chosen.
        promotion: what a challenger must reach.
    """

    model: ModelSettings = field(default_factory=AnomalySettings)
    threshold: ThresholdPolicy = field(default_factory=ThresholdPolicy)
    promotion: PromotionRules = field(default_factory=PromotionRules)


@dataclass(frozen=True)
class Champion(Record):
    """The champion as a run found it.

    Attributes:
        version: its number in the registry.
        package_sha256: the digest of its package; empty for a version registered without one.
        package_uri: its package in S3, which has the weights; None if the registry does not name it.
    """

    version: str
    package_sha256: str = ""
    package_uri: str | None = None


@dataclass(frozen=True)
class Run(Record):
    """A run of `retrain` or `evaluate`: what every later step takes.

    Attributes:
        project: the project's name.
        kind: `retrain` or `evaluate`.
        training_id: names the run in the catalogue and in MLflow.
        dataset: the dataset version that it works on.
        parameters: what it was asked for.
        parameters_digest: SHA-256 that equal runs share.
        settings: the project's settings when it began.
        dag_run_id: Airflow's id of the DAG run.
        task: the project's task (`anomaly`).
        champion: the champion when it began, None if there was none.
        git_revision: the code's revision.
        airflow_url: the DAG run's page.
        mlflow_run_id: its run in MLflow; None of a training outside the catalogue, as a benchmark's.
        mlflow_url: that run's page.
    """

    project: str
    kind: Kind
    training_id: str
    dataset: DatasetVersion
    parameters: TrainingParameters | EvaluationParameters
    parameters_digest: str = ""
    settings: RunSettings = field(default_factory=RunSettings)
    dag_run_id: str = ""
    task: str = "anomaly"
    champion: Champion | None = None
    git_revision: str = "unknown"
    airflow_url: str = ""
    mlflow_run_id: str | None = None
    mlflow_url: str | None = None

    @property
    def version_id(self) -> str:
        """The dataset version's id."""
        return self.dataset.version_id

    @property
    def fine_tuning(self) -> bool:
        """Whether training starts from the champion's weights."""
        return isinstance(self.parameters, TrainingParameters) and self.parameters.start_from == "champion"


@dataclass(frozen=True)
class Skip(Record):
    """Why a run has nothing to do.

    Attributes:
        reason: one sentence.
        link: the Airflow page of the run that did the same before, or its MLflow page; None if there is none.
        training_id: that run's training.
        version: the version that came of it.
        mlflow_link: its MLflow page.
    """

    reason: str
    link: str | None = None
    training_id: str | None = None
    version: str | None = None
    mlflow_link: str | None = None


@dataclass(frozen=True)
class PackRef(Record):
    """A pack in S3.

    Attributes:
        uri: its folder.
        digest: SHA-256 of its content.
        n: number of samples.
    """

    uri: str
    digest: str
    n: int


@dataclass(frozen=True)
class TrainedModel(Record):
    """A trained network in S3, and how its training went.

    Attributes:
        weights_uri: address of `model.keras`.
        epochs: completed epochs.
        steps: completed steps, one batch each.
        seconds: training time.
        images_per_second: mean speed without the first steps.
        stopped: what ended it: `epochs`, `steps` or `time`.
        precision: the Keras dtype policy.
    """

    weights_uri: str
    epochs: int
    steps: int
    seconds: float
    images_per_second: float
    stopped: Literal["epochs", "steps", "time"]
    precision: str


@dataclass(frozen=True)
class ModelPackage(Record):
    """A model package in S3: exported, and after `calibrate` complete.

    Attributes:
        package_uri: its folder.
        notes: sentences on how it was exported and calibrated.
        onnx_sha256: digest of the graph; empty if an earlier run exported it.
        arithmetic: `float32` or `int8`.
        max_difference: largest difference of anomaly scores between graph and network.
        tolerance: allowed difference.
        threshold: the threshold; None before calibration.
        policy: the policy that set it.
        scores_uri: address of the reference's scores.
    """

    package_uri: str
    notes: list[str] = field(default_factory=list)
    onnx_sha256: str = ""
    arithmetic: Literal["float32", "int8"] = "float32"
    max_difference: float = 0.0
    tolerance: float = 0.0
    threshold: float | None = None
    policy: str | None = None
    scores_uri: str | None = None


@dataclass(frozen=True)
class EvaluationReport(Record):
    """What an evaluation on the test subsets found.

    Attributes:
        metrics: estimates by name; those that the test images do not allow are left out.
        confusion: `true_positive`, `false_negative`, `false_positive`, `true_negative`; of a classifier the number of
            images by `<class>/<predicted class>`.
        by_type: recall of each type of anomaly, or of each class: `n`, `found`, `value`, `low`, `high`.
        counts: number of test images: `good`, `anomalies`, `masked_anomalies`; of a classifier `images`.
        threshold: the threshold that was evaluated; None of a task without one.
        policy: the policy that set it.
        notes: sentences on what cannot be given, and why.
        report_uri: the report in S3; None before it is stored.
    """

    metrics: dict[str, Estimate]
    confusion: dict[str, int]
    by_type: dict[str, dict[str, float]]
    counts: dict[str, int]
    threshold: float | None = None
    policy: str | None = None
    notes: list[str] = field(default_factory=list)
    report_uri: str | None = None


@dataclass(frozen=True)
class Registration(Record):
    """A registered version.

    Attributes:
        version: its number in the registry.
        package_sha256: the digest of its package.
    """

    version: str
    package_sha256: str


@dataclass(frozen=True)
class VersionMetrics(Record):
    """What a version reaches on the test samples of a comparison; None where the samples do not allow it.

    Attributes:
        version: its number in the registry.
        threshold: its threshold.
        auroc: AUROC on test anomalies.
        false_positive_rate: on good test images.
        recall: on test anomalies.
        synthetic_auroc: AUROC on synthetic defects, where these were drawn.
        accuracy: share of test images whose class is right.
        macro_f1: mean of the classes' F1.
    """

    version: str
    threshold: float | None = None
    auroc: Estimate | None = None
    false_positive_rate: Estimate | None = None
    recall: Estimate | None = None
    synthetic_auroc: Estimate | None = None
    accuracy: Estimate | None = None
    macro_f1: Estimate | None = None


@dataclass(frozen=True)
class Decision(Record):
    """What the gate decided about a challenger.

    Attributes:
        promoted: whether it is champion now.
        why: sentences.
        basis: what the decision rests on.
        champion: the champion's metrics on the same samples; None if there was no champion.
        challenger: the challenger's metrics.
        difference: of the deciding metric, challenger minus champion.
        notes: sentences that did not decide.
        report_uri: the decision in S3.
    """

    promoted: bool
    why: str
    basis: str
    champion: VersionMetrics | None
    challenger: VersionMetrics
    difference: Estimate | None
    notes: list[str]
    report_uri: str


@dataclass(frozen=True)
class Outcome(Record):
    """What came of a run: kept as its result in the catalogue.

    Attributes:
        version: the registered version.
        promoted: whether it became champion.
        why: why, in sentences.
        metrics: estimates by name.
        threshold: its threshold.
        policy: the policy that set it.
        notes: sentences on what to mind.
    """

    version: str | None = None
    promoted: bool = False
    why: str = ""
    metrics: dict[str, Estimate] = field(default_factory=dict)
    threshold: float | None = None
    policy: str | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, package: ModelPackage, report: EvaluationReport, registration: Registration, decision: Decision
    ) -> Self:
        """Return the outcome of a run that reached its end."""
        return cls(
            version=registration.version,
            promoted=decision.promoted,
            why=decision.why,
            metrics=report.metrics,
            threshold=package.threshold,
            policy=package.policy,
            notes=[*package.notes, *report.notes],
        )
