"""Runs one step of a task in a process of its own, as the Airflow tasks `train` and `export` do:

python -m pipelines.tasks train <run.json> <pack.json> <result.json>
python -m pipelines.tasks export <run.json> <pack.json> <model.json> <result.json>
"""

import sys
from typing import Any

from pipelines.steps import PackRef, Run, TrainedModel
from pipelines.tasks import find_task
from pipelines.training.step_process import main


def train(run: dict[str, Any], pack: dict[str, Any]) -> dict[str, Any]:
    """Train; takes and returns what JSON holds."""
    begun = Run.from_json(run)
    return find_task(begun.task).train(begun, PackRef.from_json(pack)).to_json()


def export(run: dict[str, Any], pack: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Export; takes and returns what JSON holds."""
    begun = Run.from_json(run)
    return find_task(begun.task).export(begun, PackRef.from_json(pack), TrainedModel.from_json(model)).to_json()


if __name__ == "__main__":
    name = sys.argv.pop(1)
    main(train if name == "train" else export)
