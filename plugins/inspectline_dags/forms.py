"""The trigger forms of `retrain` and `evaluate`: parameters and their limits."""

from datetime import timedelta
from typing import Any

from airflow.sdk import Param

from monitoring.tasks import describe_task
from pipelines.config.project import Project

DAY_MINUTES = 24 * 60
_SLOW_BACKBONES = {"vgg16": " VGG16 manages 2.4 images a second on two cores, about a tenth of the default backbone."}


def longest_training(project: Project) -> float:
    """Return the longest time budget that the form accepts, in minutes: a day, or the project's own if longer."""
    return max(DAY_MINUTES, project.model.time_budget_minutes)


def training_timeout(project: Project) -> timedelta:
    """Return the time after which a training, which stops at its time budget, must be hanging."""
    return timedelta(minutes=longest_training(project) + 60)


def retrain_form(project: Project) -> dict[str, Any]:
    """Return the parameters of a retraining; an empty field takes the value of the project file."""
    model, words = project.model, describe_task(project.task)
    slow = _SLOW_BACKBONES.get(getattr(model, "backbone", ""), "")
    return {
        "epochs": Param(
            model.epochs,
            type=["integer", "null"],
            minimum=1,
            maximum=10_000,
            title="Epochs",
            description=f"{words.epochs} "
            f"Empty: {f'{model.epochs}, as the project file says' if model.epochs else 'as many as are enough'}.",
            section="Training",
        ),
        "time_budget_minutes": Param(
            model.time_budget_minutes,
            type=["number", "null"],
            exclusiveMinimum=0,
            maximum=longest_training(project),
            title="Time budget (minutes)",
            description="Training stops in good order when this time is over. "
            f"Empty: {model.time_budget_minutes:g}, as the project file says.{slow}",
            section="Training",
        ),
        "start_from": Param(
            "scratch",
            type="string",
            enum=["scratch", "champion"],
            values_display={"scratch": "From scratch", "champion": "Fine-tune the champion"},
            title="Start from",
            description=f"{words.scratch}, or the champion's weights.",
            section="Training",
        ),
        "promote": _promote(),
        "force": _force("Train even if the same data were trained with the same parameters before."),
    }


def evaluate_form() -> dict[str, Any]:
    """Return the parameters of an evaluation."""
    return {
        "promote": _promote(),
        "force": _force("Evaluate even if the same champion was evaluated on the same data before."),
    }


def _promote() -> Param:
    description = "Let the version become champion if it passes the gate. Off: only register it."
    return Param(True, type="boolean", title="Promote", description=description, section="Afterwards")


def _force(description: str) -> Param:
    return Param(False, type="boolean", title="Force", description=description, section="Afterwards")
