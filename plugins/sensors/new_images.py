"""The new-images sensor, which is deferrable: waiting occupies no worker slot."""

import time
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseSensorOperator, Context

from pipelines.errors import CatalogueError
from triggers.new_images import NewImagesTrigger


class NewImagesSensor(BaseSensorOperator):
    """Wait until a project has as many new images as its file asks for, or a request.

    Looks once by itself and, if nothing is due, hands over to `NewImagesTrigger`. Succeeds also when nothing was due
    for `idle_hours`, so that a run of `watch` does not last for ever: the next one follows at once.

    Args:
        project: whose images to count.
        poll_seconds: pause between two counts, defaults to `5.0`.
        idle_hours: how long to wait at most, defaults to `6.0`.
    """

    template_fields: Sequence[str] = ("project",)
    ui_color = "#e6f1f2"

    def __init__(self, *, project: str, poll_seconds: float = 5.0, idle_hours: float = 6.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project = project
        self.poll_seconds = poll_seconds
        self.idle_hours = idle_hours

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Return what is due now, as `pipelines.requests.watch.state` counts it, or defer."""
        from pipelines.requests import watch

        state = watch.state(self.project)
        self.log.info("%s", watch.describe(state))
        if watch.is_due(state):
            return state
        self.defer(
            trigger=NewImagesTrigger(
                project=self.project, until=time.time() + self.idle_hours * 3600, poll_seconds=self.poll_seconds
            ),
            method_name="execute_complete",
        )
        return None

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any] | None:
        """Return what the trigger reported as due, or None if nothing was due in time.

        Raises:
            CatalogueError: the catalogue could not be read for long; the task is retried.
        """
        if event["status"] != "success":
            raise CatalogueError(event["message"])
        return event["state"]
