"""Starts `train` and `export` in a process of their own, which gives all GPU memory back when it ends."""

from collections.abc import Callable

from pipelines.steps import ModelPackage, PackRef, Run, TrainedModel
from pipelines.training.step_process import run_module

_MODULE = "pipelines.tasks"


def train(run: Run, pack: PackRef, log: Callable[[str], None]) -> TrainedModel:
    """Run `Task.train` in a process; its lines go to `log`. Raises as the step does, or StepCrashed."""
    payload = {"run": run.to_json(), "pack": pack.to_json()}
    return TrainedModel.from_json(run_module(_MODULE, payload, log, "train"))


def export(run: Run, pack: PackRef, model: TrainedModel, log: Callable[[str], None]) -> ModelPackage:
    """Run `Task.export` in a process; its lines go to `log`. Raises as the step does, or StepCrashed."""
    payload = {"run": run.to_json(), "pack": pack.to_json(), "model": model.to_json()}
    return ModelPackage.from_json(run_module(_MODULE, payload, log, "export"))
