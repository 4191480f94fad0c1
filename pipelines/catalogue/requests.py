"""Requests: rows that ask for a retraining or an evaluation; `watch` claims them, the run that it starts ends them."""

from typing import Any

from sqlalchemy import Connection, RowMapping, func, select, update

from pipelines.catalogue.schema import now, requests


def ask(connection: Connection, project: str, kind: str, payload: dict[str, Any], created_by: str | None = None) -> int:
    """Enter a request of `kind` (retrain or evaluate) and return its id."""
    if kind not in ("retrain", "evaluate"):
        raise ValueError(f"kind is {kind!r}: ask for retrain or evaluate")
    entered = connection.execute(
        requests.insert()
        .values(project=project, kind=kind, state="pending", payload=payload, created_by=created_by)
        .returning(requests.c.id)
    )
    return int(entered.scalar_one())


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

    They are served by the run `dag_run_id`; requests with another payload wait for a run of their own.
    """
    waiting = connection.execute(
        select(requests.c.id, requests.c.payload)
        .where(requests.c.project == project, requests.c.kind == kind, requests.c.state == "pending")
        .order_by(requests.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    ids = [row.id for row in waiting if row.payload == waiting[0].payload]
    connection.execute(
        update(requests).where(requests.c.id.in_(ids)).values(state="claimed", claimed_at=now(), dag_run_id=dag_run_id)
    )
    return ids


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
