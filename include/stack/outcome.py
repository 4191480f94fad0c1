"""Describe the outcome of a training in sentences and tables, from the catalogue and the model package."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from sqlalchemy import select

from include.stack.errors import StackError
from pipelines.catalogue import connect
from pipelines.catalogue.schema import dataset_versions, trainings
from pipelines.config.metrics import METRIC_TITLES, percent
from pipelines.config.project import load_project
from pipelines.registry.package_store import package_uri
from pipelines.storage.s3 import read_uri

_POLICIES = {"least_cost": "least cost", "conformal": "conformal, from good images alone", "f1": "best F1"}

_OF_CLASSIFIERS = ("temperature", "coverage", "validation_images")


@dataclass(frozen=True)
class Outcome:
    """A completed training: `result` as the task `complete` entered it, `detail` the package's threshold_detail.

    Of a classifier, `detail` holds the card's temperature, coverage and validation_images.
    """

    training_id: str
    earlier: bool
    manifest_uri: str
    counts: Mapping[str, int]
    result: Mapping[str, Any]
    detail: Mapping[str, Any]


def has_completed(project: str) -> bool:
    """Return whether a training of the project has completed before."""
    with connect() as connection:
        query = select(trainings.c.training_id).where(
            trainings.c.project == project, trainings.c.kind == "retrain", trainings.c.state == "completed"
        )
        return connection.execute(query.limit(1)).first() is not None


def outcome_of(project: str, dag_run_id: str) -> Outcome:
    """Return the outcome of a run; for a skipped run, that of the training with the same data and parameters.

    Raises:
        StackError: the catalogue holds no completed training for it.
    """
    with connect() as connection:
        completed = (
            select(trainings, dataset_versions.c.manifest_key, dataset_versions.c.counts)
            .join(
                dataset_versions,
                (dataset_versions.c.project == trainings.c.project)
                & (dataset_versions.c.version_id == trainings.c.version_id),
            )
            .where(trainings.c.project == project, trainings.c.kind == "retrain", trainings.c.state == "completed")
        )
        own = connection.execute(completed.where(trainings.c.dag_run_id == dag_run_id)).mappings().first()
        newest = completed.order_by(trainings.c.finished_at.desc()).limit(1)
        row = own or connection.execute(newest).mappings().first()
    if row is None:
        raise StackError(f"the catalogue holds no completed training of {project}: look at the run {dag_run_id}")
    bucket = load_project(project).bucket
    card = json.loads(read_uri(f"{package_uri(bucket, project, row['version_id'], row['training_id'])}/model.json"))
    return Outcome(
        training_id=row["training_id"],
        earlier=own is None,
        manifest_uri=f"s3://{bucket}/{row['manifest_key']}",
        counts=row["counts"],
        result=row["result"],
        detail=card.get("threshold_detail") or {name: card[name] for name in _OF_CLASSIFIERS if name in card},
    )


def metrics_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the metrics with their 95 % intervals."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("on the test subsets, which nothing was set with")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name in [*METRIC_TITLES, *(other for other in metrics if other not in METRIC_TITLES)]:
        if metric := metrics.get(name):
            low, high = metric.get("low"), metric.get("high")
            interval = "" if low is None or high is None else f"{_number(low)} – {_number(high)}"
            table.add_row(METRIC_TITLES.get(name, name.replace("_", " ")), _number(metric["value"]), interval)
    return table


def threshold_sentence(result: Mapping[str, Any], detail: Mapping[str, Any]) -> str:
    """Return a sentence with the threshold and how it was set."""
    policy = str(result["policy"])
    sentence = f"{_number(result['threshold'])}, {_POLICIES.get(policy, policy)}"
    costs = detail.get("costs") or {}
    if policy == "least_cost" and costs:
        sentence += (
            f" (a false alarm costs {costs['cost_false_alarm']:g}, a miss {costs['cost_miss']:g}; "
            f"{percent(costs['defect_rate'])} of the parts are defective)"
        )
    if "n_validation" in detail:
        sentence += (
            f"; set on {detail['n_validation']} good and {detail.get('n_anomaly_threshold', 0)} defective images"
        )
    if kept := detail.get("promise_kept_at"):
        sentence += f"; false-positive rate promised: {percent(kept)}"
    served = (detail.get("thresholds") or {}).get(policy, {}).get("false_positive_rate")
    if served and served.get("low") is not None:
        sentence += f", expected: {percent(served['value'])} ({percent(served['low'])} – {percent(served['high'])})"
    return sentence


def certainty_sentence(detail: Mapping[str, Any]) -> str:
    """Return a sentence with a classifier's calibration, or nothing for another task."""
    if any(name not in detail for name in _OF_CLASSIFIERS):
        return ""
    return (
        f"calibrated on {detail['validation_images']} validation images by the temperature "
        f"{detail['temperature']:.3g}; the classes named beside each other hold the right one in "
        f"{percent(detail['coverage'])} of images"
    )


def promotion_sentence(result: Mapping[str, Any]) -> str:
    """Return a sentence saying whether the version was promoted, and why."""
    return f"version {result['version']} is {'champion' if result['promoted'] else 'challenger'}. {result['why']}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
