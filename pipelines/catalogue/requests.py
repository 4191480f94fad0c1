"""Requests: rows that ask for a retraining or an evaluation; `watch` claims them, the run that it starts ends them.

Those that come while a run is claimed but has not fixed its dataset yet join that run if they ask for the same: so
however many come while a training runs, they become one further training.
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
    """Enter a request of `kind` (retrain or evaluate) and return its id.

    `sample` is what became of the image that came with it, and holds its `sha256`.
    """
    if kind not in ("retrain", "evaluate"):
        raise ValueError(f"kind is {kind!r}: ask for retrain or evaluate")
    told = {"created_by": created_by, "sha256": sample["sha256"] if sample else None, "sample": sample}
    entered = connection.execute(
        requests.insert()
        .values(project=project, kind=kind, state="pending", payload=payload, **told)
        .returning(requests.c.id)
    )
    return int(entered.scalar_one())


def ask_once(connection: Connection, project: str, kind: str, created_by: str | None, sample: dict[str, Any]) -> int:
    """Return the request that came with this very sample from this sender and has not begun, entered if there is none.

    So a sender who got no answer may send again. The caller holds the project's lock.
    """
    found = connection.execute(
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
    return int(found) if found is not None else ask(connection, project, kind, {}, created_by, sample)


def pending(connection: Connection, project: str) -> dict[str, int]:
    """Return how many requests of each kind wait."""
    found = connection.execute(
        select(requests.c.kind, func.count())
        .where(requests.c.project == project, requests.c.state == "pending")
        .group_by(requests.c.kind)
    ).all()
    return {"retrain": 0, "evaluate": 0} | {str(kind): int(count) for kind, count in found}


def claim(connection: Connection, project: str, kind: str, dag_run_id: str) -> list[int]:
    """Claim the oldest waiting request of `kind` and all that ask for the same; return their ids.

    They are served by the run `dag_run_id`; requests with another payload wait for a run of their own. Those that a run
    which has not begun can serve are claimed for that one, and not returned. The caller holds the project's lock.
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
    """Note that the run `dag_run_id` fixes its dataset now: it serves what it was claimed for and `ids`, nothing more.

    The caller holds the project's lock.
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
    """Return the requests that the run `dag_run_id` is to serve and has not ended."""
    found = select(requests.c.id).where(
        requests.c.project == project,
        requests.c.kind == kind,
        requests.c.dag_run_id == dag_run_id,
        requests.c.state == "claimed",
    )
    return [int(number) for number in connection.execute(found).scalars()]


def finish(connection: Connection, ids: list[int], *, done: bool, result: dict[str, Any]) -> None:
    """End these requests with what came of them; one that has ended already stays as it is."""
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
