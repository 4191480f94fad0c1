"""Buttons on a task in Airflow's UI that open the task's results."""

from typing import Any

from airflow.sdk import BaseOperatorLink


class StepLink(BaseOperatorLink):
    """A button on a task in the UI; the task provides its address by pushing it to XCom under `key`.

    Args:
        name: label of the button.
        key: the XCom key.
    """

    def __init__(self, name: str, key: str) -> None:
        self._name = name
        self._key = key

    @property
    def name(self) -> str:
        """Label of the button."""
        return self._name

    @property
    def xcom_key(self) -> str:
        """XCom key from which Airflow's UI reads the address."""
        return f"_link_{self._key}"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address that the task pushed, or an empty string; after a task, `ti_key` is its instance."""
        return ti_key.xcom_pull(task_ids=operator.task_id, key=self._key, map_indexes=ti_key.map_index) or ""


def linked(output: Any, **buttons: str) -> Any:
    """Give the task behind `made` buttons, by XCom key what the button says, and return `made`."""
    output.operator.operator_extra_links = tuple(StepLink(name, key) for key, name in buttons.items())
    return output
