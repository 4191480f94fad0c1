"""Buttons on a task in Airflow's UI that open the task's results."""

from typing import Any

from airflow.sdk import BaseOperatorLink


class StepLink(BaseOperatorLink):
    """A button on a task in the UI; the step gives its address by pushing it to XCom under `key`.

    Args:
        name: what the button says.
        key: the XCom key.
    """

    def __init__(self, name: str, key: str) -> None:
        self._name = name
        self._key = key

    @property
    def name(self) -> str:
        """What the button says."""
        return self._name

    @property
    def xcom_key(self) -> str:
        """Where Airflow's UI finds the address."""
        return f"_link_{self._key}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address that the step pushed, or nothing; `ti_key` is the task instance when a task ends."""
        return ti_key.xcom_pull(task_ids=operator.task_id, key=self._key, map_indexes=ti_key.map_index) or ""


def linked(output: Any, **buttons: str) -> Any:
    """Give the task behind `made` buttons, by XCom key what the button says, and return `made`."""
    output.operator.operator_extra_links = tuple(StepLink(name, key) for key, name in buttons.items())
    return output
