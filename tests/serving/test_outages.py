"""Parts that serving needs go away and come back under load: predictions go on, the rest says 503 and when to ask."""

import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import requests

from tests.conftest import Projects, wait_until
from tests.pipelines.packages import good_image
from tests.serving.conftest import Registry, Relay, Server, encoded, rows, until_rows


@dataclass
class Load:
    """What the clients of `under_load` were answered."""

    answered: set[str] = field(default_factory=set)
    refused: list[requests.Response] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def more(self, count: int = 10) -> None:
        """Wait for more answers."""
        enough = len(self.answered) + count
        wait_until(lambda: len(self.answered) >= enough or bool(self.failures), 30, "more predictions")


@contextmanager
def under_load(server: Server, clients: int = 4) -> Iterator[Load]:
    """Predict with several clients, each image another, while the block runs."""
    load, stop = Load(), threading.Event()

    def client(number: int) -> None:
        session, generator = requests.Session(), np.random.default_rng(number)
        while not stop.is_set():
            image = encoded(good_image(generator))
            try:
                answer = session.post(f"{server.address}/predict", files={"file": image}, timeout=30)
            except requests.RequestException as error:
                load.failures.append(f"{type(error).__name__}: {error}")
                continue
            if answer.status_code == 200:
                load.answered.add(answer.json()["request_id"])
            else:
                load.refused.append(answer)
                time.sleep(0.05)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def check_recorded(load: Load, seconds: float = 60) -> None:
    """Hold the catalogue to what was answered: each prediction is there, and each once."""
    recorded = [row["request_id"] for row in until_rows(len(load.answered), seconds)]
    assert load.answered <= set(recorded)
    assert len(recorded) == len(set(recorded))


def says_come_again(answer: requests.Response) -> bool:
    """Tell whether a call was refused for now, with a sentence."""
    return answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0 and bool(answer.json()["error"])


def test_parts_when_stopped_one_by_one_and_all_at_once_then_predictions_go_on_and_catch_up(
    server: Server, registry: Registry, s3: str, postgres: str, projects: Projects, good_file: bytes
):
    version = registry.register()
    host = postgres.partition("@")[2].partition("/")[0]
    with ExitStack() as stack:
        mlflow, storage, database = (
            stack.enter_context(Relay(target)) for target in (registry.address, s3, f"http://{host}")
        )
        server.start(
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{mlflow.port}",
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{storage.port}",
            INSPECTLINE_DATABASE_URL=postgres.replace(host, f"127.0.0.1:{database.port}"),
        ).until_version(version)

        def call(method: str, path: str, **body: object) -> Callable[[], requests.Response]:
            return lambda: requests.request(method, server.address + path, timeout=60, **body)  # type: ignore[arg-type]

        image = {"image_url": f"s3://{projects.bucket}/{registry.project}/x.png"}
        needs = {
            mlflow: [call("GET", "/models"), call("POST", f"/models/{version}/promote")],
            storage: [call("POST", "/predict", json=image)],
            database: [call("GET", "/predictions"), call("GET", "/jobs/1"), call("GET", "/dbconnex")],
        }
        needs[database].append(call("POST", "/retrain", files={"file": good_file}))
        with under_load(server) as load:
            for away in ([mlflow], [storage], [database], [mlflow, storage, database]):
                for part in away:
                    part.down()
                load.more()
                for part in away:
                    for ask in needs[part]:
                        answer = ask()
                        assert says_come_again(answer), (answer.url, answer.status_code, answer.text)
                assert requests.get(f"{server.address}/health/ready", timeout=10).status_code == 200
                load.more()
                for part in away:
                    part.up()
                wait_until(lambda: call("GET", "/predictions")().status_code == 200, 30, "the database again")
                wait_until(lambda: call("GET", "/models")().status_code == 200, 30, "the registry again")
        assert (load.failures, load.refused) == ([], [])
        check_recorded(load)
        wait_until(lambda: server.status()["journal"]["waiting"] == 0, 60, "an empty journal")
        newer = registry.register(threshold=0.2)
        server.until_version(newer, 30)


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_predictions_when_sqlite_is_locked_then_they_go_on_and_catch_up(
    server: Server, registry: Registry, database: str, seconds: int
):
    version = registry.register()
    server.start().until_version(version)
    with under_load(server) as load:
        load.more()
        other = sqlite3.connect(database.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
        other.execute("BEGIN EXCLUSIVE")
        try:
            time.sleep(seconds)
            load.more()
        finally:
            other.execute("ROLLBACK")
            other.close()
    assert (load.failures, load.refused) == ([], [])
    check_recorded(load)


def test_predict_when_the_disk_takes_no_more_then_503_until_it_does(server: Server, registry: Registry, s3: str):
    version = registry.register()
    with Relay(s3) as relay:  # away, so that the journal only grows
        server.start(AWS_ENDPOINT_URL=f"http://127.0.0.1:{relay.port}").until_version(version)
        relay.down()
        (worker,) = server.workers()
        with under_load(server) as load:
            load.more()
            before = resource.prlimit(worker, resource.RLIMIT_FSIZE)
            resource.prlimit(worker, resource.RLIMIT_FSIZE, (1 << 16, before[1]))
            wait_until(lambda: len(load.refused) > 10, 30, "a full disk")
            answers_before = len(load.answered)
            assert requests.get(f"{server.address}/health/live", timeout=10).status_code == 200
            assert server.status()["version"] == version
            resource.prlimit(worker, resource.RLIMIT_FSIZE, before)
            relay.up()
            load.more()
        assert load.failures == []
        assert all(says_come_again(answer) for answer in load.refused)
        assert any("make room" in answer.json()["error"] for answer in load.refused)
        assert len(load.answered) > answers_before
        check_recorded(load)
        assert {row["request_id"] for row in rows()} >= load.answered
