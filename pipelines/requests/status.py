"""What became of a request for a retraining or an evaluation, as whoever asked is told."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import and_, select

from pipelines.catalogue import connect
from pipelines.catalogue.schema import requests, trainings

_ENDED = ("done", "failed")
_LARGEST_ID = 2**63 - 1
# The metrics that every answer names, by the names of the answer: those of an anomaly detector, None of other tasks.
_METRICS = {
    "new_validation_error": "reconstruction_error_validation",
    "new_anomaly_error": "reconstruction_error_anomaly",
}
# The metrics that an answer names where the run has them: those of a classifier.
_FURTHER_METRICS = ("accuracy", "macro_f1")


def find_job(project: str, number: int) -> dict[str, Any] | None:
    """Return a job of `project`, or None if there is none.

    `state` is pending (waiting, or claimed by a run that has not fixed its dataset yet), running, done or failed;
    `progress` how far its training is, where that is known; `result` what `answer` makes of a job that is done, `error`
    why one failed; `sample` what became of the image that came with it.
    """
    if not 0 < number <= _LARGEST_ID:
        return None
    same_run = and_(trainings.c.project == requests.c.project, trainings.c.dag_run_id == requests.c.dag_run_id)
    with connect() as connection:
        row = (
            connection.execute(
                select(
                    requests, trainings.c.progress, trainings.c.training_id, trainings.c.state.label("training_state")
                )
                .outerjoin(trainings, same_run)
                .where(requests.c.project == project, requests.c.id == number)
            )
            .mappings()
            .first()
        )
    if row is None:
        return None
    ended = row["state"] in _ENDED
    state = row["state"] if ended else "running" if row["started_at"] else "pending"
    result = row["result"] or {}
    return {
        "job": row["id"],
        "project": row["project"],
        "kind": row["kind"],
        "state": state,
        "progress": row["progress"] if state == "running" and row["training_state"] == "running" else None,
        "result": answer(result) if state == "done" else None,
        "error": str(result.get("why") or "it failed; the run's log says why") if state == "failed" else None,
        "sample": row["sample"],
        "created_by": row["created_by"],
        "created_at": _text(row["created_at"]),
        "started_at": _text(row["started_at"]),
        "finished_at": _text(row["finished_at"]),
        "run": row["dag_run_id"],
    }


def answer(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a run's result says to whoever asked for it; what it does not say is None.

    `new_validation_error` and `new_anomaly_error` are the new version's mean reconstruction errors on the validation
    set and on the test anomalies; a classifier has `accuracy` and `macro_f1` on the test images instead. `skipped` says
    why a run had nothing to do: the metrics are then those of the run
    that had done the same, if there was one.
    """
    metrics = result.get("metrics") or {}
    values = {name: (metrics.get(metric) or {}).get("value") for name, metric in _METRICS.items()}
    values |= {name: metrics[name].get("value") for name in _FURTHER_METRICS if name in metrics}
    return values | {
        "promoted": result.get("promoted"),
        "model_version": result.get("version"),
        "threshold": result.get("threshold"),
        "why": result.get("why"),
        "skipped": result.get("skipped"),
    }


def is_ended(project: str, number: int) -> bool:
    """Tell whether a request has ended; cheap enough to be asked every second."""
    with connect() as connection:
        state = select(requests.c.state).where(requests.c.project == project, requests.c.id == number)
        return connection.execute(state).scalar() in _ENDED


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment else None
