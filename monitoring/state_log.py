"""States that are recorded once a run and mailed on a change alone: those of drift reports and of accuracy checks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, select, update

from pipelines.catalogue.database import lock_project
from pipelines.catalogue.schema import now


@dataclass(frozen=True)
class StateLog:
    """A table of the catalogue with one row a run, whose column `state` is mailed when it changes.

    Attributes:
        table: has id, project, dag_run_id, state, changed and mailed_at.
        states: the states that are mailed; other rows change nothing.
        quiet: the one of them that needs no mail before any other.
    """

    table: Table
    states: tuple[str, ...]
    quiet: str

    def find(self, connection: Connection, project: str, dag_run_id: str) -> RowMapping | None:
        """Return the row of one run, or None."""
        wanted = (self.table.c.project == project, self.table.c.dag_run_id == dag_run_id)
        return connection.execute(select(self.table).where(*wanted)).mappings().first()

    def get(self, connection: Connection, row_id: int) -> RowMapping:
        """Return the row with this id."""
        return connection.execute(select(self.table).where(self.table.c.id == row_id)).mappings().one()

    def enter(self, connection: Connection, project: str, dag_run_id: str, state: str, **values: Any) -> RowMapping:
        """Insert the row of one run and return it; if the run already has one, return that.

        `changed` is whether the state differs from the last one; before the first it is `quiet`.
        """
        lock_project(connection, project)
        existing = self.find(connection, project, dag_run_id)
        if existing is not None:
            return existing
        changed = state in self.states and state != self.state_of(self.last(connection, project))
        entered = connection.execute(
            self.table.insert()
            .values(project=project, dag_run_id=dag_run_id, state=state, changed=changed, **values)
            .returning(self.table.c.id)
        )
        return self.get(connection, entered.scalar_one())

    def state_of(self, row: RowMapping | None) -> str:
        """Return the state of a row, `quiet` of none."""
        return str(row["state"]) if row else self.quiet

    def last(self, connection: Connection, project: str) -> RowMapping | None:
        """Return the newest row in one of `states`, or None."""
        wanted = (self.table.c.project == project, self.table.c.state.in_(self.states))
        query = select(self.table).where(*wanted).order_by(self.table.c.id.desc()).limit(1)
        return connection.execute(query).mappings().first()

    def last_mailed(self, connection: Connection, project: str) -> RowMapping | None:
        """Return the newest row that was mailed, or None."""
        wanted = (self.table.c.project == project, self.table.c.mailed_at.is_not(None))
        query = select(self.table).where(*wanted).order_by(self.table.c.id.desc()).limit(1)
        return connection.execute(query).mappings().first()

    def mail_due(self, connection: Connection, row: RowMapping) -> bool:
        """Return whether this row has to be mailed: its state differs from the state that was mailed last.

        If a mail could not be sent, the next run sends it; a change that was reverted before its mail went out is
        never mailed.
        """
        if row["state"] not in self.states or row["mailed_at"] is not None:
            return False
        return bool(row["state"] != self.state_of(self.last_mailed(connection, row["project"])))

    def mark_mailed(self, connection: Connection, row_id: int, when: datetime | None = None) -> None:
        """Record that this row was mailed, by default now."""
        connection.execute(update(self.table).where(self.table.c.id == row_id).values(mailed_at=when or now()))
