"""What `watch` waits for: enough new images, or a request. Counting, claiming, and ending what was claimed.

A claim is one transaction: the new images are marked as fired (they never fire again, whatever becomes of the run), a
request row is entered in their name, and the waiting requests are claimed. All rows bear the id of the run that is to
serve them, so that a claim repeated by a retried task gives the same answer as before.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from pipelines.catalogue import connect, transaction
from pipelines.catalogue import requests as rows
from pipelines.catalogue.database import lock_project
from pipelines.catalogue.samples import mark_fired, new_images
from pipelines.catalogue.schema import requests as table
from pipelines.catalogue.schema import trainings
from pipelines.config.project import load_project

# What a request's payload may say; each DAG's form has the same names.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "retrain": ("epochs", "time_budget_minutes", "start_from", "promote", "force"),
    "evaluate": ("promote", "force"),
}
CREATED_BY_WATCH = "watch"


def state(project: str) -> dict[str, Any]:
    """Count what waits: `new_images` that have not fired yet, `needed` for a training, waiting `requests` by kind.

    Raises:
        SettingsError: the project's file is wrong.
        CatalogueError: the database cannot be reached.
    """
    needed = load_project(project).retrain.new_images
    with connect() as connection:
        return {
            "new_images": len(new_images(connection, project, unfired=True)),
            "needed": needed,
            "requests": rows.pending(connection, project),
        }


def is_due(state: dict[str, Any]) -> bool:
    """Tell whether `state` calls for a run."""
    return state["new_images"] >= state["needed"] or any(state["requests"].values())


def describe(state: dict[str, Any]) -> str:
    """Put `state` in words: `312 of 500 new images`, and the requests if there are any."""
    words = f"{state['new_images']} of {state['needed']} new images"
    waiting = [f"{count} to {kind}" for kind, count in state["requests"].items() if count]
    return f"{words}; requests: {', '.join(waiting)}" if waiting else words


def claim(project: str, run_id: str) -> dict[str, Any]:
    """Claim, for the runs that the watch run `run_id` is about to start, what waits now.

    Requests of one kind that ask for the same parameters share a run, also one that was claimed before and has not
    fixed its dataset yet; one that asks for others waits for its own.

    Returns:
        retrain, evaluate: what to start such a run with (the parameters asked for, `request_ids`, `reason`), or None;
        retrain_run_id, evaluate_run_id: the id that the run is to have; reason: of both together.
    """
    needed = load_project(project).retrain.new_images
    started = {kind: f"watch_{kind}__{run_id.rpartition('__')[2]}" for kind in PARAMETERS}
    with transaction() as connection:
        lock_project(connection, project)
        claimed = _claimed(connection, project, started)
        if not claimed:
            fresh = new_images(connection, project, unfired=True)
            if len(fresh) >= needed:
                mark_fired(connection, fresh)
                by = f"{CREATED_BY_WATCH}: {len(fresh)} new images"
                rows.ask(connection, project, "retrain", {}, created_by=by)
            for kind, started_run in started.items():
                rows.claim(connection, project, kind, started_run)
            claimed = _claimed(connection, project, started)
    conf = {kind: _conf(kind, claimed[kind]) if kind in claimed else None for kind in PARAMETERS}
    reasons = [parameters["reason"] for parameters in conf.values() if parameters]
    run_ids = {f"{kind}_run_id": started_run for kind, started_run in started.items()}
    return conf | run_ids | {"reason": "; ".join(reasons) or "nothing waits"}


def begin(project: str, kind: str, dag_run_id: str, request_ids: Iterable[int] = ()) -> None:
    """Note that a run fixes its dataset now: who asks from here on asks for another run."""
    with transaction() as connection:
        lock_project(connection, project)
        rows.begin(connection, project, kind, dag_run_id, list(request_ids))


def end(request_ids: list[int], *, done: bool, result: dict[str, Any]) -> None:
    """End the requests that a run served, with what came of it; those that ended before stay as they are."""
    if request_ids:
        with transaction() as connection:
            rows.finish(connection, request_ids, done=done, result=result)


def end_run(
    project: str, kind: str, dag_run_id: str, request_ids: Iterable[int], *, done: bool, result: dict[str, Any]
) -> None:
    """End all requests that the run `dag_run_id` served: those that it was started for and those that joined it."""
    with transaction() as connection:
        lock_project(connection, project)
        joined = rows.claimed_for(connection, project, kind, dag_run_id)
        rows.finish(connection, [*request_ids, *joined], done=done, result=result)


def unsettled(project: str) -> list[tuple[str, str]]:
    """Return kind and id of the runs that requests or trainings say are under way; Airflow may know better."""
    with connect() as connection:
        asked = select(table.c.kind, table.c.dag_run_id).where(table.c.project == project, table.c.state == "claimed")
        begun = select(trainings.c.kind, trainings.c.dag_run_id).where(
            trainings.c.project == project, trainings.c.state == "running"
        )
        rows_found = connection.execute(asked.union(begun)).all()
    return sorted((kind, run_id) for kind, run_id in rows_found if run_id)


def settle(project: str, kind: str, dag_run_id: str, why: str) -> None:
    """Fail the requests and the training of a run that is over, but could not say itself what became of it."""
    from pipelines.training.runs import fail

    with transaction() as connection:
        ids = rows.claimed_for(connection, project, kind, dag_run_id)
        rows.finish(connection, ids, done=False, result={"why": why, "dag_run_id": dag_run_id})
    fail(project, dag_run_id, why)


def _claimed(connection: Connection, project: str, started: dict[str, str]) -> dict[str, list[RowMapping]]:
    """Return the requests that the `started` runs serve, by kind, oldest first."""
    rows_claimed = connection.execute(
        select(table)
        .where(table.c.project == project, table.c.dag_run_id.in_(started.values()), table.c.state == "claimed")
        .order_by(table.c.id)
    ).mappings()
    claimed: dict[str, list[RowMapping]] = {}
    for row in rows_claimed:
        claimed.setdefault(row["kind"], []).append(row)
    return claimed


def _conf(kind: str, claimed: list[RowMapping]) -> dict[str, Any]:
    asked = {name: claimed[0]["payload"][name] for name in PARAMETERS[kind] if name in claimed[0]["payload"]}
    reasons = dict.fromkeys(row["created_by"] or "a request" for row in claimed)
    return asked | {"request_ids": [row["id"] for row in claimed], "reason": f"{kind}: {', '.join(reasons)}"}
