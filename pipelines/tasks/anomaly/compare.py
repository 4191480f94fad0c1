"""Two versions beside each other on the same test samples, and what their metrics say of promoting the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.config.metrics import ENOUGH_ANOMALIES, percent
from pipelines.config.project import PromotionRules
from pipelines.datasets.original_images import Pixels, original_images
from pipelines.errors import BadDataset, BadPackage
from pipelines.evaluation.metrics import Confusion, auroc, false_positive_rate, recall
from pipelines.evaluation.paired_bootstrap import auroc_difference
from pipelines.steps import Estimate, Run, VersionMetrics
from pipelines.tasks.anomaly.package import AnomalyPackage
from pipelines.tasks.anomaly.predict import predict
from pipelines.tasks.anomaly.subset_scoring import BATCH
from pipelines.tasks.anomaly.synthetic.fixed_set import with_defect
from pipelines.tasks.interface import Comparison, Contender

if TYPE_CHECKING:
    import pandas as pd

MOST_SYNTHETIC = 150

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredContender:
    """A version with its anomaly scores on the test samples.

    Attributes:
        version: its number in the registry.
        package: its package.
        good: scores of the good test images.
        anomalies: scores of the test anomalies.
        synthetic: scores of good test images with a synthetic defect, where these were drawn.
    """

    version: str
    package: AnomalyPackage
    good: Scores
    anomalies: Scores
    synthetic: Scores

    @property
    def promised_rate(self) -> float:
        """The false-positive rate that its threshold promises."""
        detail = self.package.card.threshold_detail
        return detail.promise_kept_at if detail else 1.0

    @property
    def verdicts(self) -> Confusion:
        return Confusion.at(self.package.card.threshold, self.good, self.anomalies)

    def metrics(self) -> VersionMetrics:
        """Return its metrics on these samples; None where the samples do not allow one."""
        good, anomalies = len(self.good), len(self.anomalies)
        synthetic = auroc(self.good, self.synthetic) if good and len(self.synthetic) else None
        return VersionMetrics(
            version=self.version,
            threshold=self.package.card.threshold,
            auroc=auroc(self.good, self.anomalies) if good and anomalies else None,
            false_positive_rate=false_positive_rate(self.verdicts) if good else None,
            recall=recall(self.verdicts) if anomalies else None,
            synthetic_auroc=synthetic,
        )


def compare(run: Run, challenger: Contender, champion: Contender | None, samples: pd.DataFrame) -> Comparison:
    """Score both versions on the test rows of a manifest, as they were sent, and judge the challenger.

    A champion that cannot score leaves the challenger to be judged alone, with the reason in `failure`. The
    challenger's own BadPackage rises.
    """
    good, anomalies = samples[samples["label"] == "good"], samples[samples["label"] == "anomaly"]
    packages = [_anomaly_package(contender) if contender else None for contender in (challenger, champion)]
    assert packages[0] is not None
    scores, champion_scores, failure = score_contenders(run.project, packages[0], packages[1], good, anomalies)
    scored_champion = None
    if champion and packages[1] and champion_scores:
        scored_champion = ScoredContender(champion.version, packages[1], *champion_scores)
    comparison = judge(
        ScoredContender(challenger.version, packages[0], *scores),
        scored_champion,
        run.settings.promotion,
        good_groups=list(good["group_key"]),
        anomaly_groups=list(anomalies["group_key"]),
    )
    return replace(comparison, failure=failure)


def _anomaly_package(contender: Contender) -> AnomalyPackage:
    if not isinstance(contender.package, AnomalyPackage):
        raise BadPackage(f"version {contender.version} is a package of another task: {contender.package.card.task}")
    return contender.package


def score_contenders(
    project: str,
    challenger: AnomalyPackage,
    champion: AnomalyPackage | None,
    good: pd.DataFrame,
    anomalies: pd.DataFrame,
) -> tuple[list[Scores], list[Scores] | None, str | None]:
    """Score the samples as they were sent, each decoded once, by both packages: good, anomalies, synthetic defects.

    Where the bit depths of the packages differ, each image is decoded at both. Synthetic defects are drawn on at most
    150 good images, in order, and only where the anomalies are too few. Returns the challenger's scores, the
    champion's, and why the champion could not score, if it could not. The challenger's own BadPackage rises.
    """
    packages: list[AnomalyPackage | None] = [challenger, champion]
    failure = None
    alike = champion is None or champion.card.bits == challenger.card.bits
    results: list[list[Scores]] = [[], []]
    twins = MOST_SYNTHETIC if len(anomalies) < ENOUGH_ANOMALIES else 0
    parts: list[tuple[pd.DataFrame, bool]] = [(good, False), (anomalies, False), (good.head(twins), True)]
    for rows, defective in parts:
        scores: list[list[float]] = [[], []]
        for numbers in ([0, 1],) if alike else ([0], [1]):
            first = packages[numbers[0]]
            if first is None:
                continue
            try:
                for images in _batches(project, rows, first.card.bits, defective):
                    for number in numbers:
                        package = packages[number]
                        if package is None:
                            continue
                        try:
                            scores[number] += [prediction.score for prediction in predict(package, images)]
                        except BadPackage as error:
                            if package is challenger:
                                raise
                            packages[number], failure = None, str(error)
            except BadDataset as error:
                if 0 in numbers:
                    raise
                packages[1], failure = None, str(error)  # beyond the champion's bit depth
        for number in range(2):
            results[number].append(np.array(scores[number], dtype=np.float64))
    return results[0], results[1] if packages[1] is not None else None, failure


def _batches(project: str, rows: pd.DataFrame, bits: int | None, defective: bool) -> Iterator[list[Pixels]]:
    """Yield the images of samples at a bit depth, with a synthetic defect on each if `defective`."""
    pairs = zip(original_images(project, rows, bits), rows["sha256"], strict=True)
    while batch := list(islice(pairs, BATCH)):
        yield [with_defect(pixels, sha256)[0] if defective else pixels for pixels, sha256 in batch]


def judge(
    challenger: ScoredContender,
    champion: ScoredContender | None,
    rules: PromotionRules,
    *,
    good_groups: list[str],
    anomaly_groups: list[str],
) -> Comparison:
    """Judge the challenger by its metrics, and beside the champion's if there is one."""
    notes: list[str] = []

    def result(fit: bool, reasons: list[str], basis: str, difference: Estimate | None) -> Comparison:
        champion_metrics = champion.metrics() if champion else None
        return Comparison(fit, reasons, basis, difference, challenger.metrics(), champion_metrics, notes=notes)

    n_good, n_anomalies = len(challenger.good), len(challenger.anomalies)
    if not n_good:
        return result(False, ["there are no good test images to judge it on"], "nothing", None)
    rate = false_positive_rate(challenger.verdicts)
    # Only evidence counts against it: a rate above the promise by chance does not.
    breaks_promise = rate.low > challenger.promised_rate
    told_rate = (
        f"its false-positive rate on {n_good} good test images, {percent(rate.value)} ({percent(rate.low)} to"
        f" {percent(rate.high)}), is above the promised {percent(challenger.promised_rate)}"
    )
    reasons = []
    if n_anomalies >= ENOUGH_ANOMALIES:
        basis = f"{n_anomalies} test anomalies and {n_good} good test images"
        kind, groups, pick = "AUROC", anomaly_groups, _real
        if breaks_promise:
            notes.append(f"Mind that {told_rate}.")
    else:
        basis = f"{len(challenger.synthetic)} synthetic defects and {n_good} good test images"
        notes.append(
            f"There are {n_anomalies} test anomalies and {ENOUGH_ANOMALIES} are needed to decide on them: the"
            " false-positive rate on good test images and a fixed set of synthetic defects decide."
        )
        kind, groups, pick = "AUROC on synthetic defects", good_groups[: len(challenger.synthetic)], _synthetic
        if breaks_promise:
            reasons.append(told_rate)
    area = auroc(challenger.good, pick(challenger))
    if area.value < rules.minimum_auroc:
        reasons.append(f"its {kind}, {area}, is below the project's minimum of {rules.minimum_auroc:g}")
    difference = None
    if champion is not None:
        difference = auroc_difference(
            (challenger.good, champion.good),
            (pick(challenger), pick(champion)),
            good_groups=good_groups,
            anomaly_groups=groups,
            samples=rules.bootstrap_samples,
        )
        if difference.low < -rules.margin:
            reasons.append(
                f"its {kind} may be worse than that of champion version {champion.version} by more than the margin of"
                f" {rules.margin:g}: difference {difference}"
            )
    if reasons:
        return result(False, reasons, basis, difference)
    met = [f"its {kind}, {area}, meets the minimum of {rules.minimum_auroc:g}"]
    if champion is not None:
        met.append(
            f"it is not worse than champion version {champion.version} beyond the margin of {rules.margin:g}:"
            f" difference {difference}"
        )
    return result(True, met, basis, difference)


def _real(contender: ScoredContender) -> np.ndarray:
    return contender.anomalies


def _synthetic(contender: ScoredContender) -> np.ndarray:
    return contender.synthetic
