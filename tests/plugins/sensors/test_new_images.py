"""The sensor: defers at 499 images, succeeds at 500, and passes on what the trigger found."""

import time
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from pipelines.errors import CatalogueError
from sensors.new_images import NewImagesSensor
from tests.plugins.catalogue_rows import enter_images


def sensor(project: str, **arguments: Any) -> NewImagesSensor:
    return NewImagesSensor(task_id="wait", project=project, **arguments)


def test_execute_when_499_images_wait_defers_with_every_argument(line: str) -> None:
    enter_images(line, 499)
    with pytest.raises(TaskDeferred) as deferred:
        sensor(line, poll_seconds=7, idle_hours=2).execute({})
    arguments = deferred.value.trigger.serialize()[1]
    assert (arguments["project"], arguments["poll_seconds"]) == (line, 7)
    assert 7100 < arguments["until"] - time.time() <= 7200
    assert deferred.value.method_name == "execute_complete"


def test_execute_when_500_images_wait_succeeds_at_once(line: str) -> None:
    enter_images(line, 500)
    state = sensor(line).execute({})
    assert state is not None
    assert state["new_images"] == 500


def test_execute_complete_when_the_trigger_succeeded_passes_on_what_it_found(line: str) -> None:
    state = {"new_images": 500, "needed": 500, "requests": {}}
    assert sensor(line).execute_complete({}, {"status": "success", "state": state}) == state
    assert sensor(line).execute_complete({}, {"status": "success", "state": None}) is None


def test_execute_complete_when_the_trigger_failed_raises_its_message(line: str) -> None:
    with pytest.raises(CatalogueError, match="went away"):
        sensor(line).execute_complete({}, {"status": "error", "message": "the catalogue went away"})
