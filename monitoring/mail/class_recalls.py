"""The recall of each class, worst first, for the mail about a training."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.steps import Estimate, EvaluationReport

_SHOWN = 12  # classes; MLflow's table of the run has them all
_CONFUSIONS = 2


@dataclass(frozen=True)
class ClassRecall:
    """How many images of a class were found.

    Attributes:
        name: the class.
        n: number of its test images.
        found: number of those that were found.
        recall: found / n, with its 95 % confidence interval.
        taken_for: what the others were most often taken for, with their number.
    """

    name: str
    n: int
    found: int
    recall: Estimate
    taken_for: tuple[tuple[str, int], ...]


def class_recalls(report: EvaluationReport) -> list[ClassRecall]:
    """Return the classes with the lowest recall, lowest first, at most 12."""
    rows = sorted(report.by_type.items(), key=lambda item: (item[1]["value"], item[0]))[:_SHOWN]
    return [
        ClassRecall(
            name,
            int(row["n"]),
            int(row["found"]),
            Estimate(row["value"], row["low"], row["high"]),
            _taken_for(name, report.confusion, list(report.by_type)),
        )
        for name, row in rows
    ]


def _taken_for(name: str, confusion: dict[str, int], names: list[str]) -> tuple[tuple[str, int], ...]:
    """Return the most frequent wrong predictions of a class; keys of `confusion` are `<class>/<predicted class>`."""
    # Class names may hold a slash: of two classes that fit, the longer one is meant.
    longer = [other for other in names if other != name and other.startswith(f"{name}/")]
    counts = {
        key.removeprefix(f"{name}/"): count
        for key, count in confusion.items()
        if key.startswith(f"{name}/") and not any(key.startswith(f"{other}/") for other in longer)
    }
    counts.pop(name, None)
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_CONFUSIONS])
