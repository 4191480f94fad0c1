"""The end of a run of `retrain` or `evaluate`: what came of it, and what the requests that it served are answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.requests import watch
from pipelines.steps import Kind, Outcome, Skip
from pipelines.training import runs

# Shown as failed and mailed like any other, but the model stands without them: they do not fail the run.
SIDE_TASKS = ("profile", "drift", "accuracy")


@dataclass(frozen=True)
class Closing:
    """How a run ended.

    Attributes:
        result: what its requests are answered.
        failure: why it failed, in one line; None if it did not.
    """

    result: dict[str, Any]
    failure: str | None


def close(
    project: str,
    kind: Kind,
    dag_run_id: str,
    request_ids: Iterable[int],
    *,
    states: Mapping[str, str],
    outcome: Outcome | None,
    skip: Skip | None,
    why: str | None = None,
) -> Closing:
    """End a run in the catalogue, and the requests that it served: done with its result, or failed with why.

    `states` are the states of its tasks by id, `outcome` is what `complete` returned, `skip` why the run was skipped,
    `why` what a task said of its failure beyond its name.
    """
    failed = sorted(name for name, state in states.items() if state == "failed" and name not in SIDE_TASKS)
    stopped = sorted(name for name, state in states.items() if state == "upstream_failed" and name not in SIDE_TASKS)
    reason = f"failed: {', '.join(failed)}" if failed else f"not run: {', '.join(stopped)}"
    if failed and why:
        reason = f"{reason}: {why}"
    result: dict[str, Any]
    if outcome:
        result, done = outcome.to_json() | {"dag_run_id": dag_run_id}, True
    elif skip and not failed:
        # Whoever asked gets the metrics of the run that did the same before.
        earlier = runs.outcome(skip.training_id) if skip.training_id else {}
        result, done = earlier | {"skipped": skip.reason, "link": skip.link, "dag_run_id": dag_run_id}, True
    else:
        runs.fail(project, dag_run_id, reason)
        result, done = {"why": reason, "dag_run_id": dag_run_id}, False
    watch.end_run(project, kind, dag_run_id, request_ids, done=done, result=result)
    return Closing(result, reason if failed or stopped else None)
