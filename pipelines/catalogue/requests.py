"""Requests: rows that ask for a retraining or an evaluation; `watch` claims them, and the run it starts finishes them.

A request that arrives while a run is claimed but has not fixed its dataset yet joins that run if it has the same
payload. Any number of requests during a training thus lead to a single further training.
"""

from typing import Any

from sqlalchemy import Connection, RowMapping, func, or_, select, update

from pipelines.catalogue.schema import now, requests


def ask(
    connection: Connection,
    project: str,
    kind: str,
    payload: dict[str, Any],
    created_by: str | None = None,
    sample: dict[str, Any] | None = None,
) -> int:
    """Insert a request and return its id.

    Args:
        connection: a write transaction.
        project: name of the project.
        kind: retrain or evaluate.
        payload: parameters of the run.
        created_by: name of the account that sent the request. Default None.
        sample: state of the image sent along, including its `sha256`. Default None.

    Raises:
        ValueError: `kind` is neither retrain nor evaluate.
    """
    if kind not in ("retrain", "evaluate"):
        raise ValueError(f"kind is {kind!r}: ask for retrain or evaluate")
    origin = {"created_by": created_by, "sha256": sample["sha256"] if sample else None, "sample": sample}
    entered = connection.execute(
        requests.insert()
        .values(project=project, kind=kind, state="pending", payload=payload, **origin)
        .returning(requests.c.id)
    )
    return int(entered.scalar_one())


def ask_once(connection: Connection, project: str, kind: str, created_by: str | None, sample: dict[str, Any]) -> int:
    """Return the id of this sender's open request for the same sample, inserting one if there is none.

    This makes retries after a lost answer idempotent. The caller holds the project's lock.
    """
    request_id = connection.execute(
        select(requests.c.id)
        .where(
            requests.c.project == project,
            requests.c.kind == kind,
            requests.c.state.in_(("pending", "claimed")),
            requests.c.started_at.is_(None),
            requests.c.sha256 == sample["sha256"],
            requests.c.created_by == created_by,
        )
        .limit(1)
    ).scalar()
    return int(request_id) if request_id is not None else ask(connection, project, kind, {}, created_by, sample)


def pending(connection: Connection, project: str) -> dict[str, int]:
    """Count the pending requests of each kind."""
    counts = connection.execute(
        select(requests.c.kind, func.count())
        .where(requests.c.project == project, requests.c.state == "pending")
        .group_by(requests.c.kind)
    ).all()
    return {"retrain": 0, "evaluate": 0} | {str(kind): int(count) for kind, count in counts}


def claim(connection: Connection, project: str, kind: str, dag_run_id: str) -> list[int]:
    """Claim the oldest pending request of `kind` and all with the same payload for run `dag_run_id`; return their ids.

    Requests with another payload stay pending. Those with the payload of an already claimed run that has not begun are
    claimed for that run and not returned. The caller holds the project's lock.
    """
    waiting = connection.execute(
        select(requests.c.id, requests.c.payload)
        .where(requests.c.project == project, requests.c.kind == kind, requests.c.state == "pending")
        .order_by(requests.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    ahead = connection.execute(
        select(requests.c.payload, requests.c.dag_run_id).where(
            requests.c.project == project,
            requests.c.kind == kind,
            requests.c.state == "claimed",
            requests.c.started_at.is_(None),
        )
    ).all()
    own: list[int] = []
    payload = None
    for row in waiting:
        run = next((other.dag_run_id for other in ahead if other.payload == row.payload), None)
        if run is None:
            if own and row.payload != payload:
                continue
            own, payload, run = [*own, row.id], row.payload, dag_run_id
        claimed = {"state": "claimed", "claimed_at": now(), "dag_run_id": run}
        connection.execute(update(requests).where(requests.c.id == row.id).values(claimed))
    return own


def begin(connection: Connection, project: str, kind: str, dag_run_id: str, ids: list[int]) -> None:
    """Mark the requests claimed for run `dag_run_id`, and `ids`, as started; later requests need another run.

    Called when the run fixes its dataset. The caller holds the project's lock.
    """
    of_kind = (requests.c.project == project, requests.c.kind == kind, requests.c.state.in_(("pending", "claimed")))
    connection.execute(
        update(requests)
        .where(*of_kind, or_(requests.c.dag_run_id == dag_run_id, requests.c.id.in_(ids)))
        .values(
            state="claimed",
            dag_run_id=dag_run_id,
            claimed_at=func.coalesce(requests.c.claimed_at, now()),
            started_at=func.coalesce(requests.c.started_at, now()),
        )
    )


def claimed_for(connection: Connection, project: str, kind: str, dag_run_id: str) -> list[int]:
    """Return the ids of the unfinished requests claimed for run `dag_run_id`."""
    query = select(requests.c.id).where(
        requests.c.project == project,
        requests.c.kind == kind,
        requests.c.dag_run_id == dag_run_id,
        requests.c.state == "claimed",
    )
    return [int(number) for number in connection.execute(query).scalars()]


def finish(connection: Connection, ids: list[int], *, done: bool, result: dict[str, Any]) -> None:
    """Finish these requests with their result; those already finished stay unchanged."""
    connection.execute(
        update(requests)
        .where(requests.c.id.in_(ids), requests.c.state.in_(("pending", "claimed")))
        .values(state="done" if done else "failed", result=result, finished_at=now())
    )


def find(connection: Connection, project: str, request_id: int) -> RowMapping | None:
    """Return one request, or None."""
    return (
        connection.execute(select(requests).where(requests.c.project == project, requests.c.id == request_id))
        .mappings()
        .first()
    )
