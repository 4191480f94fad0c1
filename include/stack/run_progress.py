"""Summarise the progress of a DAG run, one row per task, from its task instances in Airflow's REST API."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

WAITING = ("none", "scheduled", "queued", "up_for_retry", "up_for_reschedule", "deferred")
FAILED = ("failed", "upstream_failed")
# The state of a mapped task whose instances differ is the first of these that any instance is in.
_LOUDEST = ("failed", "running", "restarting", "up_for_retry", "queued", "scheduled", "deferred", "none")


@dataclass(frozen=True)
class TaskRow:
    """A task of a run: its state as Airflow names it (`none` before it has one), how long it has run, and a remark."""

    task_id: str
    state: str
    seconds: float | None = None
    note: str = ""
    attempt: int = 0

    @property
    def ended(self) -> bool:
        """Return whether the task has finished."""
        return self.state in (*FAILED, "success", "skipped", "removed")


def task_rows(
    order: Sequence[str], instances: Iterable[Mapping[str, Any]], now: datetime | None = None
) -> list[TaskRow]:
    """Return one row per task in `order`; mapped instances are aggregated."""
    moment = now or datetime.now(UTC)
    by_task: dict[str, list[Mapping[str, Any]]] = {task_id: [] for task_id in order}
    for instance in instances:
        by_task.setdefault(instance["task_id"], []).append(instance)
    return [_row(task_id, of_task, moment) for task_id, of_task in by_task.items()]


def _row(task_id: str, instances: Sequence[Mapping[str, Any]], now: datetime) -> TaskRow:
    states = Counter(instance["state"] or "none" for instance in instances)
    if not states:
        return TaskRow(task_id, "none")
    state = next((name for name in _LOUDEST if states[name]), None) or states.most_common(1)[0][0]
    attempt = max(int(instance.get("try_number") or 0) for instance in instances)
    notes = []
    if any(instance["map_index"] >= 0 for instance in instances):
        ended = sum(count for name, count in states.items() if name in ("success", "skipped", *FAILED))
        notes.append(f"{ended} of {len(instances)}")
        if 0 < ended < len(instances) and state in WAITING:
            state = "running"
    if attempt > 1:
        notes.append(f"try {attempt}")
    return TaskRow(task_id, state, _seconds(instances, now), ", ".join(notes), attempt)


def _seconds(instances: Sequence[Mapping[str, Any]], now: datetime) -> float | None:
    """Return the time from the first start to the last end, or until `now`."""
    begun = [datetime.fromisoformat(each["start_date"]) for each in instances if each["start_date"]]
    if not begun:
        return None
    ended = [datetime.fromisoformat(each["end_date"]) for each in instances if each["end_date"]]
    running = any(each["state"] in ("running", "restarting") for each in instances)
    end = now if running or not ended else max(ended)
    return max(0.0, (end - min(begun)).total_seconds())
