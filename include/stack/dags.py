"""Await, inspect and unpause a project's DAGs in a running Airflow."""

import time
from graphlib import TopologicalSorter
from typing import Any

from include.stack.airflow_rest import Airflow
from include.stack.errors import StackError

KINDS = ("ingest", "retrain", "watch", "evaluate", "drift")
_APPEAR_SECONDS = 180.0


def await_dag(airflow: Airflow, dag_id: str, seconds: float = _APPEAR_SECONDS) -> dict[str, Any]:
    """Return a DAG's details once Airflow has parsed it; the DAG files are parsed anew for a new project.

    Raises:
        StackError: it does not appear, with Airflow's import error if there is one.
    """
    end = time.monotonic() + seconds
    asked: set[str] = set()
    while True:
        details = airflow.dag(dag_id)
        if details is not None:
            return details
        kind = dag_id.rpartition("_")[2]
        for other in airflow.dags(f"%\\_{kind}"):
            if other["file_token"] not in asked:
                asked.add(other["file_token"])
                airflow.parse_again(other["file_token"])
        if time.monotonic() > end:
            errors = airflow.import_errors()
            raise StackError(f"Airflow has no DAG {dag_id}: {errors[0] if errors else 'see log/dag-processor.log'}")
        time.sleep(1.5)


def unpause(airflow: Airflow, project: str, kinds: tuple[str, ...] = KINDS) -> None:
    """Unpause a project's DAGs."""
    for kind in kinds:
        dag = await_dag(airflow, f"{project}_{kind}")
        if dag["is_paused"]:
            airflow.unpause(dag["dag_id"])


def task_order(airflow: Airflow, dag_id: str) -> list[str]:
    """Return the ids of a DAG's tasks in topological order."""
    tasks = airflow.tasks(dag_id)
    waits: dict[str, list[str]] = {task["task_id"]: [] for task in tasks}
    for task in tasks:
        for after in task["downstream_task_ids"]:
            waits[after].append(task["task_id"])
    return list(TopologicalSorter(waits).static_order())
