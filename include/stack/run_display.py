"""Display a running DAG run: a live table on a terminal, one line per step elsewhere."""

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from include.stack import dags
from include.stack.airflow_rest import Airflow
from include.stack.run_progress import WAITING, TaskRow, task_rows

_POLL = 1.0  # seconds
_LOG_EVERY = 3.0
_LINE_EVERY = 20.0  # for progress where there is no terminal
_PROGRESS_WORD = "epoch "
_LOOKS = {
    "success": ("✓", "green"),
    "failed": ("✗", "red"),
    "upstream_failed": ("✗", "red"),
    "skipped": ("–", "bright_black"),
    "removed": ("–", "bright_black"),
    "up_for_retry": ("↻", "yellow"),
}


class RunDisplay:
    """A live display of one run, refreshed by `update`."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._spinner = Spinner("dots")
        self._said: dict[str, str] = {}
        self._last_note = 0.0
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal else None

    def __enter__(self) -> "RunDisplay":
        if self._live:
            self._live.start()
        else:
            self._console.print(self._title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, rows: Sequence[TaskRow], remark: str = "") -> None:
        """Refresh the display; `remark` says what the run is waiting for, if anything."""
        if self._live:
            self._live.update(Group(Text(self._title, style="bold"), self._table(rows), Text(remark, style="yellow")))
            return
        if remark and self._said.get("") != remark:
            self._console.print(f"  {remark}")
        self._said[""] = remark
        for row in rows:
            self._say(row)

    def _say(self, row: TaskRow) -> None:
        """Print a row's line if it has changed."""
        if row.ended or row.state == "up_for_retry":
            if self._said.get(row.task_id) != f"{row.state} {row.attempt}":
                self._said[row.task_id] = f"{row.state} {row.attempt}"
                mark = _LOOKS[row.state][0]
                self._console.print(f"  {mark} {row.task_id}: {row.state.replace('_', ' ')}{_remark(row)}")
        elif row.state == "running" and _PROGRESS_WORD in row.note and time.monotonic() - self._last_note > _LINE_EVERY:
            self._last_note = time.monotonic()
            self._console.print(f"    {row.task_id}: {row.note}")

    def _table(self, rows: Sequence[TaskRow]) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=2)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for row in rows:
            mark, colour = _LOOKS.get(row.state, ("·", "bright_black"))
            state = "" if row.state == "none" else row.state.replace("_", " ")
            if row.state in ("running", "restarting"):
                first, colour = self._spinner, "cyan"
            else:
                first = Text(f" {mark}", style=colour)  # type: ignore[assignment]
            taken = "" if row.seconds is None else f"{row.seconds:.0f} s"
            name_style = "bright_black" if row.state in ("none", "skipped") else ""
            table.add_row(first, Text(row.task_id, name_style), Text(state, colour), taken, Text(row.note, "cyan"))
        return table


def follow(airflow: Airflow, dag_id: str, run_id: str, display: RunDisplay) -> tuple[str, list[TaskRow]]:
    """Display a run until it finishes, and return its final state and rows."""
    order = dags.task_order(airflow, dag_id)
    noted: dict[str, str] = {}
    logged = 0.0
    while True:
        run = airflow.run(dag_id, run_id)
        rows = task_rows(order, airflow.task_instances(dag_id, run_id))
        if time.monotonic() - logged > _LOG_EVERY:
            noted = {row.task_id: _last_progress(airflow, dag_id, run_id, row) for row in rows if _reports(row)}
            logged = time.monotonic()
        rows = [_with_note(row, noted.get(row.task_id, "")) for row in rows]
        display.update(rows, _held_up(airflow, dag_id, run_id, str(run["state"])))
        if run["state"] in ("success", "failed"):
            return str(run["state"]), rows
        time.sleep(_POLL)


def _reports(row: TaskRow) -> bool:
    return row.task_id == "train" and row.state == "running"


def _last_progress(airflow: Airflow, dag_id: str, run_id: str, row: TaskRow) -> str:
    lines = airflow.log_lines(dag_id, run_id, row.task_id, row.attempt)
    return next((line.strip() for line in reversed(lines) if _PROGRESS_WORD in line), "")


def _with_note(row: TaskRow, note: str) -> TaskRow:
    if not note or row.state != "running":
        return row
    return TaskRow(row.task_id, row.state, row.seconds, f"{row.note} {note}".strip(), row.attempt)


def _held_up(airflow: Airflow, dag_id: str, run_id: str, state: str) -> str:
    """Return which run this queued one waits for, since one runs at a time; empty if none."""
    if state != "queued":
        return ""
    first = next((run for run in airflow.active_runs(dag_id) if run["state"] == "running"), None)
    if first is None or first["dag_run_id"] == run_id:
        return ""
    return f"waiting for the run {first['dag_run_id']}, which began earlier; one runs at a time"


def _remark(row: TaskRow) -> str:
    parts = [] if row.seconds is None or row.state in ("skipped", *WAITING) else [f"{row.seconds:.0f} s"]
    parts += [row.note] if row.note else []
    return f" ({', '.join(parts)})" if parts else ""
