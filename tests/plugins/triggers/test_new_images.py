"""The trigger: counts aloud, wakes at 500 images or a request, survives a catalogue that goes away."""

import asyncio
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.module_loading import import_string

from pipelines.catalogue import transaction
from pipelines.catalogue.requests import ask
from tests.plugins.catalogue_rows import enter_images
from triggers.new_images import NewImagesTrigger


def trigger(project: str, seconds: float = 20, **arguments: Any) -> NewImagesTrigger:
    return NewImagesTrigger(project=project, until=time.time() + seconds, poll_seconds=0.05, **arguments)


async def first_event(trigger: NewImagesTrigger) -> dict[str, Any]:
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("the trigger ended without an event")


async def waits(trigger: NewImagesTrigger, seconds: float = 0.6) -> bool:
    try:
        await asyncio.wait_for(first_event(trigger), seconds)
    except TimeoutError:
        return True
    return False


def test_serialize_lists_every_argument_and_makes_an_equal_trigger() -> None:
    first = NewImagesTrigger(project="line", until=12.5, poll_seconds=3, patience=4)
    path, arguments = first.serialize()
    assert arguments == {"project": "line", "until": 12.5, "poll_seconds": 3, "patience": 4}
    assert import_string(path)(**arguments).serialize() == (path, arguments)


def test_run_when_499_images_wait_keeps_waiting(line: str) -> None:
    enter_images(line, 499)
    assert asyncio.run(waits(trigger(line)))


def test_run_when_500_images_wait_fires(line: str) -> None:
    enter_images(line, 500)
    event = asyncio.run(first_event(trigger(line)))
    assert event["status"] == "success"
    assert event["state"]["new_images"] == 500


def test_run_when_images_arrive_counts_up_in_its_log_and_fires(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def arrive() -> dict[str, Any]:
        waiting = asyncio.create_task(first_event(trigger(line)))
        for start, count in ((0, 312), (312, 187), (499, 1)):
            await asyncio.to_thread(enter_images, line, count, start=start)
            await asyncio.sleep(0.4)
        return await waiting

    assert asyncio.run(arrive())["state"]["new_images"] == 500
    counts = re.findall(r"\d+ of 500 new images(?:: due)?", capsys.readouterr().out)
    assert len(counts) == len(set(counts)), "a count that did not change is not repeated"
    assert [line for line in counts if line[:3] in ("312", "499", "500")] == [
        "312 of 500 new images",
        "499 of 500 new images",
        "500 of 500 new images: due",
    ]


def test_run_when_a_request_is_written_wakes(line: str) -> None:
    async def write() -> dict[str, Any]:
        waiting = asyncio.create_task(first_event(trigger(line)))
        await asyncio.sleep(0.2)
        with transaction() as connection:
            ask(connection, line, "evaluate", {})
        return await waiting

    assert asyncio.run(write())["state"]["requests"] == {"retrain": 0, "evaluate": 1}


def test_run_when_nothing_is_due_in_time_ends_in_good_order(line: str) -> None:
    assert asyncio.run(first_event(trigger(line, seconds=0.2))) == {"status": "success", "state": None}


def test_run_when_the_catalogue_goes_away_and_returns_goes_on(
    line: str, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(database.removeprefix("sqlite:///"))
    enter_images(line, 500)
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE samples RENAME TO away")

    async def outage() -> dict[str, Any]:
        waiting = asyncio.create_task(first_event(trigger(line)))
        await asyncio.sleep(0.4)
        with sqlite3.connect(file) as connection:
            connection.execute("ALTER TABLE away RENAME TO samples")
        return await waiting

    assert asyncio.run(outage())["status"] == "success"
    assert "trying again" in capsys.readouterr().out


def test_run_when_the_catalogue_stays_away_says_so(line: str, database: str) -> None:
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        connection.execute("DROP TABLE samples")
    event = asyncio.run(first_event(trigger(line, patience=0.2)))
    assert event["status"] == "error"
    assert "catalogue" in event["message"]
