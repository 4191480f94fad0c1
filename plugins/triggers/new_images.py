"""The trigger of the new-images sensor: it waits in the triggerer and occupies no worker slot."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from pipelines.errors import InspectlineError


class NewImagesTrigger(BaseTrigger):
    """Count a project's new images and requests in the catalogue until a run is due.

    Its one event is `{"status": "success", "state": …}`, the last `pipelines.requests.watch.state` or None
    once `until` has passed; or `{"status": "error", "message": …}`. A catalogue that is away, or a
    project file that is wrong, for less than `patience` seconds is waited for.

    Args:
        project: whose images to count.
        until: when to stop waiting, in seconds since the epoch.
        poll_seconds: pause between two counts, defaults to `5.0`.
        patience: how long counting may fail, in seconds, defaults to `600.0`.
    """

    def __init__(self, project: str, until: float, poll_seconds: float = 5.0, patience: float = 600.0) -> None:
        super().__init__()
        self.project = project
        self.until = until
        self.poll_seconds = poll_seconds
        self.patience = patience

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the trigger's import path and every argument."""
        return (
            "triggers.new_images.NewImagesTrigger",
            {
                "project": self.project,
                "until": self.until,
                "poll_seconds": self.poll_seconds,
                "patience": self.patience,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the counts, log them when they change, and yield one event."""
        from pipelines.requests import watch

        logged = ""
        away_since: float | None = None
        while time.time() < self.until:
            try:
                state = await asyncio.to_thread(watch.state, self.project)
            except InspectlineError as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > self.patience:
                    yield TriggerEvent({"status": "error", "message": str(error)})
                    return
                if str(error) != logged:
                    logged = str(error)
                    self.log.warning("Cannot count the new images of %s, trying again: %s", self.project, error)
            else:
                away_since = None
                if watch.is_due(state):
                    self.log.info("%s: due", watch.describe(state))
                    yield TriggerEvent({"status": "success", "state": state})
                    return
                if watch.describe(state) != logged:
                    logged = watch.describe(state)
                    self.log.info("%s", logged)
            await asyncio.sleep(self.poll_seconds)
        self.log.info("Nothing was due in time")
        yield TriggerEvent({"status": "success", "state": None})
